"""Directions scaled to wanted effects, in the place of strengths in their own units."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from hspace.directions.record import Directions
from hspace.evaluation.ranges import range_of, with_ranges
from hspace.metrics.names import Name
from hspace.runs.lab import Lab
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)


def in_effects(
    lab: Lab,
    directions: Directions,
    targets: Sequence[str | None],
    effects: Sequence[float],
    sides: Sequence[int] | None = None,
) -> Directions:
    """The directions, scaled so that the largest of the effects, as a strength, moves their attributes by that many sd.

    Smaller effects are in proportion to it, and so are those of the other sign.

    Args:
        lab: The run, whose annotator finds the strengths on calibration seeds.
        directions: k directions, each turned to raise its attribute.
        targets: Attribute of each direction, or None.
        effects: Wanted effects, in sd, one of them besides 0.
        sides: Side to which each direction moves its attribute, 1 or -1; None is up for all.

    Raises:
        InputError: If a direction has no attribute.
    """
    largest = max(map(abs, effects))
    records: dict[str, Any] = {}
    scales = []
    sides = [1] * len(targets) if sides is None else sides
    for j, (name, target, side) in enumerate(zip(directions.meta.names, targets, sides, strict=True)):
        if target is None:
            raise InputError(
                f"edit.effects: {name} moves no attribute surely at strength {named_at(lab):g}: choose others by "
                "edit.components, or give edit.strengths"
            )
        found = lab.calibrate(directions, j, target, side * largest)
        if not found.reached:
            log.warning("%s moves %s by %+.2f sd at most, in place of %g", name, target, found.effect, side * largest)
        scale = found.strength / largest
        tried = tuple((strength / scale, effect) for strength, effect in found.tried)
        records[name] = {"calibration": json.loads(json.dumps(asdict(replace(found, strength=largest, tried=tried))))}
        scales.append(scale)
    factors = torch.tensor(scales).view(-1, *[1] * (directions.directions.ndim - 1))
    meta = replace(directions.meta, unit="sd of effect", calibration=records, effects=None, report={})
    scaled = replace(directions, directions=factors * directions.directions, meta=meta, range=None)
    measured = {j: range_of(directions, j) for j in range(len(scales))}
    ranges = {j: each.scaled(1 / scales[j]) for j, each in measured.items() if each is not None}
    return with_ranges(scaled, ranges) if ranges else scaled


def as_configured(lab: Lab, directions: Directions, targets: Sequence[str | None] | None = None) -> Directions:
    """The directions that the configured strengths apply to: as they are, or scaled where effects are configured.

    Args:
        lab: The run.
        directions: k directions.
        targets: Attribute that each raises. One of None is scaled by what the annotator sees it move most on
            calibration seeds, up or down, and keeps its sense.

    Raises:
        InputError: If effects are configured, and the calibration samples show no attribute of a direction.
    """
    if lab.cfg.edit.effects is None:
        return directions
    targets = [None] * len(directions.meta.names) if targets is None else targets
    if None not in targets:
        return in_effects(lab, directions, targets, lab.cfg.edit.effects)
    most = [None if given else name for given, name in zip(targets, _most_moved(lab, directions), strict=True)]
    targets = [given or (name and name.attribute) for given, name in zip(targets, most, strict=True)]
    return in_effects(lab, directions, targets, lab.cfg.edit.effects, [name.sign if name else 1 for name in most])


def turned(directions: Directions, names: Sequence[Name | None]) -> Directions:
    """The directions, each turned to raise what it is named by."""
    signs = torch.tensor([float(name.sign) if name else 1.0 for name in names])
    vectors = directions.directions * signs.view(-1, *[1] * (directions.directions.ndim - 1))
    return replace(directions, directions=vectors)


def named_at(lab: Lab) -> float:
    """The strength at which directions are named: the largest, in their own unit."""
    return max(map(abs, lab.cfg.edit.strengths))


def aim(lab: Lab) -> tuple[float, float]:
    """What directions of known attributes are calibrated to: the effect, in sd, and the strength that stands for it.

    That is `study.target` at strength 1, or the largest of the configured effects as it is.

    Raises:
        InputError: If strength 1 is not among those that are configured.
    """
    if lab.cfg.edit.effects is not None:
        largest = max(lab.strengths, key=lambda each: (abs(each), each))
        return largest, largest
    if 1.0 not in lab.strengths:
        raise InputError(
            f"edit.strengths must hold 1 for procedure={lab.cfg.procedure}, which reads edits at study.target, got "
            f"{list(lab.cfg.edit.strengths)}"
        )
    return lab.cfg.study.target, 1.0


def stated(lab: Lab, strength: float, unit: str = "") -> str:
    """A strength in words, such as "strength 3", "3 sd", or "an effect of 1 sd" where effects are configured."""
    if lab.cfg.edit.effects is not None:
        return f"an effect of {strength:g} sd"
    return f"{strength:g} {unit}" if unit else f"strength {strength:g}"


def axis(lab: Lab, unit: str = "") -> str:
    """The label of an axis of strengths."""
    if lab.cfg.edit.effects is not None:
        return "effect that was asked for (sd)"
    return f"strength ({unit})" if unit else "strength"


def _most_moved(lab: Lab, directions: Directions) -> list[Name | None]:
    """What the annotator sees each direction move most: its name, or else the largest effect, with a warning."""
    vectors, at = directions.directions, named_at(lab)
    found = lab.name(vectors, at)
    unsure = [j for j, name in enumerate(found) if name is None]
    if not unsure:
        return found
    odd = lab.odd_effects(vectors[unsure], at).select(lab.attributes)
    for row, j in enumerate(unsure):
        attribute, effect = odd.strongest(row)
        if attribute in lab.attributes:
            label = directions.meta.names[j]
            log.warning("%s moves no attribute surely: scaled by %s, which it moves most", label, attribute)
            found[j] = Name(attribute, 1 if effect > 0 else -1)
    return found
