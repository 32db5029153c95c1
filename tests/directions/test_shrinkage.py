"""The shrunk covariance is scikit-learn's, without the matrix."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from hspace.directions.shrinkage import shrunk_covariance
from hspace.types import InputError


@pytest.mark.parametrize(("n", "d"), [(12, 40), (60, 15)])
def test_equals_the_ledoit_wolf_estimate_of_scikit_learn(n: int, d: int) -> None:
    samples = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = samples * torch.linspace(0.2, 3, d)
    samples = samples - samples.mean(0)
    expected, shrinkage = ledoit_wolf(samples.numpy(), assume_centered=True)
    found = shrunk_covariance(samples)
    assert found.shrinkage == pytest.approx(shrinkage, abs=1e-12)
    np.testing.assert_allclose(found.power(torch.eye(d, dtype=torch.float64), 1.0), expected, atol=1e-10)


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5])
def test_powers_are_those_of_the_matrix(exponent: float) -> None:
    samples = torch.randn(9, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = shrunk_covariance(samples - samples.mean(0))
    values, vectors = torch.linalg.eigh(found.power(torch.eye(20, dtype=torch.float64), 1.0))
    expected = (vectors * values**exponent) @ vectors.T
    np.testing.assert_allclose(found.power(torch.eye(20, dtype=torch.float64), exponent), expected, atol=1e-10)


def test_samples_without_variance_are_refused() -> None:
    with pytest.raises(InputError, match=r"method\.k"):
        shrunk_covariance(torch.zeros(2, 5, dtype=torch.float64))
