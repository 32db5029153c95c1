from typing import Any

import numpy as np
import pytest
from scipy import stats

from hspace.metrics.effect import EffectMatrix
from hspace.metrics.repeats import matrices_over_draws
from hspace.types import InputError


def _matrix(effect: list[list[float]], attributes: tuple[str, ...] = ("smile", "age")) -> EffectMatrix:
    values = np.array(effect)
    n, covariance = np.full(values.shape, 30), np.zeros((1, 2, 2))
    return EffectMatrix(attributes, ("edit",), values, values, values, values, n, covariance)


def test_the_mean_over_draws_has_students_interval() -> None:
    draws = [1.0, 2.0, 6.0, 3.0, 4.0]
    found = matrices_over_draws([_matrix([[value, -value if j else np.nan]]) for j, value in enumerate(draws)])
    wanted: Any = stats.ttest_1samp(draws, 0)
    assert found.effect[0, 0] == pytest.approx(3.2) and found.p[0, 0] == pytest.approx(wanted.pvalue)
    limits = wanted.confidence_interval()
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((limits.low, limits.high))
    assert found.n.tolist() == [[5, 4]] and np.isnan(found.low[0, 1]) and found.effect[0, 1] == -15 / 4
    assert found.covariance[0, 0, 0] == pytest.approx(stats.sem(draws) ** 2)
    assert found.covariance[0, 1, 1] == pytest.approx(stats.sem(draws[1:]) ** 2), "of the four draws that have it"


def test_errors_are_those_of_the_intervals_where_draws_are_missing() -> None:
    draws = np.random.default_rng(0).normal(size=(8, 2))
    draws[:2, 0], draws[2, 1] = np.nan, np.nan
    found = matrices_over_draws([_matrix([row]) for row in draws.tolist()])
    assert found.n.tolist() == [[6, 7]]
    half = stats.t.ppf(0.975, found.n - 1) * np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert found.high - found.effect == pytest.approx(half)
    off = (draws - found.effect)[3:]
    assert found.covariance[0, 0, 1] == found.covariance[0, 1, 0] == pytest.approx(off[:, 0] @ off[:, 1] / 4 / 5)


def test_few_draws_have_no_interval_and_unlike_ones_no_mean() -> None:
    alone = matrices_over_draws([_matrix([[1.0, -1.0]])])
    assert alone.effect.tolist() == [[1.0, -1.0]] and np.isnan(alone.high).all() and not alone.covariance.any()
    hidden = matrices_over_draws([_matrix([[1.0, np.nan]])] * 5)
    assert np.isnan(hidden.effect[0, 1]) and hidden.n.tolist() == [[5, 0]]
    with pytest.raises(InputError, match="same rows and columns"):
        matrices_over_draws([_matrix([[1.0, -1.0]]), _matrix([[1.0, -1.0]], ("smile", "yaw"))])
