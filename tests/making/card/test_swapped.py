"""The share that a swap carries is the slope of its change against the difference of donor and sample."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from card.base import evaluation_seeds
from card.subject import subject_of
from card.swapped import carried_share, swapped_shares

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampling import sample
from hspace.edits.mixing import swap
from hspace.scorers.embedded import load_judge
from hspace.types import Images, Scores

PORTRAITS = subject_of("portraits")
WITHOUT = replace(PORTRAITS, world=replace(PORTRAITS.world, background=None))
"""The world, as if no part of a portrait showed the background alone."""


def test_the_share_is_that_of_the_donor() -> None:
    own, donor = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    assert carried_share(own, donor, own)[0] == 0
    for exact in (0.3, 1):
        assert carried_share(own, donor, own + exact * (donor - own)) == pytest.approx((exact, 0), abs=1e-6)
    assert all(map(math.isnan, carried_share(own, own, donor)))
    assert all(map(math.isnan, carried_share(*torch.empty(3, 0))))


def test_the_error_is_that_of_many_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(400):
        own, donor, noise = torch.randn(3, 60, generator=generator)
        found.append(carried_share(own, donor, own + 0.5 * (donor - own) + noise * (donor - own).abs()))
    shares, errors = torch.tensor(found).unbind(1)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(shares.std()), rel=0.1)


def test_every_attribute_and_the_background_are_read(tiny_pipeline_dir: Path) -> None:
    model, judge = load_model(str(tiny_pipeline_dir), num_steps=2), load_judge("portraits")
    shares = swapped_shares(model, judge, PORTRAITS, 3, batch_size=2)
    assert set(shares) == {*judge.attributes, "background"}
    always = {"glasses", "hat", "gender", "yaw", "skin", "background"}
    assert all(math.isfinite(shares[name]["share"]) for name in always)
    without = swapped_shares(model, judge, WITHOUT, 3, batch_size=2)
    assert set(without) == set(judge.attributes)


@dataclass
class Light:
    """Mean of red and of green; green is hidden where it is under a bound."""

    bound: float
    id: str = "light"
    attributes: tuple[str, ...] = ("red", "green")
    binary: tuple[bool, ...] = (False, False)

    def __call__(self, images: Images) -> Scores:
        return images.mean((2, 3))[:, :2]

    def visible(self, scores: Scores) -> torch.Tensor:
        return torch.stack([torch.ones(len(scores), dtype=torch.bool), scores[:, 1] > self.bound], dim=1)


def test_a_hidden_attribute_does_not_count(tiny_model: DiffusionModel) -> None:
    n, seeds = 6, evaluation_seeds(12)
    own, donors = (tiny_model.latents(half) for half in (seeds[:n], seeds[n:]))
    images = [sample(tiny_model, own).x_0, sample(tiny_model, donors).x_0, swap(tiny_model, own, donors)]
    colours = [image.clamp(-1, 1).mean((2, 3)) for image in images]
    bound = float(colours[0][:, 1].median())
    shown = torch.stack([colour[:, 1] > bound for colour in colours]).all(0)
    assert 0 < shown.sum() < n
    found = swapped_shares(tiny_model, Light(bound), WITHOUT, n, batch_size=4)
    assert found["red"]["share"] == pytest.approx(carried_share(*(colour[:, 0] for colour in colours))[0], abs=1e-4)
    assert found["green"]["share"] == pytest.approx(
        carried_share(*(colour[shown, 1] for colour in colours))[0], abs=1e-4
    )
