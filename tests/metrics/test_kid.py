import logging

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import poly_mmd

from hspace.metrics.kid import KID
from hspace.types import InputError


class Pixels(nn.Module):
    """The pixels themselves as features."""

    id = "pixels"
    dim = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def _draw(n: int, seed: int) -> Tensor:
    return torch.randn(n, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _kid(real: Tensor, edited: Tensor, **options: int) -> KID:
    kid = KID(Pixels(), **{"min_samples": 2, "subset_size": 50, **options})
    kid.update(real, real=True)
    kid.update(edited, real=False)
    return kid


def test_subsets_of_all_images_have_the_distance_of_torchmetrics_and_of_the_formula() -> None:
    real, edited = _draw(30, 0), _draw(30, 1) + 0.5
    value = _kid(real, edited, subset_size=30).compute()
    x, y = real.flatten(1), edited.flatten(1)
    assert value.mean == pytest.approx(float(poly_mmd(x, y)), rel=1e-9) and value.sd == pytest.approx(0, abs=1e-9)

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 12 + 1) ** 3)

    within = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(30) for j in range(30) if i != j) / (30 * 29)
    between = sum(kernel(x[i], y[j]) for i in range(30) for j in range(30)) / 30**2
    assert value.mean == pytest.approx(within - 2 * between, rel=1e-9)


def test_two_halves_of_one_distribution_are_0_within_the_sd_and_others_are_not() -> None:
    halves = _draw(800, 2).split(400)
    same, other = _kid(*halves).compute(), _kid(halves[0], halves[1] + 1).compute()
    assert abs(same.mean) < same.sd
    assert other.mean > 5 * other.sd


def test_the_order_and_the_batches_of_images_do_not_matter_nor_does_it_touch_the_global_generator() -> None:
    real, edited = _draw(80, 3), _draw(90, 4)
    state = torch.get_rng_state()
    value = _kid(real, edited).compute()
    assert torch.equal(torch.get_rng_state(), state)
    permuted = KID(Pixels(), min_samples=2, subset_size=50)
    for batch in real.flip(0).split(7):
        permuted.update(batch, real=True)
    permuted.update(edited[torch.randperm(90, generator=torch.Generator().manual_seed(0))], real=False)
    assert permuted.compute() == pytest.approx(value, abs=1e-12)
    assert _kid(real, edited, seed=1).compute() != value


def test_few_images_are_reported_and_too_few_refused(caplog: pytest.LogCaptureFixture) -> None:
    kid = _kid(_draw(60, 5), _draw(70, 6), min_samples=1000)
    with caplog.at_level(logging.WARNING):
        kid.compute()
    assert "KID of 60 images is uncertain: use at least 1000" in caplog.text
    with pytest.raises(InputError, match="subset_size=50 images on each side, got 49 real and 70 edited"):
        _kid(_draw(49, 5), _draw(70, 6)).compute()
