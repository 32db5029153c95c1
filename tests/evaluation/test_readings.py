"""Readings of edits: effects, intervals, and changes by sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hspace.evaluation.readings import Readings, Sweep, finite


class TwoColumns:
    """Reads nothing; the second attribute is visible where the first is positive."""

    id, attributes, binary = "two", ("a", "b"), (False, False)

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def visible(self, scores: Tensor) -> Tensor:
        return torch.stack([torch.ones(len(scores), dtype=torch.bool), scores[:, 0] > 0], dim=1)


@pytest.fixture
def readings() -> Readings:
    original = torch.tensor([[1.0, 0.0], [2.0, 1.0], [-1.0, 9.0], [3.0, 2.0]]).repeat(3, 1)
    edited = torch.stack([original + torch.tensor([0.5, 1.0]), original + torch.tensor([0.0, 3.0])])
    cosine = torch.tensor([[1.0, 0.8, 0.6, 1.0], [0.5, 0.5, 0.5, 0.5]]).repeat(1, 3)
    unedited = torch.tensor([1.0, 0.0]).expand(12, 1, 2)
    people = torch.cat([unedited, torch.stack([cosine, (1 - cosine**2).sqrt()], dim=2).transpose(0, 1)], dim=1)
    images = torch.zeros(1, 3, 3, 4, 4)
    unit = torch.tensor([0.5, 2.0])
    return Readings(TwoColumns(), ("x", "y"), tuple(range(12)), original, edited, people, images, unit)


def test_effects_are_in_the_given_unit_and_leave_out_what_cannot_be_seen(readings: Readings) -> None:
    assert readings.effects().effect[:, 0] == pytest.approx([1.0, 0.0])
    assert np.isnan(readings.effects().effect[:, 1]).all(), "nine samples are too few"
    assert readings.effects().n.tolist() == [[12, 9], [12, 9]]
    assert readings.visible[0, :4, 1].tolist() == [True, True, False, True]


def test_identity_has_its_interval(readings: Readings) -> None:
    assert readings.identity(1).value == pytest.approx(0.5) and np.isnan(readings.identity(1).low), "the same for all"
    assert readings.identity(0).value == pytest.approx(0.85) and readings.identity(0).low < 0.85
    assert readings.identity(0).n == 12


def test_likeness_is_read_where_an_encoder_is_there(readings: Readings) -> None:
    assert readings.likeness(0) is None and readings.table().columns[-1] == "identity"
    both = replace(readings, features=readings.people.flip(1))
    found = both.likeness(0)
    assert found is not None and found.value != pytest.approx(readings.identity(0).value)
    assert both.features is not None
    by_hand = (both.features[:, 1] * both.features[:, 0]).sum(-1).mean()
    assert found.value == pytest.approx(float(by_hand))
    assert both.table().columns[-2:] == ("identity", "likeness") and both.table().rows[0][-2:] == (1.0, 1.0)


def test_changes_are_by_sample_and_unknown_where_hidden(readings: Readings) -> None:
    assert readings.changes(1, "b") == pytest.approx([1.5, 1.5, np.nan, 1.5] * 3, nan_ok=True)


def test_a_sweep_knows_its_rows(readings: Readings) -> None:
    sweep = Sweep(("only",), (-1.0, 1.0), readings)
    assert sweep.row(0, 1.0) == 1 and sweep.at(-1.0) == [0]


def test_numbers_become_json(readings: Readings) -> None:
    assert finite(np.array([[1.0, np.nan]])) == [[1.0, None]]
