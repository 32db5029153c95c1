"""The record that every metric with an uncertainty returns."""

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
