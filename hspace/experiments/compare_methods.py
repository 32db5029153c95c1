"""All methods compared on the same attributes and samples, at the same effects."""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from hspace.experiments.comparison import (
    UNREAD,
    Figures,
    comparable,
    conclusion,
    differences,
    over_attributes,
    winners,
)
from hspace.experiments.comparison_tables import (
    attributes_table,
    calibrations_table,
    faults_table,
    methods_table,
    own_most,
    pairs_table,
    scores_tables,
)
from hspace.experiments.contenders import Contender, contenders
from hspace.experiments.equal_effect import SHARES, Draw, Trial, spread_of, trials
from hspace.metrics.interval import over_draws
from hspace.metrics.repeats import intervals_over
from hspace.output.charts import curve_grid
from hspace.output.scatter import Point, scatter_figure
from hspace.output.tables import Cell, Table
from hspace.runs.discovery import annotated, recorded
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
    """The tables and the figures, from trials, (methods, draws)."""
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
        own = [own_most(draws, names, i) for draws in tried]
        panels[f"effect of {at} on {', '.join(shown)}"] = [
            _point(name, few[m], m in fair) for m, name in enumerate(rows)
        ]
        tables[f"methods{suffix}"] = methods_table(lab, at, shown, rows, few, seen, own, costs, best)
        pairs += [(at, *row) for row in differences(compared)]
        conclusions.append(conclusion(at, shown, compared))
        findings[at] = {"attributes": shown, "methods": list(compared), "winners": best}
    grid = _curves(values, rows, names)
    picture = curve_grid(
        grid, lab.figures / "effect_identity.png", x_label="effect on the attribute (sd)", whole=False
    )  # fmt: skip
    tables |= {
        "attributes": attributes_table(tried, values, reached, names, target),
        "calibrations": calibrations_table(lab, tried),
        "pairs": pairs_table(pairs),
    }
    faults = faults_table(tried)
    tables |= {"faults": faults} if faults.rows else {}
    findings |= {name: {"columns": tables[name].columns, "rows": tables[name].rows} for name in ("methods", "pairs")}
    first = scatter_figure(
        panels, lab.figures / "methods.png", x_label="selectivity of all judged attributes",
        y_label="identity (cosine to the unedited)",
    )  # fmt: skip
    pictures = {
        f"Selectivity and identity at one effect, means over attributes, {intervals_over(lab.cfg.study.repeats)}; "
        "grey: not compared, since it does not reach the effect on all of them, or takes the attribute off": first,
        "Effect against identity and selectivity, mean over attributes (where all can be read) and each of them; erase "
        "and switch take it off, from other samples": picture,
    }
    return Result(" ".join(conclusions), findings | {"curves": grid}, pictures, tables, scores_tables(tried))


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
        annotated(lab.cfg, lab.model, lab.annotator, lab.cfg.study.index)
        lab.annotations()  # which are those, and count as drawn
        recorded(lab.cfg, lab.model, lab.pca.num_samples)


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
