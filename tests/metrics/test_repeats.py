import numpy as np
import pytest

from hspace.metrics.effect import EffectMatrix
from hspace.metrics.repeats import over_seeds
from hspace.types import InputError


def _matrix(effect: list[list[float]], attributes: tuple[str, ...] = ("smile", "age")) -> EffectMatrix:
    values = np.array(effect)
    n, covariance = np.full(values.shape, 30), np.zeros((1, 2, 2))
    return EffectMatrix(attributes, ("edit",), values, values, values, values, n, covariance)


def test_mean_and_sd_over_table_seeds() -> None:
    found = over_seeds([_matrix([[1.0, -1.0]]), _matrix([[2.0, -1.0]]), _matrix([[6.0, float("nan")]])])
    assert found.mean[0, 0] == 3.0 and found.sd[0, 0] == pytest.approx(7**0.5)
    assert np.isnan(found.mean[0, 1]) and found.seeds == 3
    with pytest.raises(InputError, match="at least two"):
        over_seeds([_matrix([[1.0, -1.0]])])
    with pytest.raises(InputError, match="same rows and columns"):
        over_seeds([_matrix([[1.0, -1.0]]), _matrix([[1.0, -1.0]], ("smile", "yaw"))])
