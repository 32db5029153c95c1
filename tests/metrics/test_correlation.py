import numpy as np
import pytest

from hspace.metrics.correlation import correlation


def test_the_interval_of_normal_pairs_is_fishers() -> None:
    x, noise = np.random.default_rng(0).normal(size=(2, 2000))
    y = 0.6 * x + 0.8 * noise
    found = correlation(x, y)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    half = 1.96 / np.sqrt(1997)
    expected = np.tanh(np.arctanh(found.value) + np.array([-half, half]))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("x", [np.arange(9.0), np.ones(20)])
def test_too_few_or_constant_values_have_no_correlation(x: np.ndarray) -> None:
    found = correlation(x, np.arange(float(len(x))))
    assert np.isnan([found.value, found.low, found.high]).all() and found.n == len(x)
