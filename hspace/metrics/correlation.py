"""Correlation with an interval that holds for any distribution."""

import numpy as np
from scipy import stats

from hspace.metrics.interval import MIN_SAMPLES, Interval, mean_interval


def correlation(x: np.ndarray, y: np.ndarray) -> Interval:
    """Pearson's correlation of independent pairs, (n,) each; nan under ten pairs or where a side is constant.

    The interval is that of the mean influence of the pairs on Fisher's z, so that they need not be normal.

    Examples:
        >>> x = np.arange(20.0)
        >>> round(correlation(x, -x).value, 6)
        -1.0
    """
    if len(x) < MIN_SAMPLES or x.std() == 0 or y.std() == 0:
        return Interval(np.nan, np.nan, np.nan, len(x))
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    r = float(np.clip((x * y).mean(), -1 + 1e-12, 1 - 1e-12))
    # Influence of a pair on r, and on atanh(r).
    influence = (x * y - r * (x**2 + y**2) / 2) / (1 - r**2)
    found = mean_interval(np.arctanh(r) + influence - influence.mean())
    return Interval(r, float(np.tanh(found.low)), float(np.tanh(found.high)), len(x))


def p_of_correlation(r: np.ndarray, n: int) -> np.ndarray:
    """Two-sided p of correlations of n independent pairs, if there were none; 1 under three pairs.

    By Student's t of r, which holds where one side is normal.

    Examples:
        >>> p_of_correlation(np.array([0.0, 0.5]), 20).round(3).tolist()
        [1.0, 0.025]
    """
    if n < 3:
        return np.ones_like(r, dtype=np.float64)
    r = np.clip(r, -1 + 1e-12, 1 - 1e-12)
    return 2 * stats.t.sf(np.abs(r) * np.sqrt((n - 2) / (1 - r**2)), n - 2)
