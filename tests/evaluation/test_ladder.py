"""Strengths from effects at a ladder of strengths, for effects that are known."""

import math
from collections.abc import Callable

import pytest

from hspace.evaluation.ladder import BESIDE, LADDER, Strength, corrected, reach

EFFECTS: dict[str, Callable[[float], float]] = {
    "linear": lambda s: 1.3 * s,
    "square root": lambda s: 0.9 * math.sqrt(s),
    "steep": lambda s: 2 * s**2,
    "saturating": lambda s: 1.5 * math.tanh(2 * s),
}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("target", [0.5, 1.0])
def test_ladder_and_correction_find_the_strength_of_an_effect(name: str, target: float) -> None:
    effect = EFFECTS[name]
    # The few samples of the ladder see an effect that is a fifth too large.
    first = reach(LADDER, [1.2 * effect(s) for s in LADDER], target)
    found = corrected(first, [effect(factor * first.value) for factor in BESIDE], target)
    assert found.reached and effect(found.value) == pytest.approx(target, rel=0.05)
    assert effect(first.value) < 0.9 * target


def test_an_effect_out_of_reach_gives_the_smallest_strength_of_nearly_the_largest() -> None:
    assert reach((1.0, 2.0, 4.0), (0.1, 0.39, 0.4), 1.0) == Strength(2.0, False)
    assert reach((1.0, 2.0, 4.0), (0.1, 0.96, 0.7), 1.0) == Strength(2.0, True), "to within the tolerance"
    assert reach((1.0, 2.0), (-0.2, -0.1), 1.0) == Strength(2.0, False)


def test_an_effect_that_is_unknown_or_reached_at_once_is_no_obstacle() -> None:
    assert reach((1.0, 2.0), (math.nan, math.nan), 1.0) == Strength(1.0, False)
    assert reach((1.0, 2.0), (math.nan, 2.0), 1.0) == Strength(1.0, True)
    assert reach((0.5, 1.0), (2.0, 3.0), 1.0) == Strength(0.25, True)


def test_a_correction_is_limited_and_says_so() -> None:
    assert corrected(Strength(1.0, True), (0.04, 0.0625), 1.0) == Strength(2.0, False)
    assert corrected(Strength(1.0, True), (-0.1, 0.3), 1.0) == Strength(1.0, False)
    assert corrected(Strength(1.0, False), (0.8, 1.25), 2.0) == Strength(1.0, False)
