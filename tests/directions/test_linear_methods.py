"""Whitened difference, multiple regression and erased conditions beside scikit-learn, on a real (tiny) model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LinearRegression

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded, collect
from hspace.directions.annotations import Annotations, annotate, extremes
from hspace.directions.boundary import boundary
from hspace.directions.leace import erase_conditions
from hspace.directions.record import Directions
from hspace.directions.regression import regression, standardised
from hspace.directions.supervised import supervised
from hspace.directions.whitened import discriminant, whitened
from hspace.types import InputError

SAMPLES = range(40)


class ThreeColors:
    """Mean of each colour; the image hides its blue where it is very red."""

    id = "colors"
    attributes: tuple[str, ...] = ("red", "green", "blue")
    binary: tuple[bool, ...] = (False, False, False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))

    def visible(self, scores: torch.Tensor) -> torch.Tensor:
        shown = torch.ones_like(scores, dtype=torch.bool)
        shown[:, 2] = scores[:, 0] < scores[:, 0].quantile(0.9)
        return shown


@pytest.fixture(scope="module")
def annotations(tiny_model: DiffusionModel) -> Annotations:
    return annotate(tiny_model, SAMPLES, ThreeColors())


@pytest.fixture(scope="module")
def recorded(tiny_model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return collect(tiny_model, SAMPLES, tmp_path_factory.mktemp("linear") / "h.npy")


def test_the_discriminant_is_that_of_the_shrunk_covariance_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    plus, minus = (torch.randn(9, 30, generator=generator, dtype=torch.float64) + shift for shift in (0.4, 0.0))
    within = torch.cat([plus - plus.mean(0), minus - minus.mean(0)]).numpy()
    difference = (plus.mean(0) - minus.mean(0)).numpy()
    expected = np.linalg.solve(LedoitWolf(assume_centered=True).fit(within).covariance_, difference)
    found = discriminant(plus, minus).numpy()
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) == pytest.approx(1, abs=1e-10)
    assert np.linalg.norm(found) == pytest.approx(difference @ found / np.linalg.norm(found))


def test_groups_that_vary_alike_everywhere_give_the_mean_difference() -> None:
    # Two points a group, on a simplex: the covariance within is the same along every direction that it has.
    difference = torch.zeros(6, dtype=torch.float64)
    difference[0] = 2
    spread = (
        torch.eye(6, dtype=torch.float64)[1:].repeat(2, 1) * torch.tensor([1.0, -1.0]).repeat_interleave(5)[:, None]
    )
    found = discriminant(spread + difference, spread)
    torch.testing.assert_close(found, difference, atol=1e-9, rtol=0)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("space", ["h", "x_T"])
def test_a_whitened_direction_fits_its_model(
    tiny_model: DiffusionModel, annotations: Annotations, space: str, joint: bool
) -> None:
    found = whitened(tiny_model, annotations, "green", k=8, space=space, joint=joint)
    found.check(tiny_model)
    plain = supervised(tiny_model, annotations, "green", k=8, space=space)
    assert found.directions.shape == plain.directions.shape
    assert (found.directions * plain.directions).sum() > 0
    assert extremes(annotations, "green", 8).plus[0] in found.meta.seeds


def test_the_regression_is_that_of_scikit_learn(
    tiny_model: DiffusionModel, annotations: Annotations, recorded: Recorded
) -> None:
    found = regression(tiny_model, recorded, annotations, "green")
    found.check(tiny_model)
    assert found.meta.unit == "std"
    scores = standardised(annotations).numpy()
    for step, h in enumerate(np.asarray(recorded.open(), dtype=np.float64)):
        expected = LinearRegression(fit_intercept=False).fit(scores, h).coef_[:, 1]
        np.testing.assert_allclose(found.directions[0, step].flatten(), expected, atol=1e-5 * np.abs(expected).max())


def test_hidden_scores_say_nothing(annotations: Annotations) -> None:
    scores = standardised(annotations)
    assert not annotations.visible[:, 2].all()
    assert (scores[~annotations.visible] == 0).all()
    shown = scores[annotations.visible[:, 2], 2]
    assert shown.mean().abs() < 1e-12 and shown.std(correction=0) == pytest.approx(1)


def test_erased_conditions_are_not_read_off_the_direction(
    tiny_model: DiffusionModel, annotations: Annotations, recorded: Recorded
) -> None:
    plain = supervised(tiny_model, annotations, "green", k=8)
    erased = erase_conditions(plain, recorded, annotations, ["red", "blue"])
    erased.check(tiny_model)
    assert erased.meta.names == ("green without red, blue",)
    shown = annotations.visible[:, [0, 2]].all(dim=1)
    scores = annotations.scores[shown][:, [0, 2]].double().numpy()
    for step, h in enumerate(np.asarray(recorded.open(), dtype=np.float64)):
        points = h[shown.numpy()] - h[shown.numpy()].mean(0)
        covariance = LedoitWolf(assume_centered=True).fit(points).covariance_
        readout = np.linalg.solve(covariance, points.T @ (scores - scores.mean(0)))
        before, after = (
            np.abs(each.directions[0, step].flatten().double().numpy() @ readout) for each in (plain, erased)
        )
        assert (after < 1e-4 * np.maximum(before, before.max())).all()


def test_samples_that_differ_are_refused(tiny_model: DiffusionModel, annotations: Annotations, tmp_path: Path) -> None:
    other = collect(tiny_model, range(1, 41), tmp_path / "h.npy")
    with pytest.raises(InputError, match="same samples"):
        regression(tiny_model, other, annotations, "red")
    with pytest.raises(InputError, match="same samples"):
        erase_conditions(supervised(tiny_model, annotations, "red", k=4), other, annotations, ["blue"])


@pytest.mark.parametrize("find", [supervised, boundary, whitened])
def test_examples_are_read_from_recorded_h_of_these_pictures_alone(
    tiny_model: DiffusionModel, annotations: Annotations, recorded: Recorded, find: Callable[..., Directions]
) -> None:
    drawn, read = (
        find(tiny_model, annotations, "red", k=5, batch_size=4, recorded=each).directions for each in (None, recorded)
    )
    assert (drawn - read).norm() < 1e-4 * drawn.norm() and drawn.any()
    strange = {"tap": ("before",), "eta": (0.0,) * len(annotations.eta), "model": {"network.tensors": "0" * 64}}
    for name, value in strange.items():
        other = replace(recorded, provenance=replace(recorded.provenance, **{name: value}))
        with pytest.raises(InputError, match=f"the recorded samples do not fit: {name}"):
            find(tiny_model, annotations, "red", k=5, recorded=other)


@pytest.mark.parametrize("changed", ["model", "eta"])
def test_scores_of_other_pictures_of_the_same_seeds_erase_nothing(
    tiny_model: DiffusionModel, annotations: Annotations, recorded: Recorded, changed: str
) -> None:
    values: dict[str, Any] = {"model": {"network.tensors": "0" * 64}, "eta": (0.0,) * len(annotations.eta)}
    strange = replace(annotations, provenance=replace(annotations.provenance, **{changed: values[changed]}))
    with pytest.raises(InputError, match=f"the recorded samples do not fit: {changed}"):
        erase_conditions(supervised(tiny_model, annotations, "red", k=4), recorded, strange, ["blue"])
