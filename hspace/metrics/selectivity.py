"""Selectivity: the target's share of all that an edit moves."""

import math

import numpy as np
from scipy import stats

from hspace.metrics.interval import LEVEL, Interval

DRAWS = 1000
"""Draws of the effects' errors, by a generator of their own, behind the limits of the interval."""
CLEAR = 1.25
"""An effect counts where it is so many standard errors from 0: what is lost then is about as much as noise adds."""
SURE = 2.0
"""The size of an effect this many standard errors from 0 has a signed error; that of a smaller one may only grow."""
GRID = np.linspace(0, 1, 501)
"""Selectivities that are tried as limits."""


def selectivity(effect: np.ndarray, covariance: np.ndarray, target: int, n: int) -> Interval:
    """|effect on target| / (|effect on target| + sum of the |other effects| that are clear of their noise).

    An effect that is truly 0 is never measured as 0, so that the plain sum is too large. Of the other effects those
    count that are clear of their noise, see `clear_sizes`. Attributes whose effect is unknown (nan) count as much as
    the known others do on average. Chance is 1 / number of attributes: what an edit has that moves all alike.

    The interval holds all values rho whose statistic |m_target| (1 - rho) - rho sum of |other m| lies within what the
    errors of the effects allow, whatever the small effects truly are. It is wide where many effects are within their
    errors of 0: then the samples do not say whether these are 0.

    Args:
        effect: One edit's effects on A attributes, (A,); nan where unknown.
        covariance: Covariance of their errors, (A, A).
        target: Index of the attribute that the edit aims at.
        n: Fewest samples behind an effect.

    Returns:
        In [0, 1]; nan where the target's effect or more than half of the others are unknown.

    Examples:
        >>> round(selectivity(np.array([3.0, 1.0]), 0.01 * np.eye(2), target=0, n=100).value, 2)
        0.75
    """
    others = np.flatnonzero(np.isfinite(effect) & (np.arange(len(effect)) != target))
    if not np.isfinite(effect[target]) or 2 * len(others) < len(effect) - 1:
        return Interval(math.nan, math.nan, math.nan, n)
    kept = np.append(target, others)
    # Unknown effects count like the mean of the known ones.
    weight = np.append(1.0, np.full(len(others), (len(effect) - 1) / max(len(others), 1)))
    m, errors = effect[kept], covariance[np.ix_(kept, kept)]
    sizes = weight * clear_sizes(m, np.diagonal(errors))
    sizes[0] = abs(m[0])
    share = float(sizes[0] / sizes.sum()) if sizes.sum() > 0 else math.nan
    low, high = _limits(np.abs(m) * weight, _errors(m, errors, n) * weight, m**2 > SURE**2 * np.diagonal(errors))
    return Interval(share, min(low, share), max(high, share), n)


def clear_sizes(effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """|effect| where it is at least 1.25 standard errors from 0, else 0; any shape.

    The size of a clear effect is measured nearly without bias, so that nothing is taken off it. Of true zeros a fifth
    looks clear, which is about as much as is lost of true effects that do not. Taking the noise off every size,
    sqrt(max(effect² - variance, 0)), makes all effects of one to three standard errors too small by a quarter of one.
    """
    return np.where(effect**2 > CLEAR**2 * variance, np.abs(effect), 0.0)


def _errors(effect: np.ndarray, covariance: np.ndarray, n: int) -> np.ndarray:
    """Draws of each effect's error, (DRAWS, A), positive where it adds to the effect's size."""
    values, vectors = np.linalg.eigh(covariance)
    noise = np.random.default_rng(0).standard_normal((DRAWS, len(effect)))
    # Normal draws, as wide as Student's t at the limits.
    wider = stats.t.ppf((1 + LEVEL) / 2, n - 1) / stats.norm.ppf((1 + LEVEL) / 2)
    draws = noise * np.sqrt(np.maximum(values, 0)) @ vectors.T
    return wider * draws * np.where(effect < 0, -1, 1)


def _limits(sizes: np.ndarray, errors: np.ndarray, sure: np.ndarray) -> tuple[float, float]:
    """Smallest and largest selectivity that the sizes of the effects, the target's first, do not rule out."""
    own, signed = errors[:, 0], errors[:, 1:].sum(axis=1)
    # The size of a true 0 grows by any error; that of a sure effect only by one of its own sign.
    unsigned = np.where(sure[1:], errors[:, 1:], np.abs(errors[:, 1:])).sum(axis=1)
    statistic = sizes[0] * (1 - GRID) - GRID * sizes[1:].sum()
    most = np.quantile(np.outer(1 - GRID, own) - np.outer(GRID, signed), (1 + LEVEL) / 2, axis=1)
    least = np.quantile(np.outer(1 - GRID, own) - np.outer(GRID, unsigned), (1 - LEVEL) / 2, axis=1)
    possible = GRID[(least <= statistic) & (statistic <= most)]
    return (float(possible[0]), float(possible[-1])) if len(possible) else (1.0, 0.0)
