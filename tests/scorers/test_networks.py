"""The scorers' networks: every image is read by itself, at the size the network reads."""

from typing import Any

import pytest
import torch

from hspace.scorers.networks import ARCHITECTURES, to_input_size, unit_norm


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_output_does_not_depend_on_the_images_beside_it(name: str) -> None:
    torch.manual_seed(0)
    network = ARCHITECTURES[name](5)
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    together = network(images)
    assert together.shape == ((4, 5, 64, 64) if name == "regions" else (4, 5))
    for mode in (True, False):
        network.train(mode)
        assert (network(images[2:3]) - together[2:3]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_the_head_reads_the_features(name: str) -> None:
    network: Any = ARCHITECTURES[name](5)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network.head(network.features(images)), network(images))


def test_images_of_another_size_are_averaged_down() -> None:
    images = torch.rand(2, 3, 32, 32)
    assert to_input_size(images, 32) is images
    small = to_input_size(images.repeat_interleave(4, 2).repeat_interleave(4, 3), 32)
    smooth = torch.full((1, 3, 128, 128), 0.3)
    assert small.shape == images.shape and (small - images).abs().mean() < 0.2
    assert (to_input_size(smooth, 32) - 0.3).abs().max() < 1e-6


def test_unit_norm() -> None:
    assert (unit_norm(torch.randn(3, 7)).norm(dim=1) - 1).abs().max() < 1e-6
    assert torch.isfinite(unit_norm(torch.zeros(1, 7))).all()
