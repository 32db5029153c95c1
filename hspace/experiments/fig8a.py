"""Fig. 8a: a direction of h needs a few examples, one of x_T hundreds."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hspace.evaluation.readings import Sweep
from hspace.metrics.interval import Interval, over_draws
from hspace.metrics.repeats import intervals_over
from hspace.output.charts import curve_figure
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, stated
from hspace.runs.lab import Lab
from hspace.runs.report import Result

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Examples on each side."""
SPACES = ("h", "x_T")


class Point(NamedTuple):
    """What the mean difference of so many examples does, over draws of examples; selectivity is over all judged."""

    space: str
    examples: int
    effect: Interval
    selectivity: Interval
    identity: Interval


def run(lab: Lab) -> Result:
    """The effect of one attribute's mean difference by the number of examples, in h and in x_T.

    Figures are given at the largest strength, which is 1 unless others are configured. Strength 1 goes from the mean of
    one side to that of the other. A direction from few examples of noise is as long as noise itself: it makes another
    image with an arbitrary attribute. Therefore the effect on the attribute is shown beside that on all others, and
    beside the identity that is left.
    """
    attribute, largest = lab.cfg.study.attributes[0], max(lab.strengths)
    counts = [count for count in COUNTS if 2 * count <= lab.cfg.study.index]
    kinds = [(space, count) for space in SPACES for count in counts]
    draws = [_read(lab, kinds, attribute, number) for number in range(lab.cfg.study.repeats)]
    values = np.array([_figures(sweep, attribute, largest) for sweep in draws])
    points = [Point(*kind, *map(over_draws, values[:, row].T)) for row, kind in enumerate(kinds)]
    chance = format_number(1 / len(lab.judge.attributes))
    caption = (
        f"Mean differences of {attribute} at {stated(lab, largest)}; effects in sd, by the judge; selectivity over "
        f"all judged attributes (chance {chance}); {intervals_over(len(draws))}"
    )
    columns = ("space", "examples on each side", "effect", "selectivity", "identity")
    table = Table(columns, tuple(points), caption, counted="draws")
    last = {point.space: point for point in points}
    few = [point for point in points if point.space == "h" and point.effect.value >= last["h"].effect.value / 2]
    enough = few[0].examples if few else "n/a"
    conclusion = (
        f"In h, {enough} examples on each side give half of the effect of {counts[-1]} "
        f"({_said(last['h'])}). In x_T, {counts[-1]} give {_said(last['x_T'])}."
    )
    figures = {
        f"Effect on {attribute}": _draw(
            {space: [(p.examples, *p.effect[:3]) for p in points if p.space == space] for space in SPACES},
            f"effect on {attribute} (sd)", lab.figures / "effect.png",
        ),
        "Identity": _draw(
            {space: [(p.examples, *p.identity[:3]) for p in points if p.space == space] for space in SPACES},
            "identity (cosine)", lab.figures / "identity.png",
        ),
        "One sample along the directions of the first draw": draws[0].strip(
            f"{attribute.capitalize()} from so many examples on each side", lab.figures / "directions.png"
        ),
    }  # fmt: skip
    findings = {"columns": list(table.columns), "rows": points}
    samples = {f"scores_{number}": sweep.readings.table() for number, sweep in enumerate(draws)}
    return Result(conclusion, findings, figures, {"examples": table}, samples)


def _read(lab: Lab, kinds: Sequence[tuple[str, int]], attribute: str, number: int) -> Sweep:
    """One draw's directions on evaluation samples of its own."""
    drawn, n = lab.draw(number), lab.cfg.evaluation.num_samples
    found = {f"{space}, {k}": drawn.attribute(attribute, k=k, space=space) for space, k in kinds}
    vectors = {name: as_configured(drawn, each, [attribute]).directions[0] for name, each in found.items()}
    return drawn.sweep(vectors, seeds=lab.seeds(start=number * n))


def _figures(sweep: Sweep, attribute: str, strength: float) -> list[tuple[float, float, float]]:
    """Effect, selectivity and identity of every direction at a strength."""
    effects, identity = sweep.effects(strength), sweep.readings.identity
    return [
        (effects.cell(j, attribute).value, effects.selectivity_of(j, attribute).value, identity(row).value)
        for j, row in enumerate(sweep.at(strength))
    ]


def _said(point: Point) -> str:
    effect, selectivity, identity = (format_number(cell.value) for cell in point[2:])
    return f"{effect} sd, selectivity {selectivity}, identity {identity}"


def _draw(points: dict[str, list[tuple[float, ...]]], label: str, path: Path) -> Path:
    """Curves by space of (examples, value, low, high)."""
    curves = {space: [list(column) for column in zip(*rows, strict=True)] for space, rows in points.items()}
    return curve_figure(curves, path, x_label="examples on each side", y_label=label, log_x=True)
