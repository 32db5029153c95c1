"""Directions scaled to wanted effects, in the place of strengths in their own units."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from hspace.directions.record import Directions
from hspace.runs.lab import Lab
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)


def in_effects(lab: Lab, directions: Directions, targets: Sequence[str | None], effects: Sequence[float]) -> Directions:
    """The directions, scaled so that the largest of the effects, as a strength, moves their attributes by that many sd.

    Smaller effects are in proportion to it, and so are those of the other sign.

    Args:
        lab: The run, whose annotator finds the strengths on calibration seeds.
        directions: k directions, each turned to raise its attribute.
        targets: Attribute of each direction, or None.
        effects: Wanted effects, in sd, one of them besides 0.

    Raises:
        InputError: If a direction has no attribute.
    """
    largest = max(map(abs, effects))
    records: dict[str, Any] = {}
    scales = []
    for j, (name, target) in enumerate(zip(directions.meta.names, targets, strict=True)):
        if target is None:
            named_at = max(map(abs, lab.cfg.edit.strengths))
            raise InputError(
                f"edit.effects: {name} moves no attribute surely at strength {named_at:g}: choose others by "
                "edit.components, or give edit.strengths"
            )
        found = lab.calibrate(directions, j, target, largest)
        if not found.reached:
            log.warning("%s moves %s by %+.2f sd at most, in place of %g", name, target, found.effect, largest)
        scale = found.strength / largest
        tried = tuple((strength / scale, effect) for strength, effect in found.tried)
        records[name] = {"calibration": json.loads(json.dumps(asdict(replace(found, strength=largest, tried=tried))))}
        scales.append(scale)
    factors = torch.tensor(scales).view(-1, *[1] * (directions.directions.ndim - 1))
    meta = replace(directions.meta, unit="sd of effect", calibration=records, effects=None, report={})
    return replace(directions, directions=factors * directions.directions, meta=meta, range=None)
