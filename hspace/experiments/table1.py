"""Table I: what an edit of one attribute does to the others, before and after eq. 12."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.directions.disentangle import disentangle
from hspace.directions.record import Directions
from hspace.evaluation.calibration import Calibration
from hspace.metrics.effect import EffectMatrix, effect_matrix
from hspace.metrics.interval import Interval
from hspace.metrics.repeats import over_seeds
from hspace.output.figures import color_limit, effect_heatmap
from hspace.output.tables import Cell, Table, format_number
from hspace.runs.config import Config
from hspace.runs.lab import Lab
from hspace.runs.report import Result

KINDS: tuple[str, ...] = ("original", "disentangled", "equal_strength")
"""Directions before eq. 12, after it at the same effect on their own attribute, and after it at the same strength."""
DIGITS = 4


@dataclass(frozen=True)
class Scores:
    """What the judge read of the table's attributes, all of them visible everywhere.

    Attributes:
        attributes: A ids, in the order of rows and columns.
        binary: Which of them are probabilities.
        original: Unedited samples, (repeats, n, A).
        edited: By kind: (repeats, A edits, n, A).
        num_steps: Sampling steps.
        strengths: By kind: one per edit.
        calibrated: By kind: the effect that the annotator sees at each of them, where it was calibrated.
    """

    attributes: tuple[str, ...]
    binary: tuple[bool, ...]
    original: Tensor
    edited: Mapping[str, Tensor]
    num_steps: int
    strengths: Mapping[str, tuple[float, ...]]
    calibrated: Mapping[str, tuple[Interval, ...]]


def run(lab: Lab) -> Result:
    """Edits fresh samples of every repeat with every direction, and tabulates what the judge reads."""
    return tabulate(lab.cfg, _measure(lab))


def _measure(lab: Lab) -> Scores:
    names, n = lab.cfg.study.attributes, lab.cfg.evaluation.num_samples
    before = {name: lab.attribute(name) for name in names}
    after = {name: disentangle(before[name], [before[other] for other in names if other != name]) for name in names}
    found = {"original": _calibrated(lab, before), "disentangled": _calibrated(lab, after)}
    strengths = {kind: tuple(each.strength for each in calibrations) for kind, calibrations in found.items()}
    strengths["equal_strength"] = strengths["original"]
    calibrated = {kind: tuple(each.interval for each in calibrations) for kind, calibrations in found.items()}
    kinds = {"original": before, "disentangled": after, "equal_strength": after}
    edits = {
        f"{kind} {name}": strength * kinds[kind][name].directions[0]
        for kind in KINDS
        for name, strength in zip(names, strengths[kind], strict=True)
    }
    columns = [lab.judge.attributes.index(name) for name in names]
    readings = [lab.read(edits, lab.seeds(start=repeat * n)) for repeat in range(lab.cfg.study.repeats)]
    edited = torch.stack([each.edited[..., columns] for each in readings]).unflatten(1, (len(KINDS), len(names)))
    original = torch.stack([each.original[:, columns] for each in readings])
    by_kind: dict[str, Tensor] = dict(zip(KINDS, edited.unbind(1), strict=True))
    binary = tuple(lab.judge.binary[column] for column in columns)
    return Scores(names, binary, original, by_kind, len(lab.model.process.timesteps), strengths, calibrated)


def _calibrated(lab: Lab, directions: Mapping[str, Directions]) -> list[Calibration]:
    """The strengths at which the annotator sees the target effect."""
    return [lab.calibrate(found, 0, name, lab.cfg.study.target) for name, found in directions.items()]


def tabulate(cfg: Config, scores: Scores) -> Result:
    """The table, from scores by sample; no model is needed."""
    pooled = scores.original.flatten(0, 1)
    unit = pooled.double().std(dim=0)

    def effects(kind: str, repeat: int | None) -> EffectMatrix:
        edited = scores.edited[kind]
        rows = edited.transpose(0, 1).flatten(1, 2) if repeat is None else edited[repeat]
        original = pooled if repeat is None else scores.original[repeat]
        names = scores.attributes
        return effect_matrix(original, rows, attributes=names, binary=scores.binary, edits=names, unit=unit)

    repeats = range(len(scores.original))
    whole = {kind: effects(kind, None) for kind in KINDS}
    each = {kind: [effects(kind, repeat) for repeat in repeats] for kind in KINDS}
    # A single repeat has no spread.
    spread = {kind: over_seeds(found).sd if len(found) > 1 else 0 * found[0].effect for kind, found in each.items()}
    selectivity = {kind: matrix.selectivity(scores.attributes) for kind, matrix in whole.items()}
    strongest = {kind: _strongest(matrix) for kind, matrix in whole.items()}
    count = len(scores.attributes)
    conclusion = (
        f"The intended attribute moves most in {strongest['original']} of {count} rows before and "
        f"{strongest['disentangled']} of {count} after, at the same effect on it; mean selectivity is "
        f"{_mean(selectivity['original'])} before and {_mean(selectivity['disentangled'])} after (at the same strength "
        f"{_mean(selectivity['equal_strength'])}; chance {format_number(1 / count)}). The paper has 2 and 5 of 5 rows, "
        ".25 and .49."
    )
    findings = {
        "attributes": list(scores.attributes),
        **{kind: whole[kind].effect for kind in KINDS[:2]},
        **{f"{kind}_sd": spread[kind] for kind in KINDS[:2]},
        **{f"{kind}_interval": np.stack([whole[kind].low, whole[kind].high], axis=-1) for kind in KINDS[:2]},
        "samples": int(scores.original.shape[1]),
        "seeds": len(repeats),
        "num_steps": scores.num_steps,
        "equal_strength": {
            "original": whole["original"].effect, "disentangled": whole["equal_strength"].effect,
            "original_sd": spread["original"], "disentangled_sd": spread["equal_strength"],
        },
        "selectivity": selectivity,
        "strongest": strongest,
        "strengths": {kind: list(values) for kind, values in scores.strengths.items()},
        "calibrated": scores.calibrated,
    }  # fmt: skip
    # They are compared: one scale of colours.
    limit = color_limit(*whole.values())
    figures = {
        f"Effects, {caption}": effect_heatmap(whole[kind], cfg.output_dir / "figures" / f"{kind}.png", limit)
        for kind, caption in zip(
            KINDS, ("original", "disentangled, same effect", "disentangled, same strength"), strict=True
        )
    }
    tables = {
        kind: _table(kind, whole[kind], spread[kind], selectivity[kind], scores.calibrated.get(kind)) for kind in KINDS
    }
    return Result(conclusion, findings, figures, tables, {"scores": samples_table(scores)})


def _mean(selectivity: Sequence[Interval]) -> str:
    return format_number(sum(each.value for each in selectivity) / len(selectivity))


def _strongest(matrix: EffectMatrix) -> int:
    """Rows whose own attribute moves most."""
    return sum(matrix.strongest(j)[0] == name for j, name in enumerate(matrix.edits))


def _table(
    kind: str, matrix: EffectMatrix, spread: np.ndarray, selectivity: Sequence[Interval],
    calibrated: Sequence[Interval] | None,
) -> Table:  # fmt: skip
    """Effects with intervals, the attribute that each row moves most, its selectivity, and the sd over repeats."""
    rows: list[tuple[Cell, ...]] = []
    for j, name in enumerate(matrix.edits):
        cells: list[Cell] = [matrix.cell(j, attribute) for attribute in matrix.attributes]
        seen = [] if calibrated is None else [calibrated[j]]
        own = f"± {format_number(float(spread[j, j]))}"
        rows.append((name, *seen, *cells, matrix.strongest(j)[0], selectivity[j], own))
    more = [] if calibrated is None else ["annotator's effect"]
    columns = ("edit", *more, *matrix.attributes, "strongest", "selectivity", "own effect, sd over repeats")
    meaning = {
        "original": "Original directions at the target effect",
        "disentangled": "Disentangled directions at the target effect",
        "equal_strength": "Disentangled directions at the original ones' strengths",
    }
    caption = f"{meaning[kind]}: signed effects in sd of the unedited samples, by the judge, with 95% intervals."
    return Table(columns, tuple(rows), caption)


def samples_table(scores: Scores) -> Table:
    """Every score of every sample, from which `from_samples` has the table again."""
    columns = ("kind", "edit", "strength", "repeat", "sample", *scores.attributes)
    rows: list[tuple[Cell, ...]] = []

    def add(kind: str, edit: str, strength: float, values: Tensor) -> None:
        for repeat, samples in enumerate(values.tolist()):
            for sample, row in enumerate(samples):
                rows.append((kind, edit, strength, repeat, sample, *(round(value, DIGITS) for value in row)))

    add("unedited", "", 0.0, scores.original)
    for kind in KINDS:
        for j, name in enumerate(scores.attributes):
            add(kind, name, scores.strengths[kind][j], scores.edited[kind][:, j])
    return Table(columns, tuple(rows), f"The judge's scores of every sample, {scores.num_steps} steps.")


def from_samples(
    rows: Sequence[Mapping[str, str]],
    attributes: Sequence[str],
    binary: Sequence[bool],
    num_steps: int,
    calibrated: Mapping[str, Sequence[Sequence[float | None]]],
) -> Scores:
    """Inverse of `samples_table`, from the rows of its CSV; which attributes are binary is not in them.

    Args:
        rows: Of the CSV, text by column.
        attributes: Ids, in the order of the table.
        binary: Which of them are probabilities.
        num_steps: Sampling steps.
        calibrated: What the findings of the record hold under this name.
    """

    def values(kind: str, edit: str) -> tuple[Tensor, float]:
        found = [row for row in rows if row["kind"] == kind and row["edit"] == edit]
        repeats = 1 + max(int(row["repeat"]) for row in found)
        table: Any = [[float(row[name]) for name in attributes] for row in found]
        return torch.tensor(table).unflatten(0, (repeats, -1)), float(found[0]["strength"])

    edited, strengths = {}, {}
    for kind in KINDS:
        pairs = [values(kind, name) for name in attributes]
        edited[kind] = torch.stack([tensor for tensor, _ in pairs], dim=1)
        strengths[kind] = tuple(strength for _, strength in pairs)
    cells = {kind: tuple(map(_interval, found)) for kind, found in calibrated.items()}
    return Scores(tuple(attributes), tuple(binary), values("unedited", "")[0], edited, num_steps, strengths, cells)


def _interval(cell: Sequence[float | None]) -> Interval:
    """Inverse of `finite` of an interval."""
    value, low, high = (math.nan if number is None else number for number in cell[:3])
    return Interval(value, low, high, int(cell[3] or 0))
