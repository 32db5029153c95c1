"""The tables of the comparison of methods, from trials and their figures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hspace.evaluation.readings import UNEDITED
from hspace.experiments.comparison import NAMES, REFERENCE, Figures
from hspace.experiments.equal_effect import SHARES, Draw, Trial
from hspace.metrics.interval import Interval, over_draws
from hspace.metrics.repeats import intervals_over
from hspace.output.tables import Cell, Table, format_number
from hspace.runs.lab import Lab


def methods_table(
    lab: Lab, at: str, shown: Sequence[str], rows: Sequence[str], values: np.ndarray, reached: np.ndarray,
    own: Sequence[str], costs: Sequence[tuple[Cell, ...]], best: Mapping[str, str | None],
) -> Table:  # fmt: skip
    """Every method's figures and costs, values (methods, draws, figures)."""
    judged, named = len(lab.judge.attributes), reached.shape[2]
    cells = tuple(
        (name, f"{int(reached[m].all(axis=0).sum())} of {named}", own[m], *_intervals(values[m]), *costs[m])
        for m, name in enumerate(rows)
    )
    caption = (
        f"Means over {', '.join(shown)}, n/a unless all of them can be read (accuracy: over those where ten samples "
        f"could flip), each at the strength at which the annotator sees {at} (or the nearest, where that is not "
        f"reached), {intervals_over(lab.cfg.study.repeats)}; target reached: of all attributes, at one strength for "
        "all draws. Erase and switch take an attribute off, which changes other samples, so that they are not "
        "compared, and never bold. Own most: edits, over draws and attributes, that move their own attribute more "
        f"than any other of the {named}. "
        f"Selectivity: of the effects on {judged} judged attributes (chance {format_number(1 / judged)}), and on the "
        f"{len(lab.cfg.study.attributes)} of the comparison. Accuracy: flips among those that could flip to the asked "
        "side. Costs are of one attribute in one draw: directions that the annotator chose among, generated samples to "
        "learn from, images that the annotator scores to find and to choose, and seconds of the attributes that have "
        "an edit. Seconds leave out the samples that methods share, and what was found for a method above: the mean "
        "differences of disentangled, the components whose norms random takes; those of local PCA include its "
        "neighbours, which it alone needs. Bold: beats the second by the interval of the paired difference, not "
        "corrected for the number of methods, of those that reach the target"
    )
    columns = ("method", "target reached", "own most", *NAMES, "chosen among", "samples", "labels", "seconds")
    places = {name: columns.index(NAMES[Figures._fields.index(name)]) for name in best}
    bold = frozenset((rows.index(method), places[name]) for name, method in best.items() if method)
    return Table(columns, cells, caption, bold=bold, counted="draws")


def _intervals(values: np.ndarray) -> tuple[Interval, ...]:
    """Of each figure, (draws, figures)."""
    return tuple(map(over_draws, values.T))


def own_most(draws: Sequence[Trial], names: Sequence[str], share: int) -> str:
    """How many edits of all draws move their own attribute most of the compared ones, such as "28 of 30"."""
    found = [
        trial.readings.effects().select(names).strongest(row)[0] == name
        for trial in draws
        for name in names
        if trial.readings is not None and (row := trial.row(name, share)) is not None
    ]
    return f"{sum(found)} of {len(draws) * len(names)}"


def attributes_table(
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


def calibrations_table(lab: Lab, trials: Sequence[Sequence[Trial]]) -> Table:
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


def pairs_table(rows: Sequence[tuple[Cell, ...]]) -> Table:
    """Differences to the reference, of `comparison.differences` at each effect."""
    return Table(
        ("effect", "figure", "method", f"less {REFERENCE}", "p", "differs"), tuple(rows),
        f"Each method less the {REFERENCE} on the same draws, of those that reach the target for every attribute of "
        "the table, without erase and switch; p by Holm's correction over the methods of each figure at each effect. "
        "Whether the effects that were to be equal differ, by the judge, is in the rows of effect",
        counted="draws",
    )  # fmt: skip


def faults_table(trials: Sequence[Sequence[Trial]]) -> Table:
    """Edits that there are not, and why."""
    rows = tuple(
        (number, trial.contender.name, each.attribute, each.fault)
        for draws in trials
        for number, trial in enumerate(draws)
        for each in trial.entries
        if each.fault
    )
    return Table(("draw", "method", "attribute", "reason"), rows, "Edits that could not be made, or not be read")


def scores_tables(trials: Sequence[Sequence[Trial]]) -> dict[str, Table]:
    """The judge's scores of every sample, a table for each draw; the unedited samples once."""
    tables: dict[str, Table] = {}
    for number, draw in enumerate(zip(*trials, strict=True)):
        read = [trial.readings.table() for trial in draw if trial.readings is not None]
        rows = [row for i, table in enumerate(read) for row in table.rows if i == 0 or row[0] != UNEDITED]
        tables |= {f"scores_{number}": replace(read[0], rows=tuple(rows))} if read else {}
    return tables
