import importlib.util
import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from hspace.metrics.locality import Locality, feature_distance, lpips_distance
from hspace.scorers.embedded import WorldFeatures, load_judge
from hspace.types import InputError

REGION = torch.zeros(1, 32, 32, dtype=torch.bool)
REGION[:, 8:20, 4:12] = True


class Colour:
    id = "colour"
    dim = 3

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def _pairs() -> tuple[Tensor, Tensor]:
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return images, images + 0.1 * noise


def test_what_happens_inside_the_region_does_not_count() -> None:
    original, _ = _pairs()
    edited = torch.where(REGION, -original, original)
    locality = Locality(feature_distance(WorldFeatures(load_judge("portraits"))))
    locality.update(original, edited, REGION)
    ssim, psnr, perceptual = locality.compute()
    assert ssim.value == pytest.approx(1, abs=1e-9) and psnr.value == float("inf")
    assert perceptual.value == pytest.approx(0, abs=1e-6)
    outside = Locality(locality.distance)
    outside.update(original, edited, ~REGION)
    ssim, psnr, perceptual = outside.compute()
    assert ssim.high < 0.5 and psnr.high < 10 and perceptual.low > 0.001


def test_without_a_region_the_figures_are_those_of_torchmetrics() -> None:
    original, edited = _pairs()
    locality = Locality(feature_distance(Colour()))
    nowhere = torch.zeros(12, 32, 32, dtype=torch.bool)
    for rows in (slice(0, 2), slice(2, 12)):
        locality.update(original[rows], edited[rows], nowhere[rows])
    ssim, psnr, perceptual = locality.compute()
    full = structural_similarity_index_measure(
        edited.double(), original.double(), data_range=2.0, reduction="none", return_full_image=True
    )
    assert ssim.value == pytest.approx(float(full[1].mean()), rel=1e-9)
    assert psnr.value == pytest.approx(float(peak_signal_noise_ratio(edited, original, data_range=2.0)), rel=1e-5)
    assert psnr.low < psnr.value < psnr.high and ssim.low < ssim.value < ssim.high
    cosine = torch.nn.functional.cosine_similarity(Colour()(original), Colour()(edited))
    assert perceptual.value == pytest.approx(float((1 - cosine).mean()), rel=1e-4)


def test_mistakes_are_named() -> None:
    original, edited = _pairs()
    locality = Locality(feature_distance(Colour()))
    with pytest.raises(InputError, match="leave a part of the image outside"):
        locality.update(original, edited, torch.ones(1, 32, 32, dtype=torch.bool))
    with pytest.raises(InputError, match="a region as large"):
        locality.update(original, edited, torch.zeros(1, 16, 16, dtype=torch.bool))
    locality.update(original[:9], edited[:9], torch.zeros(1, 32, 32, dtype=torch.bool))
    assert all(math.isnan(each.value) and each.n == 9 for each in locality.compute()), "nine pairs are too few"


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_lpips_without_its_library_is_a_clear_error() -> None:
    with pytest.raises(InputError, match="pip install torchvision"):
        lpips_distance()
