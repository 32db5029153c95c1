"""What is read of the background gives the factors that it was painted with, and does not depend on the person."""

import torch

from hspace.worlds.portraits.backdrop import background_embedding, background_hue
from hspace.worlds.portraits.faces import render, resample_expression, sample_factors

PLAIN = {"bokeh": torch.zeros(64)}


def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    apart = (first - second).abs() % 1
    return torch.minimum(apart, 1 - apart)


def test_the_hue_is_that_of_the_factor_at_all_sizes() -> None:
    factors = sample_factors(torch.Generator().manual_seed(0), 64) | PLAIN
    for size in (32, 64):
        found = background_hue(render(factors, size))
        assert found.min() >= 0 and found.max() < 1
        assert distance(found, factors["background"]).max() < 0.04


def test_the_person_is_not_read() -> None:
    factors = sample_factors(torch.Generator().manual_seed(0), 16)
    others = resample_expression(factors, torch.Generator().manual_seed(1))
    first, second = (background_embedding(render(each, 64)) for each in (factors, others))
    assert first.shape == (16, 48) and torch.equal(first, second)


def test_the_embedding_tells_gradients_and_lights_apart() -> None:
    factors = sample_factors(torch.Generator().manual_seed(0), 16) | {"bokeh": torch.ones(16)}
    still = background_embedding(render(factors, 64))
    for name, share in (("background", 1.0), ("backdrop", 1.0), ("scatter", 0.75)):  # lights are not in all corners
        moved = background_embedding(render(factors | {name: (factors[name] + 0.3) % 1}, 64))
        assert ((moved - still).abs().amax(1) > 0.01).float().mean() >= share, name


def test_a_hue_is_read_in_any_light() -> None:
    turn = torch.tensor([0.0, 1 / 3, 2 / 3])
    color = 0.5 + 0.3 * torch.cos(2 * torch.pi * (0.7 + turn))
    images = (color[None, :, None, None] * torch.tensor([0.4, 1.0])[:, None, None, None]).expand(2, 3, 16, 16) * 2 - 1
    assert distance(background_hue(images), torch.tensor(0.7)).max() < 1e-5
