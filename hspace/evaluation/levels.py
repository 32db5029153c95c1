# pyright: strict
"""Strengths of one edit for several effects, from few readings: what was read for one effect serves the next."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hspace.evaluation.ladder import POWERS

TOLERANCE = 0.1
"""How near to the target is near enough, in fractions of it."""
TRIES = 6
"""Most strengths that are tried for one target."""
FARTHEST = 4.0
"""Largest factor between a strength and the next one that is tried."""
CLOSE = 1.1
"""Strengths whose factor is no more than this have none between them that is tried."""
MISSED = 0.25
"""Largest miss of a target that counts as reached, in fractions of it.

It is half a step towards .5 sd of 24 samples that flip one by one, where the sd of their score is .17.
"""
INSIDE = (0.1, 0.9)
"""Limits of the place of a trial between two others, so that a curved effect cannot pin one of them."""


class Level(NamedTuple):
    """The strength for a target effect.

    Attributes:
        strength: Of those that were tried, the one whose effect comes nearest; the smallest of nearly equal ones.
        effect: The effect at this strength; nan where none could be read.
        reached: Whether some effect was the target, or more, to within the tolerance, and the one at this strength
            misses the target by no more than `MISSED` of it. The effect of a few samples rises in steps where they
            flip one by one, so that the nearest may miss by half a step.
    """

    strength: float
    effect: float
    reached: bool


def levels(effect: Callable[[float], float], targets: Sequence[float], *, first: float, most: float) -> list[Level]:
    """The strengths at which an effect that rises from 0 reaches several targets.

    The effect is taken for a power of strength, between two strengths that were tried and beyond the largest, up to
    `most`. A target is given up where the effect does not rise any more.

    Args:
        effect: Function that gives the effect of a strength; nan where nothing can be read.
        targets: Wanted effects, > 0, from the smallest to the largest.
        first: Strength to begin with, > 0.
        most: Largest strength.

    Examples:
        >>> read = []
        >>> def effect(strength):
        ...     read.append(strength)
        ...     return 2 * strength
        >>> [tuple(each) for each in levels(effect, (0.5, 1.0), first=0.1, most=1.0)], read
        ([(0.25, 0.5, True), (0.5, 1.0, True)], [0.1, 0.25, 0.5])
    """
    tried: dict[float, float] = {}
    return [_level(effect, tried, target, first, most) for target in targets]


def _level(
    effect: Callable[[float], float], tried: dict[float, float], target: float, first: float, most: float
) -> Level:
    for _ in range(TRIES):
        strength = _next(tried, target, first, most)
        if strength is None:
            break
        tried[strength] = effect(strength)
    return _nearest({s: e for s, e in tried.items() if math.isfinite(e)}, target, first)


def _next(tried: dict[float, float], target: float, first: float, most: float) -> float | None:
    """The strength to try next; None where one is near enough, or no other promises to be."""
    if not tried:
        return first
    known = sorted((s, e) for s, e in tried.items() if math.isfinite(e))
    if len(known) < len(tried) or any(_misses(e, target) <= TOLERANCE for _, e in known):
        return None
    above = next((i for i, (_, e) in enumerate(known) if e > target), None)
    if above is None:
        return _beyond(known, target, most)
    strength, value = known[above]
    if above > 0 and strength <= CLOSE * known[above - 1][0]:
        return None
    return (
        strength * max(target / value, 1 / FARTHEST) if above == 0 else _between(known[above - 1], known[above], target)
    )


def _beyond(known: Sequence[tuple[float, float]], target: float, most: float) -> float | None:
    """A larger strength than all that were tried, whose effects fall short."""
    strength, value = known[-1]
    below = known[-2] if len(known) > 1 else None
    if strength >= most or (below is not None and 0 < below[1] >= value):
        return None
    power = 1.0
    if below is not None and 0 < below[1] < value:
        power = math.log(value / below[1]) / math.log(strength / below[0])
    factor = (target / value) ** (1 / min(max(power, POWERS[0]), POWERS[1])) if value > 0 else FARTHEST
    return min(strength * min(factor, FARTHEST), most)


def _between(low: tuple[float, float], high: tuple[float, float], target: float) -> float:
    """A strength between two, of which only the larger one's effect is more than the target."""
    share = (
        math.log(target / low[1]) / math.log(high[1] / low[1]) if low[1] > 0 else (target - low[1]) / (high[1] - low[1])
    )
    return low[0] * (high[0] / low[0]) ** min(max(share, INSIDE[0]), INSIDE[1])


def _nearest(tried: dict[float, float], target: float, first: float) -> Level:
    if not tried:
        return Level(first, math.nan, False)
    least = min(_misses(value, target) for value in tried.values())
    # A saturated effect is as large at strengths that break the image.
    slack = 0.0 if least <= TOLERANCE else TOLERANCE * max(1 - least, 0)
    strength = min(s for s, value in tried.items() if _misses(value, target) <= least + slack)
    within = max(tried.values()) >= (1 - TOLERANCE) * target
    return Level(strength, tried[strength], within and _misses(tried[strength], target) <= MISSED)


def _misses(effect: float, target: float) -> float:
    return abs(1 - effect / target)
