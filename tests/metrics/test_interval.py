"""Intervals against published values and in closed form; how often they hold the truth is in test_coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from hspace.metrics.interval import flip_means, mean_interval, means, over_draws, slope_interval, wilson
from hspace.types import InputError

RNG = np.random.default_rng(0)


def test_wilson_equals_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, total), (low, high) in published.items():
        interval = wilson(hits, total)
        assert max(abs(interval.low - low), abs(interval.high - high)) < 5e-5 and interval.n == total
    assert math.isnan(wilson(3, 9).value)
    with pytest.raises(InputError, match="from 0 to 4 hits, got 5"):
        wilson(5, 4)


def test_symmetric_values_have_students_interval_and_skewed_ones_reach_further_on_the_long_side() -> None:
    values = RNG.normal(size=30)
    symmetric = np.concatenate([values, -values]) + 2.0
    found = mean_interval(symmetric)
    low, high = stats.t.interval(0.95, 59, loc=symmetric.mean(), scale=stats.sem(symmetric))
    assert found[:3] == pytest.approx((symmetric.mean(), low, high), rel=1e-9) and found.n == 60
    skewed = mean_interval(RNG.exponential(size=30))
    assert skewed.high - skewed.value > 1.2 * (skewed.value - skewed.low)


def test_the_p_value_is_that_of_the_interval() -> None:
    values = RNG.exponential(size=(40, 200)) - 1.35
    found = means(values, np.ones(values.shape, dtype=bool))
    assert np.array_equal(found.p < 0.05, (found.low > 0) | (found.high < 0)) and 0.1 < (found.p < 0.05).mean() < 0.9
    flips = RNG.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=(40, 200))
    found = flip_means(flips, np.ones(flips.shape, dtype=bool))
    assert np.array_equal(found.p < 0.05, (found.low > 0) | (found.high < 0)) and 0.1 < (found.p < 0.05).mean() < 0.9


def test_flips_have_bonett_and_prices_interval() -> None:
    # Of 40 pairs 9 flip up and 2 down: (9 + 1 - 2 - 1) / 42 and its Wald error, by hand.
    flips = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 29)[:, None]
    found = flip_means(flips, np.ones(flips.shape, dtype=bool))
    up, down = 10 / 42, 3 / 42
    half = 1.959964 * math.sqrt((up + down - (up - down) ** 2) / 42)
    assert found.value[0] == pytest.approx(7 / 40)
    assert (found.low[0], found.high[0]) == pytest.approx((up - down - half, up - down + half), rel=1e-6)


def test_no_flips_and_only_flips_leave_a_width() -> None:
    for value in (0.0, 1.0, -1.0):
        flips = np.full((16, 1), value)
        found = flip_means(flips, np.ones(flips.shape, dtype=bool))
        assert found.high[0] - found.low[0] > 0.2 and found.low[0] <= value <= found.high[0]


def test_what_is_not_counted_changes_nothing() -> None:
    values, extra = RNG.normal(size=(20, 3)), np.full((5, 3), 1e6)
    counted = np.concatenate([np.ones((20, 3)), np.zeros((5, 3))]).astype(bool)
    for estimate in (means, flip_means):
        alone, mixed = estimate(values / 9, counted[:20]), estimate(np.concatenate([values / 9, extra]), counted)
        for name, array in vars(alone).items():
            assert getattr(mixed, name) == pytest.approx(array), name
    gaps = np.where(RNG.random(20) < 0.2, np.nan, values[:, 0])
    assert mean_interval(gaps) == mean_interval(gaps[np.isfinite(gaps)])


def test_few_values_have_no_interval_and_equal_ones_no_limits() -> None:
    few, equal = mean_interval(RNG.normal(size=9)), mean_interval(np.full(20, 0.3))
    assert np.isnan(few[:3]).all() and few.n == 9
    assert equal.value == pytest.approx(0.3) and math.isnan(equal.low) and math.isnan(equal.high)


def test_a_slope_is_that_of_least_squares() -> None:
    x = RNG.normal(size=(200, 1))
    y = 0.7 * x + 0.5 * RNG.normal(size=(200, 1))
    found = slope_interval(x, y)
    slope = float(np.linalg.lstsq(x, y, rcond=None)[0][0, 0])
    error = math.sqrt(float(((y - slope * x) ** 2).sum()) / 199 / float((x**2).sum()))
    assert found.value == pytest.approx(slope)
    assert (found.high - found.low) / 2 == pytest.approx(1.97 * error, rel=0.2)
    assert math.isnan(slope_interval(x[:9], y[:9]).value) and math.isnan(slope_interval(0 * x, y).value)


def test_draws_of_examples_are_the_units_of_their_interval() -> None:
    figures = RNG.normal(size=6)
    low, high = stats.t.interval(0.95, 5, loc=figures.mean(), scale=stats.sem(figures))
    assert over_draws(figures) == pytest.approx((figures.mean(), low, high, 6))
    assert over_draws(np.append(figures, np.nan)) == over_draws(figures)
    few = over_draws(figures[:4])
    assert few.value == figures[:4].mean() and math.isnan(few.low) and few.n == 4
    assert math.isnan(over_draws(np.ones(5)).low)
