# pyright: strict, reportUnknownMemberType=false
"""Strengths that reach an effect, from effects that were measured at a ladder of strengths, all in one go.

`calibration` asks for one strength after the other; here many directions share the passes of a GPU.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LADDER: tuple[float, ...] = tuple(2.0**power for power in range(-5, 2))
"""Strengths that are tried first, in spreads of the samples."""
BESIDE: tuple[float, float] = (0.8, 1.25)
"""Factors of the strength that the ladder gives, between which it is corrected on more samples."""
POWERS, CORRECTIONS = (0.5, 4.0), (0.5, 2.0)
"""Limits of the power of strength that an effect is taken for, and of the correction of a strength."""
TOLERANCE = 0.05
"""How near to the target is near enough, in fractions of it."""


class Strength(NamedTuple):
    """The strength of a direction for a target effect, and whether the effect was seen to reach the target."""

    value: float
    reached: bool


def reach(strengths: Sequence[float], effects: Sequence[float], target: float) -> Strength:
    """The smallest strength at which a measured effect is the target, between strengths in their logarithm.

    Where no effect is, it is the smallest strength whose effect is nearly the largest.

    Examples:
        >>> reach((0.5, 1.0, 2.0), (0.2, 0.4, 0.8), 0.4)
        Strength(value=1.0, reached=True)
    """
    known = np.nan_to_num(np.asarray(effects, dtype=np.float64), nan=-math.inf)
    enough, most = np.flatnonzero(known >= target), float(known.max())
    if not len(enough):
        nearly = np.flatnonzero(known >= most - TOLERANCE * abs(most))
        return Strength(strengths[int(nearly[0])], most >= (1 - TOLERANCE) * target)
    i = int(enough[0])
    if i == 0 or not known[i - 1] > -math.inf:
        return Strength(strengths[i] * target / float(known[i]), True)
    share = (target - known[i - 1]) / (known[i] - known[i - 1])
    return Strength(float(strengths[i - 1] * (strengths[i] / strengths[i - 1]) ** share), True)


def corrected(strength: Strength, beside: Sequence[float], target: float) -> Strength:
    """A strength that reaches the target, from the effects at the two beside it, `BESIDE` times itself.

    The effect is taken for a power of the strength; the target is out of reach where that takes too large a correction.

    Examples:
        >>> round(corrected(Strength(1.0, True), (0.4, 0.625), 0.55).value, 3)
        1.1
    """
    below, above = beside
    if not (strength.reached and below > 0 and above > 0):
        return strength._replace(reached=False)
    power = float(np.clip(math.log(above / below) / math.log(BESIDE[1] / BESIDE[0]), *POWERS))
    factor = (target / math.sqrt(above * below)) ** (1 / power)
    kept = float(np.clip(factor, *CORRECTIONS))
    return Strength(strength.value * kept, kept == factor)
