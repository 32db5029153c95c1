# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""Values with 95% intervals that hold at the sample sizes in use, in closed form.

Two kinds of change need two kinds of interval. A continuous one is a mean of numbers that may be skewed: Student's t
after Hall's transformation. A binary one is a mean of flips, most of which a small sample does not show at all: the
interval adds one flip each way. An interval never has zero width, and fewer than `MIN_SAMPLES` samples have none.
`scripts/interval_coverage.py` measures how often each of them holds the truth.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from hspace.types import InputError

LEVEL = 0.95
MIN_DRAWS = 5
"""Fewer draws of examples than this have no interval."""
MIN_SAMPLES = 10
"""Smallest number of visible samples that have an interval and a printed value."""
NOTHING = 1e-6
"""What is smaller, in sd or in any measured unit of ours, is rounding."""
NO_SPREAD = 1e-9
"""Spread, relative to the values' size, under which there is only rounding."""


class Interval(NamedTuple):
    """A value with its 95% interval, both in the value's own unit, and the number of samples behind it.

    Everything is nan where there are too few samples; the limits alone are nan where the samples do not vary at all.

    Examples:
        >>> Interval(value=0.42, low=0.31, high=0.53, n=100).low
        0.31
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Means:
    """Means of many columns of values with their 95% intervals; all arrays have one shape.

    Attributes:
        value: Means; nan under `MIN_SAMPLES` values.
        low: Lower limits.
        high: Upper limits.
        se: Standard errors of the means.
        p: Two-sided p value of the mean being 0, of the same test as the interval; nan where there is none.
        n: Number of values counted.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    se: np.ndarray
    p: np.ndarray
    n: np.ndarray


def means(values: np.ndarray, counted: np.ndarray) -> Means:
    """Means of continuous values: Student's t interval after Hall's transformation, which removes skewness.

    Args:
        values: Independent along the first axis, (n, ...).
        counted: Whether each of them counts, bool, of the same shape.

    Source: Hall 1992, J. R. Stat. Soc. B 54, 221-228, the monotone cubic; with Student's t for the normal quantile.
    """
    n = counted.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(counted, values, 0).sum(axis=0) / n
        centred = np.where(counted, values - mean, 0)
        spread = np.sqrt((centred**2).sum(axis=0) / n)
        skew = (centred**3).sum(axis=0) / n / spread**3
        se = spread / np.sqrt(n - 1)
        varies = spread > NO_SPREAD * np.abs(np.where(counted, values, 0)).max(axis=0, initial=0)
        bend, q = skew / np.sqrt(n), stats.t.ppf((1 + LEVEL) / 2, n - 1)
        low, high = mean - se * _unbent(q, bend), mean - se * _unbent(-q, bend)
        p = 2 * stats.t.sf(np.abs(_bent(mean / se, bend)), n - 1)
    return _masked(Means(mean, low, high, se, p, n), varies)


def flip_means(values: np.ndarray, counted: np.ndarray) -> Means:
    """Means of changes of probabilities: an interval on flips among the samples, whole or in part.

    One flip each way is added to the observed ones, so that rare flips which the sample happens not to hold stay
    possible. With changes of -1, 0 and 1 this is Bonett and Price's interval of a difference of paired proportions.

    Args:
        values: Changes in [-1, 1], independent along the first axis, (n, ...).
        counted: Whether each of them counts, bool, of the same shape.

    Source: Bonett & Price 2012, J. Educ. Behav. Stat. 37, 479-488.
    """
    n = counted.sum(axis=0)
    kept = np.where(counted, values, 0)
    first, second = kept.sum(axis=0), (kept**2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = first / n
        shrunk = first / (n + 2)
        half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(((second + 2) / (n + 2) - shrunk**2) / (n + 2))
        se = half / stats.norm.ppf((1 + LEVEL) / 2)
        low, high = np.maximum(shrunk - half, -1), np.minimum(shrunk + half, 1)
        p = 2 * stats.norm.sf(np.abs(shrunk) / se)
    return _masked(Means(mean, low, high, se, p, n), np.ones(n.shape, dtype=bool))


def mean_interval(values: np.ndarray, low: float = -math.inf, high: float = math.inf) -> Interval:
    """Mean of independent continuous values, (n,), as by `means`; values that are nan do not count.

    Args:
        values: Values, (n,).
        low: Smallest possible mean, at which the interval is cut.
        high: Largest possible mean.

    Examples:
        >>> found = mean_interval(np.arange(100) / 100)
        >>> [round(each, 3) for each in (found.value, found.low, found.high)]
        [0.495, 0.437, 0.553]
    """
    column = np.asarray(values, dtype=np.float64)[:, None]
    found = means(np.nan_to_num(column), np.isfinite(column))
    below, above = np.clip([found.low[0], found.high[0]], low, high).tolist()
    return Interval(float(found.value[0]), below, above, int(found.n[0]))


def wilson(hits: int, total: int) -> Interval:
    """Score interval of a proportion; nan under `MIN_SAMPLES` trials.

    Raises:
        InputError: If there are more hits than trials.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.

    Examples:
        >>> found = wilson(45, 50)
        >>> [round(each, 3) for each in (found.value, found.low, found.high)]
        [0.9, 0.786, 0.957]
    """
    if not 0 <= hits <= total:
        raise InputError(f"a proportion needs from 0 to {total} hits, got {hits}")
    if total < MIN_SAMPLES:
        return Interval(math.nan, math.nan, math.nan, total)
    found = stats.binomtest(hits, total).proportion_ci(LEVEL, method="wilson")
    return Interval(hits / total, float(found.low), float(found.high), total)


def slope_interval(x: np.ndarray, y: np.ndarray) -> Interval:
    """Least-squares slope through the origin of y on x, (n, dim) each, over independent rows.

    The interval is that of the mean of each row's influence on the slope, (x · y - slope x · x) / mean(x · x).

    Examples:
        >>> x = np.random.default_rng(0).standard_normal((50, 2))
        >>> round(slope_interval(x, 2 * x).value, 6)
        2.0
    """
    squares = (x * x).sum(axis=1)
    if len(x) < MIN_SAMPLES or not squares.any():
        return Interval(math.nan, math.nan, math.nan, len(x))
    slope = float((x * y).sum() / squares.sum())
    return mean_interval(slope + ((x * y).sum(axis=1) - slope * squares) / squares.mean())


def over_draws(values: np.ndarray) -> Interval:
    """The interval of a figure measured once for each of several independent draws of examples: Student's t over draws.

    Each draw has examples and evaluation samples of its own, so that the differences between draws contain both errors.
    The samples of one draw are not independent of one another.

    Args:
        values: One figure by draw, (draws,); nan where a draw has none.

    Returns:
        The mean, n being the number of draws; the limits are nan with fewer than five, or where all are equal.

    Examples:
        >>> found = over_draws(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
        >>> [round(each, 2) for each in (found.value, found.low, found.high)]
        [3.0, 1.04, 4.96]
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    mean = float(known.mean()) if len(known) else math.nan
    if len(known) < MIN_DRAWS or np.ptp(known) <= NO_SPREAD * np.abs(known).max():
        return Interval(mean, math.nan, math.nan, len(known))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(known) - 1) * stats.sem(known))
    return Interval(mean, mean - half, mean + half, len(known))


def _bent(t: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Hall's monotone cubic of a studentised mean, whose distribution is nearly symmetric; bend is skewness / √n."""
    return t + bend * t**2 / 3 + bend**2 * t**3 / 27 + bend / 6


def _unbent(q: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Inverse of `_bent`."""
    small = np.abs(bend) < NO_SPREAD
    safe = np.where(small, 1.0, bend)
    return np.where(small, q, 3 / safe * (np.cbrt(1 + safe * (q - safe / 6)) - 1))


def _masked(found: Means, varies: np.ndarray) -> Means:
    """The means without values of too few samples, and without limits where the samples have no spread."""
    enough = found.n >= MIN_SAMPLES
    value = np.where(enough, found.value, np.nan)
    low, high, se, p = (np.where(enough & varies, a, np.nan) for a in (found.low, found.high, found.se, found.p))
    return Means(value, low, high, np.where(enough & ~varies, 0.0, se), p, found.n)
