"""Correlation with an interval that holds for any distribution."""

import numpy as np

from hspace.metrics.interval import MIN_SAMPLES, Interval, mean_interval


def correlation(x: np.ndarray, y: np.ndarray) -> Interval:
    """Pearson's correlation of independent pairs, (n,) each; nan under ten pairs or where a side is constant.

    The interval is that of the mean influence of the pairs on Fisher's z, so that they need not be normal.

    Example:
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
