"""Readings of edits: effects, intervals, and resamples that combine cells."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hspace.evaluation.readings import (
    Readings,
    Sweep,
    bootstrap_weights,
    bootstrapped,
    chosen,
    effect_of,
    finite,
    mean_interval,
)
from hspace.metrics.interval import Interval


class TwoColumns:
    """Reads nothing; the second attribute is visible where the first is positive."""

    id, attributes, binary = "two", ("a", "b"), (False, False)

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def visible(self, scores: Tensor) -> Tensor:
        return torch.stack([torch.ones(len(scores), dtype=torch.bool), scores[:, 0] > 0], dim=1)


@pytest.fixture
def readings() -> Readings:
    original = torch.tensor([[1.0, 0.0], [2.0, 1.0], [-1.0, 9.0], [3.0, 2.0]])
    edited = torch.stack([original + torch.tensor([0.5, 1.0]), original + torch.tensor([0.0, 3.0])])
    cosine = torch.tensor([[1.0, 0.8, 0.6, 1.0], [0.5, 0.5, 0.5, 0.5]])
    unedited = torch.tensor([1.0, 0.0]).expand(4, 1, 2)
    people = torch.cat([unedited, torch.stack([cosine, (1 - cosine**2).sqrt()], dim=2).transpose(0, 1)], dim=1)
    images = torch.zeros(1, 3, 3, 4, 4)
    unit = torch.tensor([0.5, 2.0])
    return Readings(TwoColumns(), ("x", "y"), (1, 2, 3, 4), original, edited, people, images, unit, bootstrap=100)


def test_effects_are_in_the_given_unit_and_leave_out_what_cannot_be_seen(readings: Readings) -> None:
    effects = readings.effects()
    assert effects.effect == pytest.approx(np.array([[1.0, 0.5], [0.0, 1.5]]))
    assert readings.visible[0, :, 1].tolist() == [True, True, False, True]


def test_the_first_of_all_resamples_is_the_estimate(readings: Readings) -> None:
    draws = bootstrapped(readings, 200, seed=0)
    assert draws.shape == (201, 2, 2)
    assert draws[0] == pytest.approx(readings.effects().effect)
    # The change is the same in every sample, so that no resample differs.
    assert np.nanmax(np.abs(draws - draws[0])) < 1e-9


def test_resamples_draw_as_many_as_there_are() -> None:
    weights = bootstrap_weights(5, 50, seed=1)
    assert (weights.sum(axis=1) == 5).all() and (weights[0] == 1).all()


def test_identity_has_its_interval(readings: Readings) -> None:
    assert readings.identity(1) == pytest.approx(Interval(0.5, 0.5, 0.5))
    assert readings.identity(0).value == pytest.approx(0.85) and readings.identity(0).low < 0.85


def test_a_single_value_has_no_width() -> None:
    assert mean_interval(np.array([2.0])) == Interval(2.0, 2.0, 2.0)


def test_a_sweep_knows_its_rows(readings: Readings) -> None:
    sweep = Sweep(("only",), (-1.0, 1.0), readings)
    assert sweep.row(0, 1.0) == 1 and sweep.at(-1.0) == [0]


def test_rows_of_a_matrix_under_other_names(readings: Readings) -> None:
    matrix = chosen(readings.effects(), [1], ["renamed"])
    assert matrix.edits == ("renamed",) and effect_of(matrix, 0, "b").value == pytest.approx(1.5)


def test_numbers_become_json(readings: Readings) -> None:
    assert finite(np.array([[1.0, np.nan]])) == [[1.0, None]]
