"""After erasing, no linear map of h says anything of the concepts."""

import numpy as np
import pytest
import torch
from concept_erasure import LeaceEraser
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from hspace.directions.leace import fit_eraser
from hspace.types import InputError


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(80, 3, generator=generator, dtype=torch.float64)
    z[:, 2] = (z[:, 2] > 0).double()
    mixing = torch.randn(3, 30, generator=generator, dtype=torch.float64)
    x = z @ mixing + torch.randn(80, 30, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 2, 30)
    return x, z


def test_no_linear_regression_finds_the_concepts_afterwards(data: tuple[Tensor, Tensor]) -> None:
    x, z = data
    erased = fit_eraser(x, z).erase(x)
    wanted = (z - z.mean(0)).numpy()

    def explained(samples: Tensor) -> float:
        """R² of a linear regression; what is erased leaves directions of rounding alone, which are left out."""
        centred = (samples - samples.mean(0)).numpy()
        slope, *_ = np.linalg.lstsq(centred, wanted, rcond=1e-10)
        return 1 - float(((wanted - centred @ slope) ** 2).sum() / (wanted**2).sum())

    assert explained(x) > 0.9 and abs(explained(erased)) < 1e-10
    np.testing.assert_allclose(erased.mean(0), x.mean(0), atol=1e-12)


def test_many_samples_are_erased_as_by_the_authors_package() -> None:
    """Of few samples the two shrink the covariance differently."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    mixing = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    x = torch.randn(2000, 6, generator=generator, dtype=torch.float64) * torch.linspace(0.5, 2, 6) + z @ mixing + 3
    ours, theirs = fit_eraser(x, z).erase(x), LeaceEraser.fit(x, z, shrinkage=False)(x)
    assert (ours - theirs).norm() < 0.02 * (x - theirs).norm()


def test_what_is_erased_is_read_and_taken_off_once(data: tuple[Tensor, Tensor]) -> None:
    x, z = data
    eraser = fit_eraser(x, z)
    np.testing.assert_allclose(eraser.right @ eraser.left, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(eraser.erase(eraser.erase(x)), eraser.erase(x), atol=1e-9)


def test_a_projected_direction_leaves_the_best_readout_of_the_concepts_as_it_is(data: tuple[Tensor, Tensor]) -> None:
    x, z = data
    direction = torch.randn(2, 30, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    projected = fit_eraser(x, z).project(direction)
    centred = x - x.mean(0)
    # The readout in the metric that the eraser used, from the explicit matrix.
    covariance = torch.from_numpy(ledoit_wolf(centred.numpy(), assume_centered=True)[0])
    readout = torch.linalg.solve(covariance, centred.T @ (z - z.mean(0)) / len(x))
    assert (projected @ readout).abs().max() < 1e-9 < (direction @ readout).abs().max()


def test_more_dimensions_than_samples_are_erased_too() -> None:
    generator = torch.Generator().manual_seed(2)
    x, z = (torch.randn(12, d, generator=generator, dtype=torch.float64) for d in (50, 1))
    erased = fit_eraser(x, z).erase(x)
    assert ((z - z.mean(0)).T @ erased).abs().max() < 1e-10


def test_concepts_that_do_not_vary_are_refused() -> None:
    with pytest.raises(InputError, match="varies"):
        fit_eraser(torch.randn(5, 4), torch.ones(5, 2))
