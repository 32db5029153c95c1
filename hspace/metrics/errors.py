"""Whether two scorers err together: the judge's errors must not be the annotator's."""

import numpy as np
from torch import Tensor

from hspace.metrics.interval import MIN_SAMPLES, Interval, mean_interval
from hspace.types import InputError


def error_correlation(labels: Tensor, first: Tensor, second: Tensor, visible: Tensor) -> list[Interval]:
    """Correlation of two scorers' errors, score - label, by attribute.

    0 where they err apart; at 1 the second scorer repeats the first one's mistakes, and agreement between them says
    nothing. The interval is that of the mean influence of the samples on Fisher's z, so that errors need not be normal.

    Args:
        labels: Exact values, (n, A).
        first: One scorer's scores of the same images, (n, A).
        second: The other scorer's, (n, A).
        visible: Which attributes the images show, (n, A) bool.

    Returns:
        One interval in [-1, 1] for each attribute; nan where fewer than ten images show it or an error is constant.

    Raises:
        InputError: If the shapes differ.
    """
    if not labels.shape == first.shape == second.shape == visible.shape:
        shapes = [list(each.shape) for each in (labels, first, second, visible)]
        raise InputError(f"labels, two sets of scores and visible must have one shape, got {shapes}")
    errors = [(scores - labels).double().cpu().numpy() for scores in (first, second)]
    seen = visible.cpu().numpy()
    return [correlation(*(each[seen[:, j], j] for each in errors)) for j in range(seen.shape[1])]


def correlation(x: np.ndarray, y: np.ndarray) -> Interval:
    """Pearson's correlation of independent pairs, (n,) each; nan under ten pairs or where a side is constant.

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
