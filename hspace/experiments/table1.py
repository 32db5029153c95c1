"""Table I: the effects of an edit of one attribute on the others, before and after eq. 12, or by another method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hspace.directions.operators import Operator
from hspace.directions.record import Directions
from hspace.evaluation.calibration import Calibration
from hspace.experiments.contenders import contenders
from hspace.metrics.effect import EffectMatrix, effect_matrix, score_unit
from hspace.metrics.interval import Interval, over_draws
from hspace.metrics.repeats import intervals_over, matrices_over_draws
from hspace.output.charts import color_limit, effect_heatmap
from hspace.output.tables import Cell, Table, format_number
from hspace.runs.config import Config
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.types import InputError

KINDS: tuple[str, ...] = ("original", "disentangled", "equal_strength")
"""Mean differences, what `study.method` names (eq. 12) at the same effect on its own attribute, and that at the same
strength."""
DIGITS = 4


@dataclass(frozen=True)
class Scores:
    """What the judge read; a repeat has examples and evaluation samples of its own.

    Attributes:
        attributes: A ids, in the order of the rows.
        judged: J ids of the scores, the A among them.
        binary: Whether each of the J scores is a probability.
        original: Unedited samples, (repeats, n, J); nan where an attribute is hidden.
        edited: Scores of the edits by kind, (repeats, A edits, n, J).
        num_steps: Sampling steps.
        strengths: Strengths by kind and repeat, one per edit.
        calibrated: Effects that the annotator sees at each calibrated strength, by kind and repeat.
    """

    attributes: tuple[str, ...]
    judged: tuple[str, ...]
    binary: tuple[bool, ...]
    original: Tensor
    edited: Mapping[str, Tensor]
    num_steps: int
    strengths: Mapping[str, Sequence[tuple[float, ...]]]
    calibrated: Mapping[str, Sequence[tuple[Interval, ...]]]


class Repeat(NamedTuple):
    """One repeat's scores, as in `Scores`, and by kind its strengths and calibrations."""

    original: Tensor
    edited: Tensor
    strengths: Mapping[str, tuple[float, ...]]
    calibrated: Mapping[str, tuple[Interval, ...]]


def run(lab: Lab) -> Result:
    """Finds the directions of every repeat, edits its samples, and tabulates what the judge reads."""
    found = [_measure(lab, number) for number in range(lab.cfg.study.repeats)]
    by_kind = torch.stack([each.edited for each in found]).unbind(1)
    original = torch.stack([each.original for each in found])
    scores = Scores(
        lab.cfg.study.attributes, lab.judge.attributes, lab.judge.binary, original,
        dict(zip(KINDS, by_kind, strict=True)), len(lab.model.process.timesteps),
        {kind: [each.strengths[kind] for each in found] for kind in KINDS},
        {kind: [each.calibrated[kind] for each in found] for kind in KINDS[:2]},
    )  # fmt: skip
    return tabulate(lab.cfg, scores)


def _measure(lab: Lab, number: int) -> Repeat:
    names, n, drawn = lab.cfg.study.attributes, lab.cfg.evaluation.num_samples, lab.draw(number)
    before = {name: drawn.attribute(name) for name in names}
    after = {name: _direction(drawn, name) for name in names}
    found = {"original": _calibrated(drawn, before), "disentangled": _calibrated(drawn, after)}
    strengths = {kind: tuple(each.strength for each in calibrations) for kind, calibrations in found.items()}
    strengths["equal_strength"] = tuple(
        strength * _as_long(before[name], after[name])
        for name, strength in zip(names, strengths["original"], strict=True)
    )
    kinds = {"original": before, "disentangled": after, "equal_strength": after}
    edits = {
        f"{kind} {name}": strength * kinds[kind][name].directions[0]
        for kind in KINDS
        for name, strength in zip(names, strengths[kind], strict=True)
    }
    readings = drawn.read(edits, lab.seeds(start=number * n))
    edited = torch.where(readings.visible, readings.edited, torch.nan).unflatten(0, (len(KINDS), len(names)))
    original = torch.where(lab.judge.visible(readings.original), readings.original, torch.nan)
    seen = {kind: tuple(each.interval for each in calibrations) for kind, calibrations in found.items()}
    return Repeat(original, edited, strengths, seen)


def _direction(lab: Lab, attribute: str) -> Directions:
    """The one direction that the method of `study.method` finds.

    Raises:
        InputError: If there is no such method, or it finds an operator or several directions.
    """
    method, *others = contenders([lab.cfg.study.method], "study.method")
    if others:
        raise InputError(f"study.method must be one method of the comparison, got {lab.cfg.study.method}")
    found = method.find(lab, attribute)
    only = found[0]
    if isinstance(only, Operator) or sum(len(each.meta.names) for each in found) > 1:
        what = "an operator" if isinstance(only, Operator) else "several directions"
        raise InputError(f"table I needs a method that finds one direction, and {method.name} finds {what}")
    return only


def _as_long(before: Directions, after: Directions) -> float:
    """Factor of a strength that means the same for another direction: 1 in the same unit, else for the same length."""
    if before.meta.unit == after.meta.unit:
        return 1.0
    return float(before.directions.double().norm() / after.directions.double().norm())


def _calibrated(lab: Lab, directions: Mapping[str, Directions]) -> list[Calibration]:
    """The strengths at which the annotator sees the target effect."""
    return [lab.calibrate(found, 0, name, lab.cfg.study.target) for name, found in directions.items()]


def tabulate(cfg: Config, scores: Scores) -> Result:
    """The table, from scores by sample; no model is needed."""
    pooled, names = scores.original.flatten(0, 1), scores.attributes
    unit = score_unit(pooled, pooled.isfinite())

    def effects(kind: str, repeat: int) -> EffectMatrix:
        original, edited = scores.original[repeat], scores.edited[kind][repeat]
        return effect_matrix(
            original.nan_to_num(), edited.nan_to_num(), attributes=scores.judged, binary=scores.binary, edits=names,
            visible=edited.isfinite() & original.isfinite(), unit=unit,
        )  # fmt: skip

    draws = {kind: [effects(kind, repeat) for repeat in range(len(scores.original))] for kind in KINDS}
    whole = {kind: matrices_over_draws(each) for kind, each in draws.items()}
    table = {kind: [each.select(names) for each in found] for kind, found in draws.items()}
    selectivity = {kind: _selectivity(found, names) for kind, found in table.items()}
    judged = {kind: _selectivity(found, names) for kind, found in draws.items()}
    strongest = {kind: _strongest(whole[kind].select(names)) for kind in KINDS}
    count = len(names)
    conclusion = (
        f"The intended attribute moves most in {strongest['original']} of {count} rows before and "
        f"{strongest['disentangled']} of {count} after, at the same effect on it; mean selectivity is "
        f"{_mean(selectivity['original'])} before and {_mean(selectivity['disentangled'])} after (at the same strength "
        f"{_mean(selectivity['equal_strength'])}; chance {format_number(1 / count)})."
    )
    if cfg.study.method == KINDS[1]:
        conclusion += " The paper has 2 and 5 of 5 rows, .25 and .49."
    findings = {
        "attributes": names,
        "effects": {kind: whole[kind].select(names).to_dict() for kind in KINDS},
        "samples": int(scores.original.shape[1]),
        "seeds": len(scores.original),
        "num_steps": scores.num_steps,
        "selectivity": selectivity,
        "selectivity of all judged": judged,
        "strongest": strongest,
        "strongest by draw": {kind: [_strongest(each) for each in found] for kind, found in table.items()},
        "strengths": scores.strengths,
        "calibrated": scores.calibrated,
    }
    name = cfg.study.method
    # They are compared: one scale of colours.
    limit = color_limit(*whole.values())
    figures = {
        f"Effects, {caption}": effect_heatmap(whole[kind], cfg.output_dir / "figures" / f"{kind}.png", limit)
        for kind, caption in zip(KINDS, ("original", f"{name}, same effect", f"{name}, same strength"), strict=True)
    }
    repeats = {kind: _repeats(scores.strengths[kind]) for kind in KINDS}
    tables = {
        kind: _table(kind, name, whole[kind].select(names), selectivity[kind], judged[kind], repeats[kind])
        for kind in KINDS
    }
    if scores.calibrated:
        tables["calibrations"] = _calibrations(scores, cfg.evaluation.annotator)
    return Result(conclusion, findings, figures, tables, {"scores": samples_table(scores)})


def _selectivity(draws: Sequence[EffectMatrix], names: Sequence[str]) -> list[Interval]:
    """Of every row, over draws."""
    shares = [[cell.value for cell in matrix.selectivity(names)] for matrix in draws]
    return [over_draws(np.array(row)) for row in zip(*shares, strict=True)]


def _mean(selectivity: Sequence[Interval]) -> str:
    return format_number(sum(each.value for each in selectivity) / len(selectivity))


def _strongest(matrix: EffectMatrix) -> int:
    """Rows whose own attribute moves most."""
    return sum(matrix.strongest(j)[0] == name for j, name in enumerate(matrix.edits))


def _repeats(strengths: Sequence[tuple[float, ...]]) -> str:
    """What intervals are over, in words: strengths that are all the same are those of one draw of examples."""
    fixed = len(strengths) > 1 and len(set(strengths)) == 1
    of = "repeats with fresh samples and the same directions" if fixed else "draws of examples and samples"
    return intervals_over(len(strengths), of)


def _table(
    kind: str,
    method: str,
    matrix: EffectMatrix,
    selectivity: Sequence[Interval],
    judged: Sequence[Interval],
    repeats: str,
) -> Table:
    """Effects, the attribute that each row moves most, and its selectivity in both readings."""
    rows: list[tuple[Cell, ...]] = [
        (name, *(matrix.cell(j, attribute) for attribute in matrix.attributes), matrix.strongest(j)[0], selectivity[j],
         judged[j])
        for j, name in enumerate(matrix.edits)
    ]  # fmt: skip
    columns = ("edit", *matrix.attributes, "strongest", "selectivity", "selectivity of all judged")
    meaning = {
        "original": "Original directions at the target effect",
        "disentangled": f"{method.capitalize()} directions at the target effect",
        "equal_strength": f"{method.capitalize()} directions at the original ones' strengths",
    }
    caption = (
        f"{meaning[kind]}: signed effects in sd of the unedited samples, by the judge; {repeats}. "
        f"Chance of selectivity: {format_number(1 / len(matrix.attributes))} in the table"
    )
    return Table(columns, tuple(rows), caption, counted="draws")


def _calibrations(scores: Scores, annotator: str) -> Table:
    """Every strength, and the effect that the annotator sees there."""
    rows = tuple(
        (kind, name, repeat, scores.strengths[kind][repeat][j], cells[j])
        for kind, found in scores.calibrated.items()
        for repeat, cells in enumerate(found)
        for j, name in enumerate(scores.attributes)
    )
    columns = ("kind", "edit", "repeat", "strength", "annotator's effect")
    return Table(columns, rows, "Calibrated strengths, effects in sd", f"{annotator}, the annotator")


def samples_table(scores: Scores) -> Table:
    """Every score of every sample, empty where it is hidden, from which `from_samples` has the table again."""
    columns = ("kind", "edit", "strength", "repeat", "sample", *scores.judged)
    rows: list[tuple[Cell, ...]] = []

    def add(kind: str, edit: str, strengths: Sequence[float], values: Tensor) -> None:
        for repeat, samples in enumerate(values.tolist()):
            for sample, row in enumerate(samples):
                cells = (None if math.isnan(value) else round(value, DIGITS) for value in row)
                rows.append((kind, edit, strengths[repeat], repeat, sample, *cells))

    add("unedited", "", [0.0] * len(scores.original), scores.original)
    for kind in KINDS:
        for j, name in enumerate(scores.attributes):
            add(kind, name, [each[j] for each in scores.strengths[kind]], scores.edited[kind][:, j])
    return Table(columns, tuple(rows), f"The judge's scores of every sample, {scores.num_steps} steps.")


def from_samples(
    rows: Sequence[Mapping[str, str]],
    attributes: Sequence[str],
    kinds: Mapping[str, str],
    num_steps: int,
    calibrated: Mapping[str, Sequence[Sequence[Sequence[float | None]]]],
) -> Scores:
    """Inverse of `samples_table`, from the rows of its CSV.

    Args:
        rows: Rows of the CSV, text by column.
        attributes: Ids of the edits, in the order of the table.
        kinds: Kind of each attribute, `binary` or `continuous`, by its id.
        num_steps: Sampling steps.
        calibrated: Entry of this name in the findings of the record.
    """
    judged = tuple(name for name in rows[0] if name in kinds)

    def values(kind: str, edit: str) -> tuple[Tensor, list[float]]:
        found = [row for row in rows if row["kind"] == kind and row["edit"] == edit]
        table: Any = [[float(row[name] or "nan") for name in judged] for row in found]
        repeats = 1 + max(int(row["repeat"]) for row in found)
        strengths = {int(row["repeat"]): float(row["strength"]) for row in found}
        return torch.tensor(table).unflatten(0, (repeats, -1)), [strengths[repeat] for repeat in range(repeats)]

    edited, strengths = {}, {}
    for kind in KINDS:
        pairs = [values(kind, name) for name in attributes]
        edited[kind] = torch.stack([tensor for tensor, _ in pairs], dim=1)
        strengths[kind] = list(zip(*(column for _, column in pairs), strict=True))
    cells = {kind: [tuple(map(_interval, row)) for row in found] for kind, found in calibrated.items()}
    binary = tuple(kinds[name] == "binary" for name in judged)
    return Scores(
        tuple(attributes), judged, binary, values("unedited", "")[0], edited, num_steps, strengths, cells
    )  # fmt: skip


def _interval(cell: Sequence[float | None]) -> Interval:
    """Inverse of `finite` of an interval."""
    value, low, high = (math.nan if number is None else number for number in cell[:3])
    return Interval(value, low, high, int(cell[3] or 0))
