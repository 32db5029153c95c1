"""All methods compared on the same attributes and samples, at the same effects."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hspace.experiments.contenders import Contender, contenders
from hspace.experiments.equal_effect import SHARES, Draw, Trial, spread_of, trial
from hspace.metrics.interval import Interval, over_draws
from hspace.metrics.paired import SIGNIFICANT, best, holm, paired_draws
from hspace.metrics.repeats import intervals_over
from hspace.output.charts import curve_grid
from hspace.output.tables import Cell, Table, format_number
from hspace.runs.discovery import recorded
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.runs.stopwatch import duration

log: logging.Logger = logging.getLogger(__name__)

REFERENCE = "mean difference"
"""The paper's supervised method, which every other is compared with."""
COMPARED = ("selectivity", "table", "identity", "likeness")
"""Figures that differences are tested of."""
MOST = 0.5
"""Methods are compared on the attributes that this part of them reaches."""
UNEDITED = "unedited"
"""Name of the unedited samples in tables of scores."""
Curves = dict[str, list[list[float]]]
"""Lists of x and of y by label."""
NEW = 1.0
"""Seconds; a part that took less was in the cache, and says nothing of those that are left."""


class Figures(NamedTuple):
    """What the judge reads of an edit; nan where it cannot be told.

    Attributes:
        effect: Effect on the attribute, in sd, signed.
        selectivity: Over all judged attributes.
        table: Selectivity over the attributes of the comparison.
        accuracy: Share that flips to the asked side of those that could.
        identity: Cosine of all that a person owns.
        likeness: Cosine of what no judged attribute is.
    """

    effect: float
    selectivity: float
    table: float
    accuracy: float
    identity: float
    likeness: float


NAMES = ("effect", "selectivity", "selectivity in the table", "accuracy", "identity", "likeness")
"""The figures in tables."""
UNREAD = Figures(*[float("nan")] * len(NAMES))


def run(lab: Lab) -> Result:
    """Finds every method's edit of every attribute on every draw, sets its strengths, and reads them all."""
    methods, names, target = contenders(lab.cfg.study.methods), lab.cfg.study.attributes, lab.cfg.study.target
    trials = _trials(lab, methods)
    # (methods, draws, attributes, effects, figures); what is reached has no figures.
    values = np.array([[_figures(each, names, target) for each in draws] for draws in trials])
    reached = np.array([[_reached(each) for each in draws] for draws in trials])
    rows, costs = [each.name for each in methods], [_costs(lab, draws) for draws in trials]
    tables, findings, conclusions, pairs = dict[str, Table](), dict[str, Any](), list[str](), list[tuple[Cell, ...]]()
    for i, (share, suffix) in enumerate(zip(SHARES, ("", "_strong"), strict=True)):
        at, seen = f"{share * target:g} sd", reached[..., i]
        common, fair = comparable(seen)
        few = _mean(values[:, :, common, i] if len(common) else values[..., i, :])
        shown = [names[j] for j in common] or names
        compared = {rows[m]: few[m] for m in fair}
        winners = {name: _best(compared, name) for name in COMPARED}
        tables[f"methods{suffix}"] = _methods(lab, at, shown, rows, few, seen, costs, winners)
        pairs += [(at, *row) for row in differences(compared)]
        conclusions.append(_conclusion(at, shown, compared, winners))
        findings[at] = {"attributes": shown, "methods": list(compared), "winners": winners}
    grid = _curves(values, rows, names)
    picture = curve_grid(
        grid, lab.figures / "effect_identity.png", x_label="effect on the attribute (sd)", whole=False
    )  # fmt: skip
    tables |= {
        "attributes": _by_attribute(values, reached, rows, names, target),
        "calibrations": _calibrations(lab, trials),
        "pairs": _pairs(pairs),
    }
    faults = _faults(trials)
    tables |= {"faults": faults} if faults.rows else {}
    findings |= {name: {"columns": tables[name].columns, "rows": tables[name].rows} for name in ("methods", "pairs")}
    caption = "Effect against identity and selectivity, mean over attributes and each of them"
    return Result(" ".join(conclusions), findings | {"curves": grid}, {caption: picture}, tables, _scores(trials))


def _trials(lab: Lab, methods: Sequence[Contender]) -> list[list[Trial]]:
    """Every method on every draw, (methods, draws)."""
    spread, repeats = spread_of(lab), lab.cfg.study.repeats
    found: list[list[Trial]] = [[] for _ in methods]
    took, every = list[float](), repeats * len(methods)
    for number in range(repeats):
        draw = Draw(lab.draw(number), number, spread)
        _prepare(draw)
        for j, method in enumerate(methods):
            started = time.perf_counter()
            with lab.watch.stage(method.name):
                found[j].append(trial(draw, method))
            took += [seconds] if (seconds := time.perf_counter() - started) > NEW else []
            done = number * len(methods) + j + 1
            rest = f", about {duration((every - done) * sum(took) / len(took))} left" if took and done < every else ""
            log.info("draw %d of %d, %s: %d of %d done%s", number + 1, repeats, method.name, done, every, rest)
    return found


def _prepare(draw: Draw) -> None:
    """Generates what methods share, so that no method's time has it."""
    lab = draw.lab
    with lab.watch.stage("samples"):
        lab.unit(lab.annotator)
        lab.annotations()
        for n in {lab.cfg.study.index, lab.pca.num_samples}:
            recorded(lab.cfg, lab.model, n)


def _figures(trial: Trial, names: Sequence[str], target: float) -> np.ndarray:
    """(attributes, effects, figures)."""
    return np.array([[_read(trial, name, share, names, target) for share in range(len(SHARES))] for name in names])


def _read(trial: Trial, name: str, share: int, names: Sequence[str], target: float) -> Figures:
    row, readings = trial.row(name, share), trial.readings
    if row is None or readings is None:
        return UNREAD
    effects, sign = readings.effects(), trial.contender.sign
    likeness = readings.likeness(row)
    return Figures(
        sign * effects.cell(row, name).value,
        effects.selectivity_of(row, name).value,
        effects.select(names).selectivity_of(row, name).value,
        readings.accuracy(row, name, sign * target).value,
        readings.identity(row).value,
        float("nan") if likeness is None else likeness.value,
    )


def _reached(trial: Trial) -> np.ndarray:
    """Whether the annotator sees the target, bool (attributes, effects)."""
    missed = (False,) * len(SHARES)
    return np.array([missed if each.fault else [level.reached for level in each.levels] for each in trial.entries])


def comparable(reached: np.ndarray) -> tuple[list[int], list[int]]:
    """The attributes and the methods that are compared, by what the annotator sees and the judge does not.

    Args:
        reached: Whether the target is reached, bool (methods, draws, attributes).

    Returns:
        Indices of the attributes that at least half of the methods reach in every draw, and of the methods that reach
        all of these in every draw.
    """
    always = np.logical_and.reduce(reached, axis=1)
    common = np.flatnonzero(always.mean(axis=0) >= MOST)
    fair = np.flatnonzero(always[:, common].all(axis=1)) if len(common) else []
    return [int(j) for j in common], [int(m) for m in fair]


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over attributes of (methods, draws, attributes, figures), of those that are known; nan where none is."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis=2), known.sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _costs(lab: Lab, draws: Sequence[Trial]) -> tuple[Cell, ...]:
    """Samples that a method learns from, images that the annotator scores, and seconds: for one attribute of a draw."""
    method, cfg = draws[0].contender, lab.cfg
    candidates = max(each.candidates for trial in draws for each in trial.entries)
    chosen = cfg.evaluation.calibration_samples * (1 + 2 * candidates) if candidates > 1 else 0
    labels = method.samples(cfg) * method.annotated + method.scored(cfg) + chosen
    # The first attribute of a draw pays for what all share.
    seconds = np.median([np.mean([each.seconds for each in trial.entries]) for trial in draws])
    return method.samples(cfg), labels, round(float(seconds), 1)


def _best(compared: Mapping[str, np.ndarray], name: str) -> str | None:
    """The method that beats the second in a figure."""
    columns = {method: values[:, Figures._fields.index(name)] for method, values in compared.items()}
    columns = {method: values for method, values in columns.items() if np.isfinite(values).any()}
    return best(columns, paired_draws) if len(columns) > 1 else None


def differences(compared: Mapping[str, np.ndarray]) -> list[tuple[Cell, ...]]:
    """Each method less the reference in each figure, by draw; Holm's correction is over the methods of a figure.

    Args:
        compared: Figures by method, (draws, figures).
    """
    rows: list[tuple[Cell, ...]] = []
    others = [method for method in compared if method != REFERENCE] if REFERENCE in compared else []
    for name in COMPARED if others else ():
        column = Figures._fields.index(name)
        found = [paired_draws(compared[each][:, column], compared[REFERENCE][:, column]) for each in others]
        corrected = holm(np.array([p for _, p in found]))
        rows += [
            (NAMES[column], method, difference, float(p), "yes" if p < SIGNIFICANT else "no")
            for method, (difference, _), p in zip(others, found, corrected, strict=True)
        ]
    return rows


def _conclusion(
    at: str, attributes: Sequence[str], compared: Mapping[str, np.ndarray], winners: Mapping[str, str | None]
) -> str:
    """Which of the methods that reach every target is most selective, and which keeps identity best."""
    if not compared:
        return f"At {at} no method reaches the target where half of them do."
    where = f"At {at}, of {len(compared)} methods that reach it in every draw for {', '.join(attributes)}"
    return f"{where}, {_leader('selectivity', compared, winners)}, and {_leader('identity', compared, winners)}."


def _leader(name: str, compared: Mapping[str, np.ndarray], winners: Mapping[str, str | None]) -> str:
    """Such as "identity is highest for ICA (.82), beyond the error of the paired difference to the second"."""
    column = Figures._fields.index(name)
    means = {method: over_draws(values[:, column]).value for method, values in compared.items()}
    first = max(means, key=lambda method: np.nan_to_num(means[method], nan=-1))
    sure = "beyond" if winners[name] else "within"
    return f"{name} is highest for {first} ({format_number(means[first])}), {sure} the error of its lead"


def _methods(
    lab: Lab, at: str, shown: Sequence[str], rows: Sequence[str], values: np.ndarray, reached: np.ndarray,
    costs: Sequence[tuple[Cell, ...]], winners: Mapping[str, str | None],
) -> Table:  # fmt: skip
    """Every method's figures and costs, values (methods, draws, figures)."""
    every, judged = reached[0].size, len(lab.judge.attributes)
    cells = tuple(
        (name, f"{int(reached[m].sum())} of {every}", *_intervals(values[m]), *costs[m]) for m, name in enumerate(rows)
    )
    caption = (
        f"Means over {', '.join(shown)}, each at the strength at which the annotator sees {at} (or the nearest, where "
        f"that is not reached), {intervals_over(lab.cfg.study.repeats)}; target reached: of all attributes in all "
        f"draws. Erase and switch take an attribute off. Selectivity: of the effects on {judged} judged attributes "
        f"(chance {format_number(1 / judged)}), and on the {len(lab.cfg.study.attributes)} of the comparison. "
        "Accuracy: flips among those that could flip to the asked side. Costs are of one attribute in one draw: "
        "generated samples to learn from, images that the annotator scores to find and to choose, and seconds, those "
        "of generating the samples left out. Bold: beats the second by the interval of the paired difference, of those "
        "that reach the target"
    )
    columns = ("method", "target reached", *NAMES, "samples", "labels", "seconds")
    places = {name: columns.index(NAMES[Figures._fields.index(name)]) for name in winners}
    bold = frozenset((rows.index(method), places[name]) for name, method in winners.items() if method)
    return Table(columns, cells, caption, bold=bold, counted="draws")


def _intervals(values: np.ndarray) -> tuple[Interval, ...]:
    """Of each figure, (draws, figures)."""
    return tuple(map(over_draws, values.T))


def _by_attribute(
    values: np.ndarray, reached: np.ndarray, rows: Sequence[str], names: Sequence[str], target: float
) -> Table:
    """Every method's figures for every attribute at every effect."""
    cells = tuple(
        (method, name, share * target, f"{int(reached[m, :, j, i].sum())} of {reached.shape[1]}",
         *_intervals(values[m, :, j, i]))
        for m, method in enumerate(rows)
        for j, name in enumerate(names)
        for i, share in enumerate(SHARES)
    )  # fmt: skip
    caption = (
        "Each method's edit of each attribute, at the calibrated strengths, or the nearest where the target, in sd, is "
        "not reached in a draw"
    )
    return Table(("method", "attribute", "target", "reached", *NAMES), cells, caption, counted="draws")


def _calibrations(lab: Lab, trials: Sequence[Sequence[Trial]]) -> Table:
    """Every strength, and the effect that the annotator sees there."""
    rows = tuple(
        (number, trial.contender.name, each.attribute, each.direction, share * lab.cfg.study.target, level.strength,
         level.effect, "yes" if level.reached else "no")
        for draws in trials
        for number, trial in enumerate(draws)
        for each in trial.entries if each.levels
        for share, level in zip(SHARES, each.levels, strict=True)
    )  # fmt: skip
    columns = ("draw", "method", "attribute", "direction", "target", "strength", "annotator's effect", "reached")
    caption = (
        "Calibrated strengths: of directions in spreads of the samples (the root of the total variance of h, or of "
        "x_T), of operators shares of the whole map; effects in sd"
    )
    return Table(columns, rows, caption, f"{lab.annotator.id}, the annotator")


def _pairs(rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(
        ("effect", "figure", "method", f"less {REFERENCE}", "p", "differs"), tuple(rows),
        f"Each method less the {REFERENCE} on the same draws, of those that reach the target for every attribute of "
        "the table; p by Holm's correction over the methods of each figure at each effect",
        counted="draws",
    )  # fmt: skip


def _faults(trials: Sequence[Sequence[Trial]]) -> Table:
    """Edits that there are not, and why."""
    rows = tuple(
        (number, trial.contender.name, each.attribute, each.fault)
        for draws in trials
        for number, trial in enumerate(draws)
        for each in trial.entries
        if each.fault
    )
    return Table(("draw", "method", "attribute", "reason"), rows, "Edits that could not be made, or not be read")


def _curves(values: np.ndarray, rows: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Curves]]:
    """Effect against identity and selectivity, for all attributes together and each of them: means over draws."""
    panels = {"mean": _mean(values), **{name: values[:, :, j] for j, name in enumerate(names)}}

    def of(panel: np.ndarray, name: str, start: list[list[float]]) -> Curves:
        """A point for each effect, from (methods, draws, effects, figures), after those of no edit."""
        places = (Figures._fields.index("effect"), Figures._fields.index(name))
        points = [
            [[over_draws(draws).value for draws in panel[m, :, :, i].T] for i in places] for m in range(len(rows))
        ]
        return {method: [a + b for a, b in zip(start, points[m], strict=True)] for m, method in enumerate(rows)}

    return {
        "identity (cosine)": {title: of(each, "identity", [[0.0], [1.0]]) for title, each in panels.items()},
        "selectivity": {title: of(each, "selectivity", [[], []]) for title, each in panels.items()},
    }


def _scores(trials: Sequence[Sequence[Trial]]) -> dict[str, Table]:
    """The judge's scores of every sample, a table for each draw; the unedited samples once."""
    tables: dict[str, Table] = {}
    for number, draw in enumerate(zip(*trials, strict=True)):
        read = [trial.readings.table() for trial in draw if trial.readings is not None]
        rows = [row for i, table in enumerate(read) for row in table.rows if i == 0 or row[0] != UNEDITED]
        tables |= {f"scores_{number}": replace(read[0], rows=tuple(rows))} if read else {}
    return tables
