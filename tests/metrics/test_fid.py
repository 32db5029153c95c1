import importlib.util
import logging

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from hspace.metrics.fid import FID, frechet_distance, inception_fid
from hspace.types import InputError

DIM = 3 * 2 * 2


class Pixels(nn.Module):
    """The pixels themselves as features, so that means and covariances can be set exactly."""

    id = "pixels"
    dim = DIM

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def _images(n: int, mean: Tensor, root: Tensor, seed: int) -> Tensor:
    """n images whose sample mean is `mean` and whose sample covariance is `root` squared, exactly to rounding."""
    noise = torch.randn(n, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    white, _ = torch.linalg.qr(noise - noise.mean(0))
    return (mean + white @ root * (n - 1) ** 0.5).unflatten(1, (3, 2, 2))


def _symmetric_root(seed: int) -> Tensor:
    a = torch.randn(DIM, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a @ a.T / DIM + 0.1 * torch.eye(DIM, dtype=torch.float64)


def _fid(real: Tensor, edited: Tensor) -> FID:
    fid = FID(Pixels(), min_samples=2)
    fid.update(real, real=True)
    fid.update(edited, real=False)
    return fid


def test_distance_of_known_gaussians() -> None:
    # Covariances R² and (3R)² commute: the trace term is tr((R - 3R)²).
    root, mean = _symmetric_root(0), torch.linspace(-1, 1, DIM, dtype=torch.float64)
    real = _images(100, torch.zeros(DIM, dtype=torch.float64), root, 1)
    edited = _images(90, mean, 3 * root, 2)
    expected = mean.square().sum() + (2 * root @ (2 * root)).trace()
    value = _fid(real, edited).compute()
    assert value.dtype == torch.float64
    assert abs(float(value / expected) - 1) < 1e-6


def test_identical_sets_are_0_to_rounding_even_with_fewer_images_than_features() -> None:
    for n in (100, 5):
        images = torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        assert abs(float(_fid(images, images).compute())) < 1e-12


def test_distance_equals_torchmetrics() -> None:
    real = _images(60, torch.zeros(DIM, dtype=torch.float64), _symmetric_root(3), 4)
    edited = _images(60, torch.ones(DIM, dtype=torch.float64), _symmetric_root(5), 6)
    fid = _fid(real, edited)
    assert abs(float(fid.compute() - FrechetInceptionDistance.compute(fid))) < 1e-6


def test_distance_is_symmetric() -> None:
    a, b = (
        (torch.zeros(DIM, dtype=torch.float64), _symmetric_root(0)),
        (torch.ones(DIM, dtype=torch.float64), _symmetric_root(1)),
    )
    assert abs(float(frechet_distance(*a, *b) - frechet_distance(*b, *a))) < 1e-10


def test_batches_add_up() -> None:
    real, edited = torch.rand(2, 20, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    parts = FID(Pixels(), min_samples=2)
    for a, b in zip(real.split(7), edited.split(7), strict=True):
        parts.update(a, real=True)
        parts.update(b, real=False)
    assert abs(float(parts.compute() - _fid(real, edited).compute())) < 1e-10


def test_few_images_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    fid = _fid(torch.rand(20, 3, 2, 2), torch.rand(30, 3, 2, 2))
    fid.min_samples = 2048
    with caplog.at_level(logging.WARNING):
        fid.compute()
    assert "FID of 20 images" in caplog.text and "2048" in caplog.text


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="got 20 real and 1 edited"):
        _fid(torch.rand(20, 3, 2, 2), torch.rand(1, 3, 2, 2)).compute()


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed")
def test_inception_without_its_library_is_a_clear_error() -> None:
    with pytest.raises(InputError, match="pip install torch-fidelity"):
        inception_fid()
