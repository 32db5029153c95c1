import numpy as np
import pytest

from hspace.metrics.selectivity import selectivity


def test_sure_effects_have_the_plain_share() -> None:
    effect = np.array([0.6, -0.3, 0.1])
    found = selectivity(effect, 1e-12 * np.eye(3), 0, 100)
    assert found.value == pytest.approx(0.6) and found.low == pytest.approx(0.6, abs=0.005)
    assert found.high == pytest.approx(0.6, abs=0.005) and found.n == 100


def test_noise_is_taken_out_of_the_others() -> None:
    effect, errors = np.array([0.5, 0.1, -0.09, 0.05]), 0.1**2 * np.eye(4)
    found = selectivity(effect, errors, 0, 32)
    # Effects within 1.25 standard errors of 0 count as 0, and others in full.
    assert found.value == pytest.approx(1.0) and found.low < 0.6 < found.high
    one = selectivity(np.array([0.5, -0.2, 0.1, 0.0]), errors, 0, 32)
    assert one.value == pytest.approx(0.5 / 0.7)


def test_the_interval_holds_the_estimate() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = selectivity(0.3 * rng.normal(size=8), 0.1**2 * np.eye(8), 3, 20)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_hidden_attributes_are_unknown_and_not_unmoved() -> None:
    errors = 1e-12 * np.eye(5)
    seen = np.array([0.4, 0.1, 0.1, 0.1, 0.1])
    hidden = np.where([False, False, False, True, True], np.nan, seen)
    assert selectivity(hidden, errors, 0, 50).value == pytest.approx(selectivity(seen, errors, 0, 50).value) == 0.5
    assert np.isnan(selectivity(np.array([0.4, 0.1, np.nan, np.nan, np.nan]), errors, 0, 50).value)
    assert np.isnan(selectivity(hidden, errors, 3, 50).value)
