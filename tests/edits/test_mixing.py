"""Swap, arithmetic and interpolation, by their identities on a real (tiny) model."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.edits.mixing import arithmetic, between, interpolate, swap
from hspace.types import InputError

SAMPLER = Sampler(eta=[1.0, 0.5, 0.0])


@pytest.fixture(scope="module")
def pair(tiny_model: DiffusionModel) -> tuple[Latents, Latents]:
    return tiny_model.latents([1, 2]), tiny_model.latents([3, 4])


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def test_swap_takes_h_of_the_donor_at_every_step(tiny_model: DiffusionModel, pair: tuple[Latents, Latents]) -> None:
    latents, donors = pair
    h = sample(tiny_model, donors, sampler=SAMPLER, record_h=True).h
    expected = sample(tiny_model, latents, sampler=SAMPLER, replace_h=h).x_0
    assert torch.equal(swap(tiny_model, latents, donors, sampler=SAMPLER), expected)
    assert close(swap(tiny_model, latents, donors, sampler=replace(SAMPLER, batch_size=1)), expected)
    plain = sample(tiny_model, latents, sampler=SAMPLER).x_0
    assert torch.equal(swap(tiny_model, latents, latents, sampler=SAMPLER), plain)
    assert (expected - plain).abs().max() > 1e-2


def test_arithmetic_adds_the_difference(tiny_model: DiffusionModel, pair: tuple[Latents, Latents]) -> None:
    plus, minus, latents = tiny_model.latents([7]), tiny_model.latents([8]), pair[0]
    images = arithmetic(tiny_model, latents, plus, minus, strengths=[0.0, 0.2], sampler=replace(SAMPLER, batch_size=4))
    h = sample(tiny_model, tiny_model.latents([7, 8]), sampler=SAMPLER, record_h=True).h
    assert h is not None
    expected = sample(tiny_model, latents, sampler=SAMPLER, delta_h=0.2 * (h[:1] - h[1:])).x_0
    assert close(images[:, 1], expected)
    assert close(images[:, 0], sample(tiny_model, latents, sampler=SAMPLER).x_0)
    nothing = arithmetic(tiny_model, latents, minus, minus, strengths=[1.0], sampler=SAMPLER)
    assert torch.equal(nothing[:, 0], sample(tiny_model, latents, sampler=SAMPLER).x_0)


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("space", ["h", "x_T", "both"])
def test_interpolation_begins_and_ends_at_the_samples(
    tiny_model: DiffusionModel, pair: tuple[Latents, Latents], space: str, spherical: bool
) -> None:
    first, second = pair
    options: dict[str, Any] = {"space": space, "spherical": spherical}
    images = interpolate(tiny_model, first, second, weights=[0.0, 0.5, 1.0], sampler=SAMPLER, **options)
    assert close(images[:, 0], sample(tiny_model, first, sampler=SAMPLER).x_0)
    swapped = swap(tiny_model, first, second, sampler=SAMPLER)
    end = swapped if space == "h" else sample(tiny_model, second, sampler=SAMPLER).x_0
    assert close(images[:, 2], end)
    backwards = interpolate(tiny_model, second, first, weights=[0.5], sampler=SAMPLER, **options)
    assert close(backwards[:, 0], images[:, 1]) == (space != "h")
    fewer = replace(SAMPLER, batch_size=4)
    assert close(interpolate(tiny_model, first, second, weights=[0.0, 0.5, 1.0], sampler=fewer, **options), images)


def test_an_inverted_image_is_reached_exactly(tiny_model: DiffusionModel, pair: tuple[Latents, Latents]) -> None:
    first = pair[0]
    second = replace(pair[1], residual=torch.ones_like(pair[1].x_T))
    images = interpolate(tiny_model, first, second, weights=[0.0, 0.5, 1.0])
    without = interpolate(tiny_model, first, pair[1], weights=[0.0, 0.5, 1.0])
    added = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(2, 3, 3, 16, 16)
    assert (images - without - added).abs().max() < 1e-5
    assert close(images[:, 2], sample(tiny_model, second).x_0)


def test_middle_of_h_is_the_mean(tiny_model: DiffusionModel, pair: tuple[Latents, Latents]) -> None:
    first, second = pair
    h_first, h_second = (sample(tiny_model, latents, sampler=SAMPLER, record_h=True).h for latents in pair)
    assert h_first is not None and h_second is not None
    expected = sample(tiny_model, first, sampler=SAMPLER, replace_h=(h_first + h_second) / 2).x_0
    images = interpolate(tiny_model, first, second, weights=[0.5], space="h", spherical=False, sampler=SAMPLER)
    assert close(images[:, 0], expected)


def test_the_great_arc_keeps_norm_and_divides_the_angle() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 4, 3, 3, 8, 8, generator=generator)
    first, second = (x / x.flatten(-3).norm(dim=-1)[..., None, None, None] for x in (first, second))
    weight = torch.tensor([0.0, 0.25, 0.5, 1.0])
    middle = between(first, second, weight, True).flatten(-3)
    assert (middle.norm(dim=-1) - 1).abs().max() < 1e-6
    whole, part = ((first.flatten(-3) * x).sum(-1).arccos() for x in (second.flatten(-3), middle))
    assert (part[1:] - weight[1:, None] * whole[1:]).abs().max() < 1e-5
    assert torch.equal(between(first, second, weight, True)[0], first[0])
    assert torch.equal(between(first, second, weight, True)[3], second[3])


def test_parallel_and_opposite_vectors_are_mixed_linearly() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    half = torch.full((2,), 0.5)
    assert (between(x, 3 * x, half, True) - 2 * x).abs().max() < 1e-5
    assert between(x, -x, half, True).abs().max() < 1e-5
    zero = torch.zeros_like(x)
    assert between(zero, zero, half, True).abs().max() == 0


def test_noise_keeps_its_spread_on_the_arc(tiny_model: DiffusionModel) -> None:
    first, second = tiny_model.latents(range(10)), tiny_model.latents(range(10, 20))
    half = torch.full((10,), 0.5)
    assert abs(float(between(first.z, second.z, half, True).std()) - 1) < 0.02
    assert abs(float(between(first.z, second.z, half, False).std()) - math.sqrt(0.5)) < 0.02


def test_bad_mixes(tiny_model: DiffusionModel, pair: tuple[Latents, Latents]) -> None:
    first, second = pair
    one = second.select([0])
    for mix in (lambda: swap(tiny_model, first, one), lambda: interpolate(tiny_model, first, one, weights=[0.5])):
        with pytest.raises(InputError, match="every sample needs a partner, got 2 samples and 1"):
            mix()
    with pytest.raises(InputError, match="arithmetic takes one sample of each kind, got 2 and 1"):
        arithmetic(tiny_model, first, second, one, strengths=[0.2])
    with pytest.raises(InputError, match="space must be one of h, x_T, both, got z"):
        interpolate(tiny_model, first, second, weights=[0.5], space="z")
    for weights in ([], [1.5], [math.nan]):
        with pytest.raises(InputError, match=r"weights must be in \[0, 1\] and at least one, got"):
            interpolate(tiny_model, first, second, weights=weights)
