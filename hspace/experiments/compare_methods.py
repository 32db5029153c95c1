"""Which method is best? Every way to find a direction, on the same attributes and samples, at the same effect."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hspace.directions.disentangle import disentangle
from hspace.directions.record import Directions
from hspace.evaluation.readings import Readings, bootstrap_weights, bootstrapped, finite, mean_interval
from hspace.metrics.interval import Interval
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
    """The direction that a method has for an attribute, and the strength at which the annotator sees the target."""

    method: str
    attribute: str
    directions: Directions
    component: int
    strength: float
    reached: bool


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
    draws = bootstrapped(sweep.readings, lab.cfg.evaluation.bootstrap, lab.cfg.seed)
    rows = [_row(lab, method, found, draws, matched, sweep.readings) for method in ORDER]
    columns = ("method", "target reached", "effect", "selectivity", "identity", "drift per sd")
    target = lab.cfg.study.target
    caption = (
        f"Means over {', '.join(lab.cfg.study.attributes)}, each at the strength at which the annotator sees "
        f"{target:g} sd (or the nearest, where that is not reached), by the judge, with 95% bootstrap intervals. "
        "Selectivity: share of the effects on all judged attributes; drift: (1 - identity) / effect."
    )
    table = Table(columns, tuple(rows), caption)
    curves = {method: _curve(found, sweep.readings, draws[0], sweep.row, method) for method in ORDER}
    picture = curve_figure(
        curves, lab.figures / "effect_identity.png", x_label="effect on the attribute (sd)",
        y_label="identity (cosine)", title="What an effect costs",
    )  # fmt: skip
    best = max(rows, key=lambda row: row[3].value if row[1][0] != "0" else -1.0)
    reaching = [row for row in rows if row[1].split()[0] == row[1].split()[-1]]
    kept = max(reaching or [best], key=lambda row: row[4].value)
    conclusion = (
        f"At {target:g} sd the most selective method is {best[0]} ({_text(best[3])}); of those that reach the target "
        f"for every attribute, {kept[0]} keeps identity best ({_text(kept[4])})."
    )
    detail = [
        (each.method, each.attribute, each.strength, "yes" if each.reached else "no",
         _interval(draws[:, row, lab.judge.attributes.index(each.attribute)]), sweep.readings.identity(row))
        for each, row in zip(found, matched, strict=True)
    ]  # fmt: skip
    by_attribute = Table(
        ("method", "attribute", "strength", "target reached", "effect", "identity"), tuple(detail),
        "Each method's direction for each attribute, at its calibrated strength.",
    )  # fmt: skip
    findings = {
        "columns": list(columns),
        "rows": [[*row[:2], *(finite(list(cell)) for cell in row[2:])] for row in rows],
        "curves": curves,
    }
    return Result(
        conclusion, findings, {"Identity against effect, mean over attributes": picture},
        {"methods": table, "attributes": by_attribute},
    )  # fmt: skip


def _text(interval: Interval) -> str:
    value, low, high = map(format_number, interval)
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
    return Candidate(method, attribute, directions, component, calibration.strength, calibration.reached)


def _row(
    lab: Lab, method: str, found: list[Candidate], draws: np.ndarray, matched: list[int], readings: Readings
) -> tuple[str, str, Interval, Interval, Interval, Interval]:
    """One method's means over attributes."""
    ours = [(row, each) for row, each in zip(matched, found, strict=True) if each.method == method]
    rows = [row for row, _ in ours]
    columns = [lab.judge.attributes.index(each.attribute) for _, each in ours]
    effect = draws[:, rows, columns]
    selectivity = np.abs(effect) / np.nansum(np.abs(draws[:, rows]), axis=-1)
    people = readings.cosine[rows].double().numpy()
    weights = bootstrap_weights(people.shape[1], len(draws) - 1, lab.cfg.seed)
    identity = weights @ people.mean(0) / people.shape[1]
    reached = f"{sum(each.reached for _, each in ours)} of {len(ours)}"
    drift = (1 - identity) / effect.mean(1)
    mean_effect, share = _interval(effect.mean(1)), _interval(selectivity.mean(1))
    return method, reached, mean_effect, share, _interval(identity), _interval(drift)


def _interval(draws: np.ndarray) -> Interval:
    """The first draw is the estimate itself, the others are resamples."""
    low, high = np.nanquantile(draws[1:], [0.025, 0.975])
    return Interval(float(draws[0]), float(low), float(high))


def _curve(found: list[Candidate], readings: Readings, effects: np.ndarray, row_of, method: str) -> list[list[float]]:
    """Mean effect on the attribute, and mean identity with its interval, at every share of the calibrated strength."""
    ours = [j for j, each in enumerate(found) if each.method == method]
    points = [[0.0, 1.0, 1.0, 1.0]]
    for share in SHARES:
        rows = [row_of(j, share) for j in ours]
        columns = [readings.scorer.attributes.index(found[j].attribute) for j in ours]
        identity = mean_interval(readings.cosine[rows].mean(0).numpy())
        points.append([float(effects[rows, columns].mean()), *identity])
    return [list(column) for column in zip(*points, strict=True)]
