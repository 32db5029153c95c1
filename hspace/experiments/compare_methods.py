"""All methods compared on the same attributes and samples, at the same effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hspace.directions.disentangle import disentangle
from hspace.directions.record import Directions
from hspace.evaluation.calibration import Calibration
from hspace.evaluation.readings import Sweep
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import over_draws
from hspace.metrics.paired import best, compare, paired_draws
from hspace.metrics.repeats import intervals_over
from hspace.output.charts import curve_figure
from hspace.output.tables import Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result

SHARES = (0.5, 1.0, 1.5)
"""Strengths at which the judge reads, as multiples of the calibrated one."""
SCREENED = {"PCA": 2.0, "local PCA": 2.0, "Jacobian": 30.0, "random": 2.0}
"""Strength, in its own unit, at which the direction for an attribute is picked, by method without labels."""
ORDER = (
    "mean difference", "disentangled", "linear boundary", "PCA", "local PCA", "Jacobian", "random",
    "mean difference of x_T",
)  # fmt: skip
STRONG = 0.5
"""A direction is picked among those that move the attribute by this share of the strongest one's effect."""

Form = tuple[Directions, EffectMatrix]
"""Directions of a method without labels, and what the annotator sees each of them do on calibration seeds."""


@dataclass(frozen=True)
class Candidate:
    """The direction that a method has for an attribute, with the strength at which the annotator sees the target."""

    method: str
    attribute: str
    directions: Directions
    component: int
    calibration: Calibration


class Figures(NamedTuple):
    """What the judge reads of a direction; nan where it cannot be told.

    Attributes:
        effect: Effect on the attribute, in sd.
        selectivity: Over all judged attributes.
        table: Selectivity over the attributes of the comparison.
        accuracy: Share that flips to the asked side of those that could.
        identity: Cosine.
    """

    effect: float
    selectivity: float
    table: float
    accuracy: float
    identity: float


@dataclass(frozen=True)
class Draw:
    """All methods on one draw of discovery samples, read on evaluation samples of its own."""

    found: Sequence[Candidate]
    sweep: Sweep

    def rows(self, method: str, share: float = 1.0) -> list[tuple[int, Candidate]]:
        """A method's rows of the readings at a share of the calibrated strength."""
        return [(self.sweep.row(j, share), each) for j, each in enumerate(self.found) if each.method == method]

    def cells(self, method: str, attributes: Sequence[str]) -> np.ndarray:
        """A method's figures for each attribute, (attributes, figures)."""
        readings, effects = self.sweep.readings, self.sweep.readings.effects()
        few = effects.select(attributes)
        return np.array([
            Figures(
                effects.cell(row, each.attribute).value,
                effects.selectivity_of(row, each.attribute).value,
                few.selectivity_of(row, each.attribute).value,
                readings.accuracy(row, each.attribute, each.calibration.target).value,
                readings.identity(row).value,
            )
            for row, each in self.rows(method)
        ])  # fmt: skip

    def costs(self, method: str, share: float) -> np.ndarray:
        """A method's effect and identity for each attribute, (attributes, 2), at a share of the calibrated strength."""
        readings, effects = self.sweep.readings, self.sweep.readings.effects()
        return np.array([
            (effects.cell(row, each.attribute).value, readings.identity(row).value)
            for row, each in self.rows(method, share)
        ])  # fmt: skip

    def reaches(self, method: str) -> int:
        """Attributes on which the annotator sees the target."""
        return sum(each.calibration.reached for _, each in self.rows(method))


def run(lab: Lab) -> Result:
    """Calibrates every method's direction for every attribute on every draw, and reads all of them."""
    draws = [_draw(lab, number) for number in range(lab.cfg.study.repeats)]
    names = lab.cfg.study.attributes
    cells = {method: np.array([each.cells(method, names) for each in draws]) for method in ORDER}
    values = {method: each.mean(axis=1) for method, each in cells.items()}
    reached = {method: sum(each.reaches(method) for each in draws) for method in ORDER}
    every = len(draws) * len(names)
    columns = ("method", "target reached", "effect", "selectivity", "selectivity in the table", "accuracy", "identity")
    rows = tuple(
        (method, f"{reached[method]} of {every}", *map(over_draws, values[method].T)) for method in ORDER
    )  # fmt: skip
    reaching = [method for method in ORDER if reached[method] == every]
    # Effects are the same by design, and of less effect more of the person is left.
    winners = {name: _best(values, reaching, name) for name in ("selectivity", "table", "identity")}
    places = {"selectivity": 3, "table": 4, "identity": 6}
    bold = frozenset((ORDER.index(method), places[name]) for name, method in winners.items() if method)
    pairs = _pairs(values, reaching)
    conclusion = _conclusion(values, reaching, winners["identity"], lab.cfg.study.target)
    curves = {method: _curve(draws, method) for method in ORDER}
    picture = curve_figure(
        curves, lab.figures / "effect_identity.png", x_label="effect on the attribute (sd)",
        y_label="identity (cosine)", title="What an effect costs",
    )  # fmt: skip
    findings = {"columns": columns, "rows": rows, "pairs": pairs.rows, "curves": curves, "reaching": reaching}
    tables = {
        "methods": Table(columns, rows, _caption(lab, len(draws)), bold=bold, counted="draws"),
        "attributes": _by_attribute(cells, names),
        "calibrations": _calibrations(draws),
        "pairs": pairs,
    }
    samples = {f"scores_{number}": each.sweep.readings.table() for number, each in enumerate(draws)}
    return Result(conclusion, findings, {"Identity against effect, mean over attributes": picture}, tables, samples)


def _draw(lab: Lab, number: int) -> Draw:
    drawn, n = lab.draw(number), lab.cfg.evaluation.num_samples
    unlabelled = _unlabelled(drawn, number)
    found = [candidate for name in lab.cfg.study.attributes for candidate in _candidates(drawn, name, unlabelled)]
    # Directions of x_T come last, as `read` wants spaces together.
    found.sort(key=lambda candidate: ORDER.index(candidate.method))
    vectors = {
        f"{each.method}, {each.attribute}": each.calibration.strength * each.directions.directions[each.component]
        for each in found
    }
    return Draw(found, drawn.sweep(vectors, SHARES, seeds=lab.seeds(start=number * n)))


def _candidates(lab: Lab, attribute: str, unlabelled: Mapping[str, Sequence[Form]]) -> list[Candidate]:
    """One direction of each method; of those without labels, one of the given."""
    others = [name for name in lab.cfg.study.attributes if name != attribute]
    mean = lab.attribute(attribute)
    found: dict[str, tuple[Directions, int]] = {
        "mean difference": (mean, 0),
        "disentangled": (disentangle(mean, [lab.attribute(name) for name in others]), 0),
        "linear boundary": (lab.attribute(attribute, name="boundary"), 0),
        "mean difference of x_T": (lab.attribute(attribute, space="x_T"), 0),
    }
    found |= {method: _picked(forms, attribute) for method, forms in unlabelled.items()}
    target = lab.cfg.study.target
    return [
        Candidate(method, attribute, directions, component, lab.calibrate(directions, component, attribute, target))
        for method, (directions, component) in found.items()
    ]


def _unlabelled(lab: Lab, number: int) -> Mapping[str, Sequence[Form]]:
    """The methods without labels, each in all its forms; what belongs to one image takes one by draw."""
    k, n, middle = lab.pca.k, lab.pca.num_samples, len(lab.model.process.timesteps) // 2
    found = {
        "PCA": [
            lab.components(),
            lab.discover(name="pca", k=k, num_samples=n, joint=True),
            lab.discover(name="pca", k=k, num_samples=n, joint=True, rotation="varimax"),
        ],
        "local PCA": [lab.discover(name="local_pca", k=k, num_samples=n, sample=number)],
        "Jacobian": [lab.discover(name="jacobian", k=k, sample=number, steps=(middle,))],
        "random": [lab.discover(name="random", k=k, num_samples=n)],
    }
    return {
        method: [(form, lab.odd_effects(form.directions, SCREENED[method])) for form in forms]
        for method, forms in found.items()
    }


def _picked(forms: Sequence[Form], attribute: str) -> tuple[Directions, int]:
    """The direction that serves the attribute best by the annotator on calibration seeds.

    One rule for all: of those with at least half of the largest effect on it, the most selective.
    """
    strongest = _strongest([matrix for _, matrix in forms], attribute)
    ranked = [
        (*_merit(matrix, row, attribute, strongest), form, row)
        for form, matrix in forms
        for row in range(len(form.directions))
    ]
    *_, directions, component = max(ranked, key=lambda each: each[:2])
    return directions, component


def _strongest(effects: Sequence[EffectMatrix], attribute: str) -> float:
    sizes = np.concatenate([np.abs(each.effect[:, each.attributes.index(attribute)]) for each in effects])
    return float(np.nanmax(sizes, initial=0.0))


def _merit(matrix: EffectMatrix, row: int, attribute: str, strongest: float) -> tuple[bool, float]:
    """Whether a direction is strong enough, then its selectivity, or its effect where it is not."""
    size = float(np.nan_to_num(abs(matrix.cell(row, attribute).value)))
    strong = size >= STRONG * strongest
    return strong, float(np.nan_to_num(matrix.selectivity_of(row, attribute).value)) if strong else size


def _conclusion(values: Mapping[str, np.ndarray], reaching: Sequence[str], winner: str | None, target: float) -> str:
    """Which of the methods that reach every target keeps identity best."""
    if not reaching:
        return f"No method reaches {target:g} sd for every attribute in every draw."
    means = {method: over_draws(_column(values, method)).value for method in reaching}
    kept = max(means, key=lambda method: np.nan_to_num(means[method], nan=-1))
    return (
        f"Of {len(reaching)} methods that reach {target:g} sd for every attribute in every draw, {kept} keeps identity "
        f"best ({format_number(means[kept])}); {winner or 'none of them'} beats the second by the interval of the "
        "paired difference."
    )


def _best(values: Mapping[str, np.ndarray], reaching: Sequence[str], name: str) -> str | None:
    """Of the methods that reach every target, the one that beats the second in a figure."""
    column = Figures._fields.index(name)
    ours = {method: values[method][:, column] for method in reaching}
    return best(ours, paired_draws) if len(ours) > 1 else None


def _column(values: Mapping[str, np.ndarray], method: str, name: str = "identity") -> np.ndarray:
    return values[method][:, Figures._fields.index(name)]


def _pairs(values: Mapping[str, np.ndarray], reaching: Sequence[str]) -> Table:
    """All differences of identity and of selectivity at equal effect; Holm's correction is over the rows of each."""
    rows = [
        (name, each.first, each.second, each.difference, each.p, "yes" if each.significant else "no")
        for name in (("selectivity", "identity") if len(reaching) > 1 else ())
        for each in compare({method: _column(values, method, name) for method in reaching}, paired_draws)
    ]
    return Table(
        ("figure", "method", "other method", "difference", "p", "differs"), tuple(rows),
        "One method less another on the same draws, of those that reach the target for every attribute in every draw, "
        f"of which there are {len(reaching)}; p by Holm's correction over each figure's rows",
        counted="draws",
    )  # fmt: skip


def _by_attribute(cells: Mapping[str, np.ndarray], attributes: Sequence[str]) -> Table:
    """Every method's figures for every attribute."""
    rows = tuple(
        (method, name, *map(over_draws, cells[method][:, j].T)) for method in ORDER for j, name in enumerate(attributes)
    )
    columns = ("method", "attribute", "effect", "selectivity", "selectivity in the table", "accuracy", "identity")
    caption = (
        "Each method's direction for each attribute, at the calibrated strength, or the nearest where the target is "
        "not reached"
    )
    return Table(columns, rows, caption, counted="draws")


def _calibrations(draws: Sequence[Draw]) -> Table:
    """The strength of every direction, and the effect that the annotator sees there."""
    rows = tuple(
        (number, each.method, each.attribute, each.directions.meta.names[each.component], each.calibration.strength,
         each.calibration.interval, "yes" if each.calibration.reached else "no")
        for number, draw in enumerate(draws)
        for each in draw.found
    )  # fmt: skip
    columns = ("draw", "method", "attribute", "direction", "strength", "annotator's effect", "target reached")
    caption = "Calibrated strengths, each in its direction's own unit; effects in sd"
    return Table(columns, rows, caption, f"{draws[0].found[0].calibration.scorer}, the annotator")


def _caption(lab: Lab, draws: int) -> str:
    judged, few = len(lab.judge.attributes), len(lab.cfg.study.attributes)
    return (
        f"Means over {', '.join(lab.cfg.study.attributes)}, each at the strength at which the annotator sees "
        f"{lab.cfg.study.target:g} sd (or the nearest, where that is not reached), {intervals_over(draws)}. "
        f"Selectivity: of the effects on {judged} judged attributes (chance "
        f"{format_number(1 / judged)}), and on the {few} of the table (chance {format_number(1 / few)}); accuracy: "
        "flips among those that could flip to the asked side. Bold: beats the second by the interval of the paired "
        "difference"
    )


def _curve(draws: Sequence[Draw], method: str) -> list[list[float]]:
    """Mean effect on the attribute, and mean identity with its interval, at every share of the calibrated strength."""
    points = [[0.0, 1.0, 1.0, 1.0]]
    for share in SHARES:
        means = np.array([each.costs(method, share).mean(axis=0) for each in draws])
        effect, identity = map(over_draws, means.T)
        points.append([effect.value, *identity[:3]])
    return [list(column) for column in zip(*points, strict=True)]
