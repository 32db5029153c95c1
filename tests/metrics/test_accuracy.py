import pytest
import torch
from sklearn.metrics import accuracy_score

from hspace.metrics.accuracy import EditAccuracy, edit_accuracy, wilson
from hspace.types import InputError


def test_binary_accuracy_equals_sklearn_on_both_sides() -> None:
    scores = torch.rand(50, generator=torch.Generator().manual_seed(0))
    above = (scores > 0.5).tolist()
    for strength, asked in ((2.0, True), (-2.0, False)):
        value = edit_accuracy(scores, scores, binary=True, strength=strength).value
        assert value == pytest.approx(accuracy_score([asked] * 50, above), abs=1e-12)


def test_continuous_accuracy_is_half_for_an_edit_that_does_nothing() -> None:
    scores = torch.randn(100, generator=torch.Generator().manual_seed(0)) * 30 + 7
    for strength in (1.0, -1.0):
        assert edit_accuracy(scores, scores, binary=False, strength=strength).value == 0.5
    assert edit_accuracy(scores, scores + 1e3, binary=False, strength=1.0).value == 1
    assert edit_accuracy(scores, scores + 1e3, binary=False, strength=-1.0).value == 0


def test_batches_add_up() -> None:
    scores = torch.rand(30, generator=torch.Generator().manual_seed(1))
    whole, parts = EditAccuracy(0.4, 1.0), EditAccuracy(0.4, 1.0)
    whole.update(scores)
    for part in scores.split(7):
        parts.update(part)
    assert whole.compute() == parts.compute()


def test_wilson_interval_equals_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, total), (low, high) in published.items():
        interval = wilson(hits, total)
        assert max(abs(interval.low - low), abs(interval.high - high)) < 5e-5


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="strength other than 0"):
        EditAccuracy(0.5, 0.0)
    with pytest.raises(InputError, match="at least one image"):
        wilson(0, 0)
