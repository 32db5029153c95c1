"""Which method is best? Every way to find a direction, on the same attributes and samples, at the same effect."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hspace.directions.disentangle import disentangle
from hspace.directions.record import Directions
from hspace.evaluation.calibration import Calibration
from hspace.evaluation.readings import Readings
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import MIN_SAMPLES, Interval, mean_interval
from hspace.metrics.paired import best, compare
from hspace.output.figures import curve_figure
from hspace.output.tables import Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result

SHARES = (0.5, 1.0, 1.5)
"""Strengths at which the judge reads, in calibrated strengths."""
SCREENED = {"PCA": 2.0, "local PCA": 2.0, "Jacobian": 30.0, "random": 2.0}
"""Strength, in its own unit, at which each method without labels has its direction for an attribute picked."""
ORDER = (
    "mean difference", "disentangled", "linear boundary", "PCA", "local PCA", "Jacobian", "random",
    "mean difference of x_T",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """The direction that a method has for an attribute, with the strength at which the annotator sees the target."""

    method: str
    attribute: str
    directions: Directions
    component: int
    calibration: Calibration

    @property
    def strength(self) -> float:
        """The calibrated one."""
        return self.calibration.strength

    @property
    def reached(self) -> bool:
        """Whether the annotator sees the target there."""
        return self.calibration.reached


def run(lab: Lab) -> Result:
    """Calibrates every method's direction for every attribute, and reads all of them on the same samples."""
    found = [candidate for name in lab.cfg.study.attributes for candidate in _candidates(lab, name)]
    # Directions of x_T come last, as `read` wants spaces together.
    found.sort(key=lambda candidate: ORDER.index(candidate.method))
    vectors = {
        f"{each.method}, {each.attribute}": each.strength * each.directions.directions[each.component] for each in found
    }
    sweep = lab.sweep(vectors, SHARES)
    matched = sweep.at(1.0)
    effects = sweep.readings.effects().rows(matched)
    rows = [_row(method, found, sweep.readings, effects, matched) for method in ORDER]
    columns = ("method", "target reached", "effect", "selectivity", "identity")
    target = lab.cfg.study.target
    caption = (
        f"Means over {', '.join(lab.cfg.study.attributes)}, each at the strength at which the annotator sees "
        f"{target:g} sd (or the nearest, where that is not reached), by the judge, with 95% intervals. "
        f"Selectivity: share of the effects on all judged attributes (chance "
        f"{format_number(1 / len(lab.judge.attributes))}), its limits means of the attributes' own. Bold: beats the "
        "second by the interval of the paired difference."
    )
    kept_best = _best_identity(found, sweep.readings, matched)
    bold = frozenset((row, 4) for row, method in enumerate(ORDER) if method == kept_best)
    table = Table(columns, tuple(rows), caption, bold=bold)
    curves = {method: _curve(found, sweep.readings, sweep.row, method) for method in ORDER}
    picture = curve_figure(
        curves, lab.figures / "effect_identity.png", x_label="effect on the attribute (sd)",
        y_label="identity (cosine)", title="What an effect costs",
    )  # fmt: skip
    by_identity = {method: _people(found, sweep.readings, matched, method) for method in ORDER}
    paired = [
        (each.first, each.second, each.difference, each.p, "yes" if each.significant else "no")
        for each in compare(by_identity)
    ]
    detail = [
        (each.method, each.attribute, each.strength, each.calibration.interval,
         effects.cell(j, each.attribute), effects.selectivity_of(j, each.attribute), sweep.readings.identity(row))
        for j, (each, row) in enumerate(zip(found, matched, strict=True))
    ]  # fmt: skip
    by_attribute = Table(
        ("method", "attribute", "strength", "annotator's effect", "effect", "selectivity", "identity"), tuple(detail),
        "Each method's direction for each attribute, at its calibrated strength.",
    )  # fmt: skip
    pairs = Table(
        ("method", "other method", "difference of identity", "p", "differs"), tuple(paired),
        "Identity of one method less that of another on the same samples, at matched effect; p by Holm's correction.",
    )  # fmt: skip
    reaching = [row for row in rows if row[1].split()[0] == row[1].split()[-1]]
    kept = max(reaching or rows, key=lambda row: np.nan_to_num(row[4].value, nan=-1))
    conclusion = (
        f"Of the methods that reach {target:g} sd for every attribute, {kept[0]} keeps identity best "
        f"({_text(kept[4])}); {kept_best or 'none of them'} beats the second by the paired difference."
    )
    findings = {
        "columns": list(columns),
        "rows": rows,
        "pairs": [row[:4] for row in paired],
        "curves": curves,
    }
    return Result(
        conclusion, findings, {"Identity against effect, mean over attributes": picture},
        {"methods": table, "attributes": by_attribute, "pairs": pairs},
    )  # fmt: skip


def _text(interval: Interval) -> str:
    value, low, high = map(format_number, interval[:3])
    return f"{value} [{low}, {high}]"


def _candidates(lab: Lab, attribute: str) -> list[Candidate]:
    """One direction of each method."""
    others = [name for name in lab.cfg.study.attributes if name != attribute]
    mean = lab.attribute(attribute)
    labelled = {
        "mean difference": mean,
        "disentangled": disentangle(mean, [lab.attribute(name) for name in others]),
        "linear boundary": lab.attribute(attribute, name="boundary"),
        "mean difference of x_T": lab.attribute(attribute, space="x_T"),
    }
    candidates = [_calibrated(lab, method, attribute, found, 0) for method, found in labelled.items()]
    for method, (found, effects) in _unlabelled(lab).items():
        component = int(np.nanargmax(np.abs(effects[:, lab.annotator.attributes.index(attribute)])))
        candidates.append(_calibrated(lab, method, attribute, found, component))
    return candidates


def _unlabelled(lab: Lab) -> Mapping[str, tuple[Directions, np.ndarray]]:
    """Directions of the methods without labels, and the annotator's effects of each on calibration seeds."""
    pca, middle = lab.pca, len(lab.model.process.timesteps) // 2
    found = {
        "PCA": lab.components(),
        "local PCA": lab.discover(name="local_pca", k=pca.k, num_samples=pca.num_samples, sample=0),
        "Jacobian": lab.discover(name="jacobian", k=pca.k, sample=0, steps=(middle,)),
        "random": lab.discover(name="random", k=pca.k, num_samples=pca.num_samples),
    }
    return {
        name: (directions, lab.odd_effects(directions.directions, SCREENED[name]).effect)
        for name, directions in found.items()
    }


def _calibrated(lab: Lab, method: str, attribute: str, directions: Directions, component: int) -> Candidate:
    calibration = lab.calibrate(directions, component, attribute, lab.cfg.study.target)
    return Candidate(method, attribute, directions, component, calibration)


def _row(
    method: str, found: list[Candidate], readings: Readings, effects: EffectMatrix, matched: list[int]
) -> tuple[str, str, Interval, Interval, Interval]:
    """One method's means over attributes."""
    ours = [(j, each) for j, each in enumerate(found) if each.method == method]
    changes = np.array([readings.changes(matched[j], each.attribute) for j, each in ours])
    shares = [effects.selectivity_of(j, each.attribute) for j, each in ours]
    mean = _mean_of_intervals(shares)
    reached = f"{sum(each.reached for _, each in ours)} of {len(ours)}"
    people = _people(found, readings, matched, method)
    return method, reached, _mean_of_attributes(changes), mean, mean_interval(people, -1.0, 1.0)


def _mean_of_intervals(cells: list[Interval]) -> Interval:
    """Means of values and of limits, which hold if the errors of all cells go together as much as they can."""
    value, low, high = (sum(each[i] for each in cells) / len(cells) for i in range(3))
    return Interval(value, low, high, min(each.n for each in cells))


def _mean_of_attributes(changes: np.ndarray) -> Interval:
    """Mean over attributes of the mean over samples, of (attributes, n) with nan where an attribute is hidden.

    A sample counts in each attribute that it shows, weighted so that every attribute counts alike.
    """
    shown = np.isfinite(changes).sum(axis=1, keepdims=True)
    if (shown < MIN_SAMPLES).any():
        return Interval(np.nan, np.nan, np.nan, int(shown.min()))
    own = np.nanmean(changes, axis=1, keepdims=True)
    influence = np.nan_to_num(changes - own) * changes.shape[1] / shown
    return mean_interval(own.mean() + influence.mean(axis=0))


def _people(found: list[Candidate], readings: Readings, matched: list[int], method: str) -> np.ndarray:
    """Identity by sample, (n,), mean over a method's attributes."""
    rows = [matched[j] for j, each in enumerate(found) if each.method == method]
    return readings.cosine[rows].double().mean(0).numpy()


def _best_identity(found: list[Candidate], readings: Readings, matched: list[int]) -> str | None:
    """Of the methods that reach every target, the one that keeps identity best, if it beats the second."""
    reaching = [name for name in ORDER if all(each.reached for each in found if each.method == name)]
    values = {name: _people(found, readings, matched, name) for name in reaching}
    return best(values) if len(values) > 1 else None


def _curve(found: list[Candidate], readings: Readings, row_of, method: str) -> list[list[float]]:
    """Mean effect on the attribute, and mean identity with its interval, at every share of the calibrated strength."""
    ours = [(j, each) for j, each in enumerate(found) if each.method == method]
    points = [[0.0, 1.0, 1.0, 1.0]]
    for share in SHARES:
        rows = [row_of(j, share) for j, _ in ours]
        effect = [np.nanmean(readings.changes(row, each.attribute)) for row, (_, each) in zip(rows, ours, strict=True)]
        identity = mean_interval(readings.cosine[rows].mean(0).numpy(), -1.0, 1.0)
        points.append([float(np.mean(effect)), *identity[:3]])
    return [list(column) for column in zip(*points, strict=True)]
