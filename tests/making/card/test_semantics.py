from pathlib import Path

import numpy as np
import pytest
from card.base import Sizes, evaluation_seeds
from card.semantics import component_effects, components, semantic_components
from colours import Brightness, Colour

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.recording import collect
from hspace.directions.pca import pca
from hspace.edits.sums import edit
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.names import Name

SIZES = Sizes(discovery=6, components=2, calibration=10, judged=12, batch_size=16)


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
