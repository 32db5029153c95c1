import math

import pytest
import torch

from hspace.metrics.accuracy import EditAccuracy, edit_accuracy
from hspace.types import InputError


def test_only_samples_that_could_flip_count_on_either_side() -> None:
    original = torch.tensor([0.1] * 20 + [0.9] * 30)
    edited = torch.tensor([0.8] * 5 + [0.2] * 15 + [0.9] * 18 + [0.3] * 12)
    up, down = (edit_accuracy(original, edited, binary=True, strength=s) for s in (2.0, -2.0))
    assert (up.value, up.n) == (5 / 20, 20)
    assert (down.value, down.n) == (12 / 30, 30)


def test_an_edit_that_does_nothing_has_no_accuracy_whatever_the_base_rate() -> None:
    scores = torch.rand(100, generator=torch.Generator().manual_seed(0)) ** 3
    for binary in (True, False):
        for strength in (1.0, -1.0):
            found = edit_accuracy(scores, scores, binary=binary, strength=strength)
            assert found.value == 0.0 and found.high > 0.0


def test_continuous_sides_meet_at_the_median_of_the_unedited() -> None:
    scores = torch.randn(100, generator=torch.Generator().manual_seed(0)) * 30 + 7
    assert edit_accuracy(scores, scores + 1e3, binary=False, strength=1.0)[::3] == (1.0, 50)
    assert edit_accuracy(scores, scores + 1e3, binary=False, strength=-1.0).value == 0.0


def test_batches_add_up() -> None:
    generator = torch.Generator().manual_seed(1)
    original, edited = torch.rand(30, generator=generator), torch.rand(30, generator=generator)
    whole, parts = EditAccuracy(0.6, 1.0), EditAccuracy(0.6, 1.0)
    whole.update(original, edited)
    for before, after in zip(original.split(7), edited.split(7), strict=True):
        parts.update(before, after)
    assert whole.compute() == parts.compute() and whole.compute().n > 10


def test_fewer_than_ten_that_could_flip_say_nothing() -> None:
    original = torch.tensor([0.1] * 9 + [0.9] * 100)
    found = edit_accuracy(original, original, binary=True, strength=1.0)
    assert math.isnan(found.value) and found.n == 9


def test_an_edit_of_no_strength_is_named() -> None:
    with pytest.raises(InputError, match="strength other than 0"):
        EditAccuracy(0.5, 0.0)
