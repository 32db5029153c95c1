from dataclasses import replace

import pytest
import torch
from card.base import Sizes, evaluation_seeds, share
from card.moved import STRENGTHS, boundaries, choose_strength, moved_figures, moved_images
from colours import Brightness, Colour

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampling import sample
from hspace.directions.record import Directions
from hspace.edits.sums import edit

SIZES = Sizes(annotated=12, examples=2, calibration=10, judged=12, batch_size=16)


@pytest.fixture(scope="module")
def directions(tiny_model: DiffusionModel) -> Directions:
    return boundaries(tiny_model, Brightness(), ("red", "green"), SIZES)


def test_boundaries_are_named_after_their_attributes(directions: Directions) -> None:
    assert directions.meta.names == ("red", "green") and directions.meta.unit == "difference"
    assert len(directions.directions) == 2 and not set(directions.meta.seeds) & set(seed_range("calibration", 10))


def test_the_smallest_strength_that_moves_enough_is_chosen(tiny_model: DiffusionModel, directions: Directions) -> None:
    # An offset of x_T surely moves the samples of an untrained model, the more the stronger it is.
    offset = torch.zeros(1, *tiny_model.sample_shape)
    offset[:, 0] = 0.1
    latents = tiny_model.latents(seed_range("calibration", 10))
    unedited, moved = (
        Brightness()(sample(tiny_model, replace(latents, x_T=latents.x_T + factor * offset)).x_0)[:, 0]
        for factor in (0, 1)
    )
    sign, threshold = float((moved - unedited).mean().sign()), float(unedited.median())
    shifted = Directions(sign * offset, replace(directions.meta, space="x_T", names=("red",)))
    chosen = choose_strength(tiny_model, shifted, 0, Brightness(), threshold, SIZES)

    def margin(strength: float) -> float:
        images = edit(tiny_model, latents, shifted, component=0, strengths=[-strength, strength])
        before, after = (share(Brightness()(each)[:, 0] > threshold) for each in images.unbind(1))
        return min(0.2 - before, after - 0.8)

    assert margin(chosen) >= 0.1 - 1e-9
    assert all(margin(strength) < 0.1 for strength in STRENGTHS if strength < chosen)
    weak = replace(shifted, directions=shifted.directions * 1e-6)
    assert choose_strength(tiny_model, weak, 0, Brightness(), threshold, SIZES) in STRENGTHS


def test_images_are_moved_both_ways_by_each_direction(tiny_model: DiffusionModel, directions: Directions) -> None:
    original, edited = moved_images(tiny_model, directions, [1.0, 2.0], SIZES)
    assert original.shape == (12, 3, 16, 16) and edited.shape == (2, 2, 12, 3, 16, 16)
    latents = tiny_model.latents(evaluation_seeds(12))
    single = edit(tiny_model, latents, directions, component=1, strengths=[-2, 0, 2]).transpose(0, 1)
    for ours, theirs in ((edited[1, 0], single[0]), (original, single[1]), (edited[1, 1], single[2])):
        assert (ours - theirs).abs().max() < 1e-4


def test_shares_and_identity_are_counted() -> None:
    original = torch.full((12, 3, 2, 2), 0.5)
    original[:3, 1] = -0.5
    edited = torch.stack([-original, original])[None]
    figures = moved_figures(original, edited, Brightness(), {"identity": Colour()}, {"green": 0.0})
    assert figures["green"] == {"unedited": 0.75, "before": 0.25, "after": 0.75, "identity": pytest.approx(0, abs=1e-6)}
