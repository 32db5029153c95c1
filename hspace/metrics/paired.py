"""Differences between methods on the same samples, corrected for the number of comparisons."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from hspace.metrics.interval import LEVEL, MIN_SAMPLES, Interval, means, over_draws

SIGNIFICANT = 0.05


def differs(p: float) -> str:
    """Whether a difference is significant, for tables; n/a where nothing could be tested, and p is nan."""
    if math.isnan(p):
        return "n/a"
    return "yes" if p < SIGNIFICANT else "no"


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


def leading(values: Mapping[str, np.ndarray]) -> tuple[str, Interval]:
    """The method with the largest mean, and its difference to the second, not corrected for the choice of these two.

    Args:
        values: Figures by method, (draws,), in one order for all; two methods at least; nan does not count.
    """
    first, second, *_ = sorted(values, key=lambda name: -float(np.nanmean(values[name])))
    return first, paired_draws(values[first], values[second])[0]


def holm(p: np.ndarray) -> np.ndarray:
    """P values corrected so that one is under .05 by chance in at most 5% of cases; nan stays and does not count.

    Args:
        p: P values of any shape, which are corrected together.

    Source: Holm 1979, Scand. J. Stat. 6, 65-70.

    Examples:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    flat = np.asarray(p, dtype=np.float64).ravel()
    order = np.argsort(flat)[: int(np.isfinite(flat).sum())]
    steps = flat[order] * (len(order) - np.arange(len(order)))
    corrected = np.full(flat.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.reshape(np.shape(p))
