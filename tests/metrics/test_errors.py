import numpy as np
import pytest
import torch

from hspace.metrics.errors import correlation, error_correlation
from hspace.types import InputError


def test_scorers_that_share_errors_are_found_out() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, shared, own = torch.randn(3, 400, 2, generator=generator)
    first = labels + shared
    second = labels + torch.stack([shared[:, 0], own[:, 1]], dim=1)
    visible = torch.ones(400, 2, dtype=torch.bool)
    together, apart = error_correlation(labels, first, second, visible)
    assert together.value == pytest.approx(1.0) and apart.low < 0 < apart.high
    visible[5:, 1] = False
    assert np.isnan(error_correlation(labels, first, second, visible)[1].value)
    with pytest.raises(InputError, match="one shape"):
        error_correlation(labels, first, second, visible[:3])


def test_the_interval_of_normal_pairs_is_fishers() -> None:
    x, noise = np.random.default_rng(0).normal(size=(2, 2000))
    y = 0.6 * x + 0.8 * noise
    found = correlation(x, y)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    half = 1.96 / np.sqrt(1997)
    expected = np.tanh(np.arctanh(found.value) + np.array([-half, half]))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.004)
