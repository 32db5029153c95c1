"""Table I: the effects of an edit of one attribute on the others, before and after eq. 12, or by another method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.directions.operators import Operator
from hspace.directions.record import Directions
from hspace.evaluation.levels import Level
from hspace.experiments.contenders import Contender, contenders
from hspace.experiments.equal_effect import FIRST, MOST, Draw, scaled, spread_of
from hspace.experiments.strengths import shared_levels
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
        strengths: Strengths by kind, one per edit, in spreads of the samples: one for all repeats.
        calibrated: Effects that the annotator sees at each calibrated strength, by kind.
    """

    attributes: tuple[str, ...]
    judged: tuple[str, ...]
    binary: tuple[bool, ...]
    original: Tensor
    edited: Mapping[str, Tensor]
    num_steps: int
    strengths: Mapping[str, Sequence[float]]
    calibrated: Mapping[str, Sequence[Level]]


def run(lab: Lab) -> Result:
    """Finds the directions of every repeat, edits its samples, and tabulates what the judge reads."""
    method = _method(lab.cfg.study.method)
    names, target, spread = lab.cfg.study.attributes, lab.cfg.study.target, spread_of(lab)
    draws = [Draw(lab.draw(number), number, spread) for number in range(lab.cfg.study.repeats)]
    before = [[_change(draw, draw.lab.attribute(name)) for name in names] for draw in draws]
    after = [[_change(draw, _direction(draw.lab, method, name)) for name in names] for draw in draws]
    calibrated = dict[str, list[Level]]()
    for kind, changes in zip(KINDS, (before, after), strict=False):
        own = [[(draw.calibration_seeds, each) for draw, each in zip(draws, column, strict=True)]
               for column in zip(*changes, strict=True)]  # fmt: skip
        calibrated[kind] = [
            shared_levels(lab, edits, name, [target], first=FIRST["directions"], most=MOST["directions"])[0]
            for name, edits in zip(names, own, strict=True)
        ]
    strengths = {kind: [level.strength for level in found] for kind, found in calibrated.items()}
    strengths[KINDS[2]] = strengths[KINDS[0]]
    changes = dict(zip(KINDS, (before, after, after), strict=True))
    read = [
        _read(draw, names, {kind: [s * each for s, each in zip(strengths[kind], changes[kind][i], strict=True)]
                            for kind in KINDS})
        for i, draw in enumerate(draws)
    ]  # fmt: skip
    by_kind = torch.stack([edited for _, edited in read]).unbind(1)
    original = torch.stack([each for each, _ in read])
    scores = Scores(
        names, lab.judge.attributes, lab.judge.binary, original, dict(zip(KINDS, by_kind, strict=True)),
        len(lab.model.process.timesteps), strengths, calibrated,
    )  # fmt: skip
    return tabulate(lab.cfg, scores)


def _change(draw: Draw, directions: Directions) -> Tensor:
    """The first direction, as long as the samples' spread."""
    return scaled(draw, directions.directions[0])


def _read(draw: Draw, names: Sequence[str], changes: Mapping[str, Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """What the judge reads of a draw's own samples, unedited (n, J) and by kind (kinds, A edits, n, J)."""
    edits = {f"{kind} {name}": each for kind in KINDS for name, each in zip(names, changes[kind], strict=True)}
    readings, judge = draw.lab.read(edits, draw.seeds), draw.lab.judge
    edited = torch.where(readings.visible, readings.edited, torch.nan).unflatten(0, (len(KINDS), len(names)))
    return torch.where(judge.visible(readings.original), readings.original, torch.nan), edited


def _method(name: str) -> Contender:
    """The method of `study.method`.

    Raises:
        InputError: If there is no such method, or it offers several directions.
    """
    method, *others = contenders([name], "study.method")
    if others:
        raise InputError(f"study.method must be one method of the comparison, got {name}")
    if not method.aimed:
        raise InputError(f"table I needs a method that aims at an attribute, and {method.name} does not")
    return method


def _direction(lab: Lab, method: Contender, attribute: str) -> Directions:
    """The one direction that a method finds.

    Raises:
        InputError: If it finds an operator.
    """
    (found,) = method.find(lab, attribute)
    if isinstance(found, Operator):
        raise InputError(f"table I needs a method that finds a direction, and {method.name} finds an operator")
    return found


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
    if missed := _missed(scores):
        conclusion += f" {missed}"
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
    repeats = intervals_over(len(scores.original), "draws of examples and samples")
    tables = {
        kind: _table(kind, name, whole[kind].select(names), selectivity[kind], judged[kind], repeats) for kind in KINDS
    }
    if scores.calibrated:
        tables["calibrations"] = _calibrations(scores, cfg.evaluation.annotator)
    return Result(conclusion, findings, figures, tables, {"scores": samples_table(scores)})


def _missed(scores: Scores) -> str:
    """Says which edits are not at the target effect, since the annotator sees it at no strength."""
    missed = [
        f"{name} ({kind})"
        for kind, found in scores.calibrated.items()
        for name, level in zip(scores.attributes, found, strict=True)
        if not level.reached
    ]
    return (
        f"Not at the target, which no strength reaches, but at the nearest effect: {', '.join(missed)}."
        if missed
        else ""
    )


def _selectivity(draws: Sequence[EffectMatrix], names: Sequence[str]) -> list[Interval]:
    """Of every row, over draws."""
    shares = [[cell.value for cell in matrix.selectivity(names)] for matrix in draws]
    return [over_draws(np.array(row)) for row in zip(*shares, strict=True)]


def _mean(selectivity: Sequence[Interval]) -> str:
    return format_number(sum(each.value for each in selectivity) / len(selectivity))


def _strongest(matrix: EffectMatrix) -> int:
    """Rows whose own attribute moves most."""
    return sum(matrix.strongest(j)[0] == name for j, name in enumerate(matrix.edits))


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
        "disentangled": f"Directions of {method} at the target effect",
        "equal_strength": f"Directions of {method} at the strengths of the original ones",
    }
    caption = (
        f"{meaning[kind]}: signed effects in sd of the unedited samples, by the judge; {repeats}. "
        f"Chance of selectivity: {format_number(1 / len(matrix.attributes))} in the table"
    )
    return Table(columns, tuple(rows), caption, counted="draws")


def _calibrations(scores: Scores, annotator: str) -> Table:
    """Every strength, and the effect that the annotator sees there."""
    rows = tuple(
        (kind, name, level.strength, level.effect, "yes" if level.reached else "no")
        for kind, found in scores.calibrated.items()
        for name, level in zip(scores.attributes, found, strict=True)
    )
    columns = ("kind", "edit", "strength", "annotator's effect", "reached")
    caption = (
        "Calibrated strengths, in spreads of the samples (the root of the total variance of h, or of x_T): one for all "
        "draws, each of which has samples of its own; effects in sd, without intervals"
    )
    return Table(columns, rows, caption, f"{annotator}, the annotator")


def samples_table(scores: Scores) -> Table:
    """Every score of every sample, empty where it is hidden, from which `from_samples` has the table again."""
    columns = ("kind", "edit", "strength", "repeat", "sample", *scores.judged)
    rows: list[tuple[Cell, ...]] = []

    def add(kind: str, edit: str, strength: float, values: Tensor) -> None:
        for repeat, samples in enumerate(values.tolist()):
            for sample, row in enumerate(samples):
                cells = (None if math.isnan(value) else round(value, DIGITS) for value in row)
                rows.append((kind, edit, strength, repeat, sample, *cells))

    add("unedited", "", 0.0, scores.original)
    for kind in KINDS:
        for j, name in enumerate(scores.attributes):
            add(kind, name, scores.strengths[kind][j], scores.edited[kind][:, j])
    return Table(columns, tuple(rows), f"The judge's scores of every sample, {scores.num_steps} steps.")


def from_samples(
    rows: Sequence[Mapping[str, str]],
    attributes: Sequence[str],
    kinds: Mapping[str, str],
    num_steps: int,
    calibrated: Mapping[str, Sequence[Sequence[Any]]],
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

    def values(kind: str, edit: str) -> tuple[Tensor, float]:
        found = [row for row in rows if row["kind"] == kind and row["edit"] == edit]
        table: Any = [[float(row[name] or "nan") for name in judged] for row in found]
        repeats = 1 + max(int(row["repeat"]) for row in found)
        return torch.tensor(table).unflatten(0, (repeats, -1)), float(found[0]["strength"])

    edited, strengths = {}, {}
    for kind in KINDS:
        pairs = [values(kind, name) for name in attributes]
        edited[kind] = torch.stack([tensor for tensor, _ in pairs], dim=1)
        strengths[kind] = [strength for _, strength in pairs]
    seen = {
        kind: [Level(s, math.nan if effect is None else effect, reached) for s, effect, reached in found]
        for kind, found in calibrated.items()
    }
    binary = tuple(kinds[name] == "binary" for name in judged)
    return Scores(
        tuple(attributes), judged, binary, values("unedited", "")[0], edited, num_steps, strengths, seen
    )  # fmt: skip
