"""How often each interval holds the truth, on made-up samples whose truth is known: the tables of docs/evaluation.md.

python scripts/interval_coverage.py            # prints the tables; about two minutes of one core
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from hspace.metrics.correlation import correlation
from hspace.metrics.effect import EffectMatrix, effect_matrix
from hspace.metrics.interval import flip_means, means, over_draws, slope_interval, wilson
from hspace.metrics.names import name_edits
from hspace.metrics.selectivity import selectivity
from hspace.output.tables import Table, to_markdown
from hspace.runs.errors import guarded

SIZES = (16, 32, 100, 400)
RATES = (0.02, 0.2, 0.5)
FLIPS = ((0.0, 0.0), (0.02, 0.0), (0.2, 0.0), (0.5, 0.0), (1.0, 0.0), (0.0, 0.2), (0.0, 1.0), (0.2, 0.2))
"""Chances to flip up and down: none, rare, common, all that can, and both ways."""
ROWS = {
    "5 attributes, one more than the target": (0.76, 0.25, 0.11, 0.89, 0.21),
    "14 attributes, nine unmoved": (0.5, 0.25, 0.2, 0.15, 0.12, *[0.0] * 9),
    "14 attributes, most moved": (0.6, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.0, 0.0, 0.0, 0.0),
}
"""True effects, the target's first."""
ATTRIBUTES = 14
"""Of a direction without effect."""


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth in one kind of sample."""

    interval: str
    samples: str
    n: int
    covered: float


def effects(repeats: int) -> Iterator[Coverage]:
    """Means of continuous changes and of changes of probabilities."""
    rng = np.random.default_rng(0)
    for n in SIZES:
        shape = (n, repeats)
        for name, values, truth in (
            ("normal", rng.normal(0.5, 1, shape), 0.5),
            ("skewed", rng.exponential(1, shape), 1.0),
            ("skewed, downwards", 1 - rng.beta(1, 6, shape), 6 / 7),
        ):
            found = means(values, np.ones(shape, dtype=bool))
            yield Coverage("mean (effect, identity)", name, n, _held(found.low, found.high, truth))
        for rate, (up, down) in itertools.product(RATES, FLIPS):
            before, chance = rng.random(shape) < rate, rng.random(shape)
            change = np.where(before, -1.0 * (chance < down), 1.0 * (chance < up))
            found = flip_means(change, np.ones(shape, dtype=bool))
            truth = (1 - rate) * up - rate * down
            yield Coverage("flips (effect)", f"rate {rate:g}", n, _held(found.low, found.high, truth))


def proportions(repeats: int) -> Iterator[Coverage]:
    """Accuracy: flips among the samples that could flip."""
    rng = np.random.default_rng(1)
    for n, rate in itertools.product(SIZES, RATES):
        cells = [wilson(int(hits), n) for hits in rng.binomial(n, rate, repeats)]
        yield Coverage(
            "Wilson (accuracy)", f"rate {rate:g}", n, float(np.mean([c.low <= rate <= c.high for c in cells]))
        )


def others(repeats: int) -> Iterator[Coverage]:
    """Slopes, correlations, and figures over draws of examples."""
    rng = np.random.default_rng(2)
    for n in SIZES:
        slopes, correlations = [], []
        for _ in range(repeats):
            x, noise = rng.normal(size=(2, n))
            slopes.append(slope_interval(x[:, None], (0.7 * x + noise)[:, None]))
            correlations.append(correlation(x, 0.6 * x + 0.8 * noise))
        yield Coverage("slope (swap)", "normal", n, float(np.mean([c.low <= 0.7 <= c.high for c in slopes])))
        yield Coverage("correlation", "normal", n, float(np.mean([c.low <= 0.6 <= c.high for c in correlations])))
    cells = [over_draws(rng.normal(size=5)) for _ in range(repeats)]
    yield Coverage("over 5 draws", "normal", 5, float(np.mean([c.low <= 0 <= c.high for c in cells])))


def shares(repeats: int) -> Iterator[tuple[str, int, float, float, float]]:
    """Of selectivity: kind of row, n, truth, mean estimate, coverage."""
    rng = np.random.default_rng(3)
    for (name, row), n in itertools.product(ROWS.items(), SIZES):
        truth = row[0] / sum(row)
        found = []
        for _ in range(repeats):
            change = np.array(row) + np.linspace(1, 0.3, len(row)) * _correlated(rng, n, len(row))
            found.append(selectivity(change.mean(axis=0), np.cov(change.T) / n, 0, n))
        covered = np.mean([cell.low <= truth <= cell.high for cell in found])
        yield name, n, truth, float(np.mean([cell.value for cell in found])), float(covered)


def null_names(directions: int) -> Iterator[tuple[int, float]]:
    """Share of directions without any effect that get a name, by the samples of each half."""
    for n in SIZES:
        halves = [_null(n, directions, seed) for seed in (0, 1)]
        yield n, float(np.mean([name is not None for name in name_edits(*halves)]))


def tables(repeats: int, few: int) -> list[Table]:
    """Everything, `few` being the repeats of what is slow."""
    cells = [*effects(repeats), *proportions(repeats), *others(few)]
    kinds = dict.fromkeys((cell.interval, cell.samples) for cell in cells)
    rows = []
    for kind in kinds:
        ours = [cell for cell in cells if (cell.interval, cell.samples) == kind]
        by_n = [[cell.covered for cell in ours if cell.n == n] for n in SIZES]
        lowest = float(min(cell.covered for cell in ours))
        rows.append((*kind, *(float(np.mean(each)) if each else None for each in by_n), lowest))
    overall = float(np.mean([cell.covered for cell in cells]))
    columns = ("interval", "samples", *(f"n = {n}" for n in SIZES), "lowest")
    share = [(name, n, truth, mean, mean - truth, covered) for name, n, truth, mean, covered in shares(few)]
    return [
        Table(columns, tuple(rows), f"Share of 95% intervals that hold the truth, mean of all {overall:.3f}"),
        Table(("row", "n", "truth", "mean", "bias", "coverage"), tuple(share), "Selectivity"),
        Table(("n of each half", "named"), tuple(null_names(repeats)), "Directions without effect that get a name"),
    ]


def main() -> int:
    """Prints the tables."""
    for table in tables(4000, 400):
        print(to_markdown(table))
    return 0


def _held(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high)))


def _correlated(rng: np.random.Generator, n: int, columns: int) -> np.ndarray:
    """Normal noise whose columns correlate by .3."""
    return np.sqrt(0.3) * rng.normal(size=(n, 1)) + np.sqrt(0.7) * rng.normal(size=(n, columns))


def _null(n: int, directions: int, seed: int) -> EffectMatrix:
    """Effects of directions that change every attribute at random: half of them continuous, half of them by flips."""
    rng, binary = np.random.default_rng(seed), np.arange(ATTRIBUTES) % 2 == 1
    original = np.where(binary, rng.random((n, ATTRIBUTES)) < 0.2, rng.normal(size=(n, ATTRIBUTES)))
    shape = directions, n, ATTRIBUTES
    # As many flips up as down: .05 of .8 and .2 of .2.
    flips = np.where(original > 0.5, -1.0 * (rng.random(shape) < 0.2), 1.0 * (rng.random(shape) < 0.05))
    change = np.where(binary, flips, rng.normal(size=shape))
    names = [str(j) for j in range(ATTRIBUTES)]
    unit = torch.from_numpy(np.where(binary, 0.4, 1.0))
    scores = torch.from_numpy(original)
    return effect_matrix(
        scores, scores + torch.from_numpy(change), attributes=names, binary=binary.tolist(),
        edits=[str(i) for i in range(directions)], unit=unit,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(guarded(main, __doc__))
