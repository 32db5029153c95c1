"""The record that every metric with an uncertainty returns."""

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """A value with its 95% interval, both in the value's own unit.

    Example:
        >>> Interval(value=0.42, low=0.31, high=0.53).low
        0.31
    """

    value: float
    low: float
    high: float


Z_95 = 1.959963984540054
"""The standard normal's 97.5% point: a symmetric 95% interval is value ± Z_95 standard errors."""


def mean_interval(count: int, first: float, second: float, low: float = -math.inf, high: float = math.inf) -> Interval:
    """Mean and its 95% normal interval from the number of values, their sum and the sum of their squares.

    Args:
        count: Number of values, at least two.
        first: Their sum.
        second: The sum of their squares.
        low: Smallest value there can be; the interval is cut there.
        high: Largest value there can be.
    """
    mean = first / count
    variance = max(second - count * mean**2, 0.0) / (count - 1)
    half = Z_95 * (variance / count) ** 0.5
    return Interval(mean, max(mean - half, low), min(mean + half, high))
