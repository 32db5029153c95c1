from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from card.base import Sizes, evaluation_seeds, share
from card.semantics import (
    STRENGTHS,
    boundaries,
    choose_strength,
    component_effects,
    components,
    moved_figures,
    moved_images,
    semantic_components,
)

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.recording import collect
from hspace.diffusion.sampling import sample
from hspace.directions.pca import pca
from hspace.directions.record import Directions
from hspace.edits.sums import edit
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.names import Name

SIZES = Sizes(discovery=6, components=2, annotated=12, examples=2, calibration=10, judged=12, batch_size=16)


class Brightness:
    """Mean of the red and of the green channel, both continuous and always visible."""

    id = "brightness"
    attributes: tuple[str, ...] = ("red", "green")
    binary: tuple[bool, ...] = (False, False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :2].mean(dim=(2, 3))

    def visible(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


class Colour:
    """Mean colour as a unit vector."""

    id = "colour"
    dim = 3

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean(dim=(2, 3)), dim=1)


@pytest.fixture(scope="module")
def directions(tiny_model: DiffusionModel) -> Directions:
    return boundaries(tiny_model, Brightness(), ("red", "green"), SIZES)


def make_matrix() -> EffectMatrix:
    effect = np.array([[0.9, -0.2, 0.1], [0.4, -1.2, np.nan], [0.9, 0.7, 0.0], [0.55, 0.0, 0.1]])
    edits = tuple(f"component {j}" for j in range(4))
    nothing, count = np.zeros_like(effect), np.full(effect.shape, 100)
    return EffectMatrix(
        ("yaw", "age", "hat"), edits, effect, effect - 0.1, effect + 0.1, p=nothing, n=count,
        covariance=np.zeros((4, 3, 3)),
    )  # fmt: skip


def test_a_component_is_semantic_if_it_surely_moves_one_attribute_most() -> None:
    rows = semantic_components([Name("yaw", 1), Name("age", -1), Name("yaw", 1), Name("yaw", 1)], make_matrix())
    assert [row["semantic"] for row in rows] == [True, True, False, False]
    assert [row["component"] for row in rows] == [0, 1, 2, 3]
    assert [row["ratio"] for row in rows] == pytest.approx([4.5, 3, 0.9 / 0.7, 5.5])
    assert [row["low"] for row in rows] == pytest.approx([0.8, 1.1, 0.8, 0.45])


def test_the_judge_does_not_confirm_a_wrong_name_and_no_name_is_no_row() -> None:
    rows = semantic_components([Name("yaw", -1), Name("yaw", 1), None, Name("hat", 1)], make_matrix())
    assert [(row["component"], row["semantic"]) for row in rows] == [(0, False), (1, False), (3, False)]


def test_effects_of_components_are_those_between_the_two_strengths(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    (directions,) = components(tiny_model, SIZES, tmp_path)
    names, matrix = component_effects(tiny_model, directions, Brightness(), Brightness(), Colour(), SIZES)
    assert len(names) == 2 and matrix.effect.shape == (2, 2) and not list(tmp_path.glob("*.npy"))
    assert (matrix.low <= matrix.effect).all() and (matrix.effect <= matrix.high).all()
    found = pca(
        collect(tiny_model, seed_range("discovery", 6), tmp_path / "h.npy"),
        tiny_model,
        k=2,
        joint=True,
        rotation="varimax",
    )
    latents = tiny_model.latents(evaluation_seeds(12))
    images = edit(tiny_model, latents, found, component=1, strengths=[-2, 0, 2])
    low, unedited, high = (Brightness()(each) for each in images.unbind(1))
    assert matrix.effect[1] == pytest.approx(((high - low).mean(0) / unedited.std(0)).numpy(), rel=1e-3)


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
