"""All methods compared on the same attributes and samples, at the same effects."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hspace.experiments.comparison import (
    NAMES,
    REFERENCE,
    UNREAD,
    Figures,
    comparable,
    conclusion,
    differences,
    over_attributes,
    winners,
)
from hspace.experiments.contenders import Contender, contenders
from hspace.experiments.equal_effect import SHARES, Draw, Trial, spread_of, trials
from hspace.experiments.rejoined import UNEDITED
from hspace.metrics.interval import Interval, over_draws
from hspace.metrics.repeats import intervals_over
from hspace.output.charts import curve_grid
from hspace.output.scatter import Point, scatter_figure
from hspace.output.tables import Cell, Table, format_number
from hspace.runs.discovery import recorded
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.runs.stopwatch import duration

log: logging.Logger = logging.getLogger(__name__)

Curves = dict[str, list[list[float]]]
"""Lists of x and of y by label."""
NEW = 1.0
"""Seconds; a part that took less was in the cache, and says nothing of those that are left."""


def run(lab: Lab) -> Result:
    """Finds every method's edit of every attribute on every draw, sets its strengths, and reads them all."""
    return tabulate(lab, _trials(lab, contenders(lab.cfg.study.methods)))


def tabulate(lab: Lab, tried: Sequence[Sequence[Trial]]) -> Result:
    """The tables and the figure, from trials, (methods, draws)."""
    names, target = lab.cfg.study.attributes, lab.cfg.study.target
    methods = [draws[0].contender for draws in tried]
    # (methods, draws, attributes, effects, figures); what is reached has no figures.
    values = np.array([[_figures(each, names, target) for each in draws] for draws in tried])
    reached = np.array([[_reached(each) for each in draws] for draws in tried])
    rows, costs = [each.name for each in methods], [_costs(lab, draws) for draws in tried]
    tables, findings, conclusions, pairs = dict[str, Table](), dict[str, Any](), list[str](), list[tuple[Cell, ...]]()
    panels = dict[str, list[Point]]()
    for i, (share, suffix) in enumerate(zip(SHARES, ("", "_strong"), strict=True)):
        at, seen = f"{share * target:g} sd", reached[..., i]
        common, fair = comparable(seen, [each.sign for each in methods])
        few = over_attributes(values[:, :, common, i] if len(common) else values[..., i, :])
        shown = [names[j] for j in common] or names
        compared = {rows[m]: few[m] for m in fair}
        best = winners(compared)
        panels[f"effect of {at} on {', '.join(shown)}"] = [
            _point(name, few[m], m in fair) for m, name in enumerate(rows)
        ]
        tables[f"methods{suffix}"] = _methods(lab, at, shown, rows, few, seen, costs, best)
        pairs += [(at, *row) for row in differences(compared)]
        conclusions.append(conclusion(at, shown, compared))
        findings[at] = {"attributes": shown, "methods": list(compared), "winners": best}
    grid = _curves(values, rows, names)
    picture = curve_grid(
        grid, lab.figures / "effect_identity.png", x_label="effect on the attribute (sd)", whole=False
    )  # fmt: skip
    tables |= {
        "attributes": _by_attribute(tried, values, reached, names, target),
        "calibrations": _calibrations(lab, tried),
        "pairs": _pairs(pairs),
    }
    faults = _faults(tried)
    tables |= {"faults": faults} if faults.rows else {}
    findings |= {name: {"columns": tables[name].columns, "rows": tables[name].rows} for name in ("methods", "pairs")}
    first = scatter_figure(
        panels, lab.figures / "methods.png", x_label="selectivity of all judged attributes",
        y_label="identity (cosine to the unedited)",
    )  # fmt: skip
    pictures = {
        f"Selectivity and identity at one effect, means over attributes, {intervals_over(lab.cfg.study.repeats)}; "
        "grey: does not reach the effect on all of them, so that it is not compared": first,
        "Effect against identity and selectivity, mean over attributes (where all can be read) and each of them; erase "
        "and switch take it off, from other samples": picture,
    }
    return Result(" ".join(conclusions), findings | {"curves": grid}, pictures, tables, _scores(tried))


def _point(name: str, figures: np.ndarray, compared: bool) -> Point:
    """A method's selectivity and identity, from (draws, figures)."""
    x, y = (over_draws(figures[:, Figures._fields.index(each)]) for each in ("selectivity", "identity"))
    return Point(name, x, y, quiet=not compared)


def _trials(lab: Lab, methods: Sequence[Contender]) -> list[list[Trial]]:
    """Every method on every draw, (methods, draws)."""
    spread = spread_of(lab)
    draws = [Draw(lab.draw(number), number, spread) for number in range(lab.cfg.study.repeats)]
    for draw in draws:
        _prepare(draw)
    found, took = list[list[Trial]](), list[float]()
    for done, method in enumerate(methods, start=1):
        started = time.perf_counter()
        with lab.watch.stage(method.name):
            found.append(trials(draws, method))
        took += [seconds] if (seconds := time.perf_counter() - started) > NEW else []
        left = (len(methods) - done) * sum(took) / max(len(took), 1)
        rest = f", about {duration(left)} left" if left else ""
        log.info("%s: %d of %d methods done%s", method.name, done, len(methods), rest)
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


def _costs(lab: Lab, draws: Sequence[Trial]) -> tuple[Cell, ...]:
    """For one attribute of a draw: directions to choose from, samples to learn from, images to score, and seconds."""
    method, cfg = draws[0].contender, lab.cfg
    candidates = max(each.candidates for trial in draws for each in trial.entries)
    chosen = cfg.evaluation.calibration_samples * (1 + 2 * candidates) if candidates > 1 else 0
    labels = method.samples(cfg) * method.annotated + method.scored(cfg) + chosen
    return candidates, method.samples(cfg), labels, _seconds(draws)


def _seconds(draws: Sequence[Trial]) -> float:
    """Median over draws of the mean over the attributes that have an edit; nan where none has."""
    # The first attribute of a draw pays for what all share.
    times = [[each.seconds for each in trial.entries if math.isfinite(each.seconds)] for trial in draws]
    means = [float(np.mean(each)) for each in times if each]
    return round(float(np.median(means)), 1) if means else float("nan")


def _methods(
    lab: Lab, at: str, shown: Sequence[str], rows: Sequence[str], values: np.ndarray, reached: np.ndarray,
    costs: Sequence[tuple[Cell, ...]], best: Mapping[str, str | None],
) -> Table:  # fmt: skip
    """Every method's figures and costs, values (methods, draws, figures)."""
    judged, named = len(lab.judge.attributes), reached.shape[2]
    cells = tuple(
        (name, f"{int(reached[m].all(axis=0).sum())} of {named}", *_intervals(values[m]), *costs[m])
        for m, name in enumerate(rows)
    )
    caption = (
        f"Means over {', '.join(shown)}, n/a unless all of them can be read (accuracy: over those where ten samples "
        f"could flip), each at the strength at which the annotator sees {at} (or the nearest, where that is not "
        f"reached), {intervals_over(lab.cfg.study.repeats)}; target reached: of all attributes, at one strength for "
        "all draws. Erase and switch take an attribute off, which changes other samples, so that they are not "
        "compared, and never bold. "
        f"Selectivity: of the effects on {judged} judged attributes (chance {format_number(1 / judged)}), and on the "
        f"{len(lab.cfg.study.attributes)} of the comparison. Accuracy: flips among those that could flip to the asked "
        "side. Costs are of one attribute in one draw: directions that the annotator chose among, generated samples to "
        "learn from, images that the annotator scores to find and to choose, and seconds of the attributes that have "
        "an edit. Seconds leave out the samples that methods share, and what was found for a method above: the mean "
        "differences of disentangled, the components whose norms random takes; those of local PCA include its "
        "neighbours, which it alone needs. Bold: beats the second by the interval of the paired difference, not "
        "corrected for the number of methods, of those that reach the target"
    )
    columns = ("method", "target reached", *NAMES, "chosen among", "samples", "labels", "seconds")
    places = {name: columns.index(NAMES[Figures._fields.index(name)]) for name in best}
    bold = frozenset((rows.index(method), places[name]) for name, method in best.items() if method)
    return Table(columns, cells, caption, bold=bold, counted="draws")


def _intervals(values: np.ndarray) -> tuple[Interval, ...]:
    """Of each figure, (draws, figures)."""
    return tuple(map(over_draws, values.T))


def _by_attribute(
    tried: Sequence[Sequence[Trial]], values: np.ndarray, reached: np.ndarray, names: Sequence[str], target: float
) -> Table:
    """Every method's figures for every attribute at every effect, and what else its edit moves most."""
    cells = tuple(
        (draws[0].contender.name, name, share * target, "yes" if reached[m, :, j, i].all() else "no",
         *_intervals(values[m, :, j, i]), *_strongest_other(draws, name, i))
        for m, draws in enumerate(tried)
        for j, name in enumerate(names)
        for i, share in enumerate(SHARES)
    )  # fmt: skip
    caption = (
        "Each method's edit of each attribute, at the calibrated strengths, or the nearest where the target, in sd, is "
        "not reached; and of the other judged attributes the one that it moves most. Erase and switch take it off, "
        "from other samples"
    )
    columns = ("method", "attribute", "target", "reached", *NAMES, "moves most beside it", "by")
    return Table(columns, cells, caption, counted="draws")


def _strongest_other(draws: Sequence[Trial], name: str, share: int) -> tuple[Cell, ...]:
    """Of the attributes that an edit is not for, the one that it moves most in the mean over draws, and its effect."""
    rows = [(trial.readings, trial.row(name, share)) for trial in draws]
    matrices = [(readings.effects(), row) for readings, row in rows if readings is not None and row is not None]
    if len(matrices) < len(draws):
        return "n/a", over_draws(np.full(len(draws), np.nan))
    judged = [other for other in matrices[0][0].attributes if other != name]
    effects = np.array([[matrix.cell(row, other).value for other in judged] for matrix, row in matrices])
    sizes = np.abs(effects.mean(axis=0))
    if np.isnan(sizes).all():
        return "n/a", over_draws(np.full(len(draws), np.nan))
    most = int(np.nanargmax(sizes))
    return judged[most], over_draws(effects[:, most])


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
    n = lab.cfg.study.repeats * len(Draw(lab, 0, 0.0).calibration_seeds)
    caption = (
        "Calibrated strengths: of directions in spreads of the samples (the root of the total variance of h, or of "
        f"x_T), of operators shares of the whole map; effects in sd, on the {n} samples of all draws, each under its "
        "own draw's edit, on which the one strength was chosen, without intervals"
    )
    return Table(columns, rows, caption, f"{lab.annotator.id}, the annotator")


def _pairs(rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(
        ("effect", "figure", "method", f"less {REFERENCE}", "p", "differs"), tuple(rows),
        f"Each method less the {REFERENCE} on the same draws, of those that reach the target for every attribute of "
        "the table, without erase and switch; p by Holm's correction over the methods of each figure at each effect. "
        "Whether the effects that were to be equal differ, by the judge, is in the rows of effect",
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
    panels = {"mean": over_attributes(values), **{name: values[:, :, j] for j, name in enumerate(names)}}

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
