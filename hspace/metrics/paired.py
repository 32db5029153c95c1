"""Differences between methods on the same samples, corrected for the number of comparisons."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from hspace.metrics.interval import LEVEL, MIN_SAMPLES, Interval, means, over_draws
from hspace.types import InputError

SIGNIFICANT = 0.05
Pair = Callable[[np.ndarray, np.ndarray], tuple[Interval, float]]


@dataclass(frozen=True)
class Comparison:
    """One method less another, on the samples that both have.

    Attributes:
        first: Name of the first method.
        second: Name of the method that is subtracted.
        difference: Mean of first - second over samples, with its own 95% interval.
        p: Two-sided p value of no difference, after Holm's correction over all comparisons; nan where it is unknown.
    """

    first: str
    second: str
    difference: Interval
    p: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p value is under .05."""
        return self.p < SIGNIFICANT


def compare(values: Mapping[str, np.ndarray], pair: Pair | None = None) -> tuple[Comparison, ...]:
    """Compares all pairs of methods on the same samples.

    Args:
        values: Figures by sample, (n,), in the same order for every method; nan where a sample shows none.
        pair: Function that gives difference and p value of two methods: `paired` (None), or `paired_draws` of one
            figure by draw.

    Raises:
        InputError: If there are fewer than two methods, or they do not have the same number of samples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> worse = rng.standard_normal(100)
        >>> found = compare({"a": worse + 1 + 0.1 * rng.standard_normal(100), "b": worse})
        >>> [(each.first, each.second, round(each.difference.value, 1), each.significant) for each in found]
        [('a', 'b', 1.0, True)]
    """
    names, sizes = list(values), {len(each) for each in values.values()}
    if len(names) < 2 or len(sizes) != 1:
        raise InputError(f"a comparison needs two methods on the same samples, got {names} with {sorted(sizes)}")
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = [(pair or paired)(values[a], values[b]) for a, b in pairs]
    corrected = holm(np.array([p for _, p in found]))
    rows = zip(pairs, found, corrected, strict=True)
    return tuple(Comparison(*names, difference, float(p)) for names, (difference, _), p in rows)


def paired(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float]:
    """Mean of first - second on the same samples, (n,) each, with its interval and p value; nan does not count."""
    differences = np.asarray(first - second, dtype=np.float64)[:, None]
    found = means(np.nan_to_num(differences), np.isfinite(differences))
    value, low, high, p = (float(each[0]) for each in (found.value, found.low, found.high, found.p))
    return Interval(value, low, high, int(found.n[0])), p


def paired_draws(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float]:
    """Mean of first - second over draws of examples, (draws,) each, by Student's t over the draws; see `over_draws`."""
    differences = np.asarray(first - second, dtype=np.float64)
    found = over_draws(differences)
    if math.isnan(found.low):
        return found, math.nan
    standard_error = stats.sem(differences[np.isfinite(differences)])
    return found, float(2 * stats.t.sf(abs(found.value) / standard_error, found.n - 1))


def unpaired(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float]:
    """Difference of the means of separate samples, (n,) and (m,), by Welch's t; nan does not count.

    Returns:
        The difference with its interval, n being that of the smaller sample, and the p value; all nan where one has
        fewer than ten values, the limits and p where neither varies.

    Source: Welch 1947, Biometrika 34, 28-35.
    """
    a, b = (values[np.isfinite(values)] for values in (first, second))
    n = min(len(a), len(b))
    if n < MIN_SAMPLES:
        return Interval(math.nan, math.nan, math.nan, n), math.nan
    difference = float(a.mean() - b.mean())
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Interval(difference, math.nan, math.nan, n), math.nan
    found: Any = stats.ttest_ind(a, b, equal_var=False)
    limits = found.confidence_interval(LEVEL)
    return Interval(difference, float(limits.low), float(limits.high), n), float(found.pvalue)


def best(values: Mapping[str, np.ndarray], pair: Pair | None = None) -> str | None:
    """The method with the largest mean, if the interval of its difference to the second leaves 0 out; else None.

    It is what a table prints in bold.

    Args:
        values: As in `compare`, of two methods at least.
        pair: As in `compare`.

    Example:
        >>> worse = np.random.default_rng(0).standard_normal(100)
        >>> best({"a": worse + np.linspace(0.5, 1.5, 100), "b": worse})
        'a'
    """
    first, difference = leading(values, pair)
    return first if difference.low > 0 else None


def leading(values: Mapping[str, np.ndarray], pair: Pair | None = None) -> tuple[str, Interval]:
    """The method with the largest mean, and its difference to the second, not corrected for the choice of these two.

    Args:
        values: As in `compare`, of two methods at least.
        pair: As in `compare`.
    """
    first, second, *_ = sorted(values, key=lambda name: -float(np.nanmean(values[name])))
    return first, (pair or paired)(values[first], values[second])[0]


def holm(p: np.ndarray) -> np.ndarray:
    """P values corrected so that one is under .05 by chance in at most 5% of cases; nan stays and does not count.

    Args:
        p: P values of any shape, which are corrected together.

    Source: Holm 1979, Scand. J. Stat. 6, 65-70.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    flat = np.asarray(p, dtype=np.float64).ravel()
    order = np.argsort(flat)[: int(np.isfinite(flat).sum())]
    steps = flat[order] * (len(order) - np.arange(len(order)))
    corrected = np.full(flat.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.reshape(np.shape(p))
