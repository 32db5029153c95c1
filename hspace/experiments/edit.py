"""The plain experiment: directions or an operator by one method, which are named, applied to samples and measured."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hspace.diffusion.latents import check_disjoint, seed_range
from hspace.diffusion.photographs import find_images
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import h_varies
from hspace.directions.operators import Found, Operator
from hspace.directions.positions import grid_of, shares
from hspace.edits.changes import changes
from hspace.evaluation.measures import MEASURES, Edited, Measure, Value, from_real, least_images
from hspace.evaluation.ranges import range_of, range_unlike, with_ranges
from hspace.evaluation.readings import Sweep
from hspace.metrics.interval import Interval
from hspace.metrics.names import UNNAMED, numbered
from hspace.output.charts import effect_heatmap, map_figure
from hspace.output.figures import grid_figure
from hspace.output.tables import UNKNOWN, Cell, Table, format_number, written
from hspace.runs.effects import in_effects, named_at, turned
from hspace.runs.lab import SHOWN, Lab
from hspace.runs.report import Result
from hspace.types import InputError

GRID = 16
"""Number of unedited samples in the overview."""

Targets = Sequence[str | None]
"""The attribute that each direction raises, or None."""
Measured = Mapping[tuple[int, float], Mapping[str, Value]]
"""Results of the measures for each direction and strength, by their names."""


@dataclass(frozen=True)
class Applied:
    """What a method found, applied to the evaluation samples at every strength.

    Attributes:
        found: The directions with their names, or the operator.
        targets: The attribute that each of them raises, or None.
        sweep: What the judge reads off the edits.
    """

    found: Found
    targets: Targets
    sweep: Sweep


def run(lab: Lab) -> Result:
    """Finds directions by the configured method, names them, edits samples along each, and measures the edits.

    Raises:
        InputError: If a measure needs a region and the method has none, or more samples or real images, roles share
            seeds, or effects are configured that a direction or an operator cannot be scaled to.
    """
    return measure(lab, apply(lab))


def apply(lab: Lab) -> Applied:
    """Finds directions, or an operator, by the configured method, names them, and edits samples along each.

    Raises:
        InputError: As `run` does.
    """
    needs = _needs(lab)
    directions = lab.found()
    check_disjoint(
        discovery=directions.meta.seeds, evaluation=lab.seeds(),
        calibration=seed_range("calibration", lab.cfg.evaluation.reference_samples),
    )  # fmt: skip
    directions, targets = _named(lab, directions)
    if lab.cfg.edit.effects is not None:
        if isinstance(directions, Operator):
            raise InputError("edit.effects scales directions, and an operator was found: give edit.strengths in [0, 1]")
        directions = in_effects(lab, directions, targets, lab.cfg.edit.effects)
    shown = len(lab.seeds()) if "images" in needs else SHOWN
    return Applied(directions, targets, lab.sweep(changes(directions), shown=shown))


def measure(lab: Lab, applied: Applied) -> Result:
    """Measures the edits that `apply` made, and reports them."""
    measures, sweep = _measures(lab), applied.sweep
    directions, targets = applied.found, applied.targets
    with lab.watch.stage("measure"):
        measured = _measured(lab, measures, sweep, directions, targets)
        unedited = _unedited_from_real(lab, measures, sweep)
    largest = max(sweep.strengths)
    figures = {
        "One sample, edited along each direction": _strip(lab, sweep, targets, directions),
        f"Effects at strength {largest:g}": effect_heatmap(sweep.effects(largest), lab.figures / "effects.png"),
        "Unedited samples": grid_figure(
            lab.images(lab.model.latents(lab.seeds(n=GRID))), GRID // 2, lab.figures / "samples.png"
        ),
        **_maps(lab, directions),
    }
    tables = {
        "directions": _directions_table(lab, measures, sweep, targets, measured, unedited),
        "effects": _effects_table(lab, sweep),
    }
    unit = dict(zip(lab.judge.attributes, sweep.readings.unit.tolist(), strict=True))
    findings = {**_findings(measures, sweep, measured, largest), "unit": unit}
    findings |= {"search": directions.meta.report} if directions.meta.report else {}
    findings |= unedited
    return Result(
        _conclusion(targets, findings, largest), findings, figures, tables,
        samples={"scores": sweep.readings.table()}, 
        directions={"operator" if isinstance(directions, Operator) else "directions": directions},
        curves=[{"strength": s, **_figures_at(sweep, measured, s)} for s in sorted(sweep.strengths)],
        lines=_lines(sweep, targets, measured, largest),
    )  # fmt: skip


def _measures(lab: Lab) -> list[Measure]:
    return [MEASURES.get(name) for name in lab.cfg.evaluation.measures]


def _needs(lab: Lab) -> frozenset[str]:
    """What the configured measures need, which the run can give."""
    needs = frozenset[str]().union(*(each.needs for each in _measures(lab)))
    if "region" in needs and getattr(lab.cfg.method, "mask", None) is None:
        raise InputError("evaluation.measures: what is read outside a region needs method.mask to name it")
    if "varying" in needs and not h_varies(lab.model):
        measures = ", ".join(each.name for each in _measures(lab) if "varying" in each.needs)
        raise InputError(
            f"evaluation.measures: {measures} needs h to differ from sample to sample, and at tap "
            f"{lab.model.denoiser.tap} it is the same for all"
        )
    _check_sets(lab, [each for each in _measures(lab) if "halves" in each.needs])
    return needs


def _check_sets(lab: Lab, measures: Sequence[Measure]) -> None:
    """Checks that there are enough images for the measures that compare two sets of them, before any work."""
    count, folder = len(lab.seeds()), lab.cfg.dataset.path
    if folder is None:
        if measures and count < 4:
            raise InputError(f"evaluation.num_samples must be at least 4 for measures that compare halves, got {count}")
        return
    if not measures:
        raise InputError("dataset.path is read by the measures fid and kid: name them in evaluation.measures")
    real = len(find_images(folder))
    for each in measures:
        if min(real, count) < (least := least_images(each.name, lab)):
            raise InputError(
                f"evaluation.measures: {each.name} needs at least {least} images on each side, got {real} in "
                f"dataset.path={folder} and evaluation.num_samples={count}"
            )


def _named(lab: Lab, directions: Found) -> tuple[Found, Targets]:
    """Names such as "component 3: yaw" or "component 4: unnamed"; each direction is turned to raise its attribute.

    A supervised direction already has its attribute, and so has an operator.
    """
    attribute = getattr(lab.cfg.method, "attribute", None)
    if isinstance(directions, Operator):
        own = directions.meta.settings.get("attribute")
        return directions, [own if own in lab.attributes else None]
    if attribute is not None:
        return directions, [attribute] * len(directions.meta.names)
    found = lab.name(directions.directions, named_at(lab))
    signs = [1 if each is None else each.sign for each in found]
    plain = [_unnamed(name, lab.annotator.attributes) for name in directions.meta.names]
    names = tuple(f"{old}: {label}" for old, label in zip(plain, numbered(found), strict=True))
    kept = directions.meta.calibration or {}
    # A strength that was found for one sign of a direction is not that of the other.
    records = {
        new: kept[old]
        for old, new, sign in zip(directions.meta.names, names, signs, strict=True)
        if old in kept and sign > 0
    }
    measured = {j: range_of(directions, j) for j in range(len(names))}
    ranges = {j: each if signs[j] > 0 else each.scaled(-1) for j, each in measured.items() if each is not None}
    same = min(signs) > 0
    report = directions.meta.report if same else {}
    meta = replace(directions.meta, names=names, calibration=records or None, effects=None, report=report)
    named = replace(turned(directions, found), meta=meta, range=directions.range if same else None)
    return with_ranges(named, ranges) if ranges else named, [each and each.attribute for each in found]


def _unnamed(name: str, attributes: Sequence[str]) -> str:
    """A direction's name without the attribute that was added to it; a colon of its own stays."""
    head, _, tail = name.rpartition(": ")
    found = re.fullmatch(r"(\w+)( \(\+ [\w, ]+\))?( \d+)?", tail)
    return head if head and found and found[1] in (*attributes, UNNAMED) else name


def _measured(lab: Lab, measures: Sequence[Measure], sweep: Sweep, directions: Found, targets: Targets) -> Measured:
    found = {}
    for j, target in enumerate(targets):
        for strength in sweep.strengths:
            edited = Edited(sweep, directions, j, strength, target, lab)
            found[j, strength] = {each.name: each.read(edited) for each in measures}
    return found


def _strip(lab: Lab, sweep: Sweep, targets: Targets, found: Found):
    """One sample under every direction and strength, the unedited one among them."""
    largest = max(sweep.strengths)
    effects = sweep.effects(largest)
    notes = [
        f"{written(effects.cell(j, target).value)} sd at {written(largest, '+g')}" if target else "no clear effect"
        for j, target in enumerate(targets)
    ]
    notes = [f"{note}{safe(found, j, lab.sampler)}" for j, note in enumerate(notes)]
    title = f"{lab.cfg.name}: one sample, edited along each direction"
    return sweep.strip(title, lab.figures / "directions.png", notes)


def safe(found: Found, direction: int, sampler: Sampler) -> str:
    """The safe range of a direction, as a line of its own; empty unless it was measured of edits by this sampler."""
    if range_unlike(found, direction, sampler):
        return ""
    measured = range_of(found, direction)
    if measured is None:
        return ""
    return f"\nsafe from {written(measured.low, '+.2g')} to {written(measured.high, '+.2g')}"


def _maps(lab: Lab, directions: Found) -> dict[str, Path]:
    """Where on the image directions lie that were found on one sample, with the border of the method's region."""
    sample, shape = getattr(lab.cfg.method, "sample", None), lab.model.h_shape
    grid = grid_of(shape, lab.model.sample_shape)
    if sample is None or grid is None or isinstance(directions, Operator) or directions.meta.space != "h":
        return {}
    masked = getattr(lab.cfg.method, "mask", None) is not None
    region = lab.region(lab.images(lab.model.latents([sample])))[0] if masked else None
    maps, path = shares(directions.directions, shape, grid), lab.figures / "positions.png"
    unit = "share of the squared length"
    return {
        "Positions of h that each direction changes": map_figure(
            maps, directions.meta.names, path, unit=unit, outline=region
        )
    }


def _directions_table(
    lab: Lab,
    measures: Sequence[Measure],
    sweep: Sweep,
    targets: Targets,
    measured: Measured,
    unedited: Mapping[str, float],
) -> Table:
    """A row per direction and strength: the target and every measure; in the caption, distances of the unedited."""
    rows: list[tuple[Cell, ...]] = [
        (sweep.labels[j], strength, targets[j], *values.values()) for (j, strength), values in measured.items()
    ]
    units = "; ".join(f"{each.name}: {each.unit}{_arrow(each)}" for each in measures)
    chance = format_number(1 / len(sweep.readings.scorer.attributes))
    caption = f"Each direction at each strength, with 95% intervals. {units}. Chance of selectivity: {chance}."
    caption += "".join(
        f" Of the unedited samples: {name.partition('/')[0]} {format_number(value)}."
        for name, value in unedited.items()
    )
    columns = ("direction", "strength", "target", *(each.name for each in measures))
    return Table(columns, tuple(rows), caption, lab.judge_name)


def _arrow(measure: Measure) -> str:
    return {True: ", higher is better", False: ", lower is better", None: ""}[measure.higher_is_better]


def _effects_table(lab: Lab, sweep: Sweep) -> Table:
    """A row per direction and strength, a column per attribute, in standard deviations of the unedited samples."""
    matrix, attributes = sweep.readings.effects(), sweep.readings.scorer.attributes
    rows: list[tuple[Cell, ...]] = [
        (label, s, *(matrix.cell(sweep.row(j, s), name) for name in attributes))
        for j, label in enumerate(sweep.labels)
        for s in sweep.strengths
    ]
    caption = "Effects in sd of the unedited samples with 95% intervals."
    return Table(("direction", "strength", *attributes), tuple(rows), caption, lab.judge_name)


def _findings(measures: Sequence[Measure], sweep: Sweep, measured: Measured, strength: float) -> dict[str, float]:
    """The figures at the largest strength, each measure's mean over the directions, and over how many where not all.

    The effect of a direction without a name, for one, is not known.
    """
    values = {each.name: [_number(measured[j, strength][each.name]) for j in range(len(sweep.labels))]
              for each in measures}  # fmt: skip
    known = {name: found for name, column in values.items() if (found := [v for v in column if np.isfinite(v)])}
    means = {f"mean/{name}": float(np.mean(found)) for name, found in known.items()}
    few = {f"directions/{name}": len(found) for name, found in known.items() if len(found) < len(sweep.labels)}
    return means | few | _figures_at(sweep, measured, strength)


def _figures_at(sweep: Sweep, measured: Measured, strength: float) -> dict[str, float]:
    """Figures at one strength by key: `<measure>/direction_<j>`, and `effect/<attribute>/direction_<j>`."""
    effects, figures = sweep.effects(strength), {}
    for j in range(len(sweep.labels)):
        figures |= {f"{name}/direction_{j}": _number(value) for name, value in measured[j, strength].items()}
        pairs = zip(effects.attributes, effects.effect[j], strict=True)
        figures |= {f"effect/{name}/direction_{j}": float(value) for name, value in pairs}
    return {key: value for key, value in figures.items() if np.isfinite(value)}


def _number(value: Value) -> float:
    return float("nan") if value is None else float(value.value if isinstance(value, Interval) else value)


def _unedited_from_real(lab: Lab, measures: Sequence[Measure], sweep: Sweep) -> dict[str, float]:
    """Distances of the unedited samples from the real images, where there are some."""
    if lab.real is None:
        return {}
    found = from_real(lab, sweep.readings.images[:, 0])
    values = {"fid": found.fid, "kid": found.kid.mean}
    return {f"{each.name}/unedited": values[each.name] for each in measures if each.name in values}


def _lines(sweep: Sweep, targets: Targets, measured: Measured, strength: float) -> list[str]:
    """One line per direction: its name, its effect with the interval, and the identity that it keeps."""
    effects, lines = sweep.effects(strength), []
    width = max(map(len, sweep.labels))
    for j, (label, target) in enumerate(zip(sweep.labels, targets, strict=True)):
        effect = "no clear effect" if target is None else f"{target} {_interval(effects.cell(j, target))} sd"
        identity = measured[j, strength].get("identity")
        kept = f", identity {_interval(identity)}" if isinstance(identity, Interval) else ""
        lines.append(f"{label:<{width}}  at {written(strength, '+g')}: {effect}{kept}")
    return lines


def _interval(found: Interval) -> str:
    if not np.isfinite(found.value):
        return UNKNOWN
    value, low, high = (written(each, ".2f") for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _conclusion(targets: Targets, findings: Mapping[str, Any], strength: float) -> str:
    named = sorted({target for target in targets if target})
    means = ", ".join(
        f"{name} {format_number(findings[key])}"
        + (f" ({few} of them)" if (few := findings.get(f"directions/{name}")) else "")
        for key in findings
        if (name := key.removeprefix("mean/")) != key
    )
    names = f", named {', '.join(named)}" if named else ", none of which has a name"
    return f"{len(targets)} directions{names}; means at strength {strength:g}: {means}."
