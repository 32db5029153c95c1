"""Strengths for several effects of one edit, for effects that are known."""

import math
from collections.abc import Callable

import pytest

from hspace.evaluation.levels import TOLERANCE, levels

EFFECTS: dict[str, Callable[[float], float]] = {
    "linear": lambda s: 1.3 * s,
    "square root": lambda s: 0.9 * math.sqrt(s),
    "steep": lambda s: 2 * s**3,
    "saturating": lambda s: 1.5 * math.tanh(2 * s),
    "that begins the other way": lambda s: 3 * s**2 - 0.5 * s,
}
TARGETS = (0.5, 1.0)


class Counted:
    """An effect that keeps what it was asked for."""

    def __init__(self, effect: Callable[[float], float]) -> None:
        self.effect = effect
        self.asked: list[float] = []

    def __call__(self, strength: float) -> float:
        self.asked.append(strength)
        return self.effect(strength)


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("first", [0.05, 0.25, 2.0])
def test_every_target_is_reached_by_few_readings_of_which_none_is_made_twice(name: str, first: float) -> None:
    effect = Counted(EFFECTS[name])
    found = levels(effect, TARGETS, first=first, most=4.0)
    assert all(each.reached for each in found)
    for level, target in zip(found, TARGETS, strict=True):
        assert level.effect == EFFECTS[name](level.strength) == pytest.approx(target, rel=TOLERANCE)
    assert len(set(effect.asked)) == len(effect.asked) <= 9 and max(effect.asked) <= 4.0


def test_an_effect_that_rises_in_steps_is_met_to_half_a_step() -> None:
    counted = Counted(lambda s: round(8 * s) / 8)
    (found,) = levels(counted, [0.56], first=0.1, most=2.0)
    assert found.reached and found.effect in (0.5, 0.625) and len(counted.asked) <= 6


def test_a_good_guess_takes_two_readings() -> None:
    effect = Counted(lambda s: 2 * s)
    levels(effect, TARGETS, first=0.25, most=2.0)
    assert effect.asked == [0.25, 0.5]


def test_a_target_out_of_reach_is_given_up_at_the_smallest_strength_of_nearly_the_largest_effect() -> None:
    half, whole = levels(lambda s: 0.7 * math.tanh(9 * s), TARGETS, first=0.25, most=2.0)
    assert half.reached and not whole.reached and whole.strength < 2.0 and whole.effect > 0.6
    (none,) = levels(lambda s: 0.2 * s, [1.0], first=0.5, most=1.0)
    assert none == (1.0, 0.2, False), "the whole of an operator's map"


def test_a_target_that_an_effect_leaps_over_is_not_reached_by_the_strength_that_is_used() -> None:
    (found,) = levels(lambda s: 0.3 if s < 0.5 else 3.0, [1.0], first=0.25, most=2.0)
    assert found.effect == 0.3 and not found.reached
    (found,) = levels(lambda s: 0.8 if s < 0.5 else 3.0, [1.0], first=0.5, most=2.0)
    assert found.effect == 0.8 and found.reached, "it misses by less than a quarter"


@pytest.mark.parametrize("effect", [lambda s: -s, lambda s: 0.0, lambda s: s * math.exp(-8 * s)])
def test_an_effect_that_never_comes_ends_soon(effect: Callable[[float], float]) -> None:
    counted = Counted(effect)
    assert not any(each.reached for each in levels(counted, TARGETS, first=0.25, most=2.0)) and len(counted.asked) <= 4


def test_what_cannot_be_read_is_said_and_not_followed() -> None:
    counted = Counted(lambda s: math.nan)
    found = levels(counted, TARGETS, first=0.25, most=2.0)
    assert counted.asked == [0.25] and all(math.isnan(each.effect) and not each.reached for each in found)
    found = levels(Counted(lambda s: s if s < 0.6 else math.nan), TARGETS, first=0.5, most=2.0)
    assert found == [(0.5, 0.5, True), (0.5, 0.5, False)]
