import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torch.nn.functional import normalize
from torchmetrics.functional import pairwise_cosine_similarity

from hspace.metrics.identity import (
    IdentityPreservation,
    identity_preservation,
    stranger_threshold,
    true_accept_rate,
)
from hspace.types import InputError


def _embeddings(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(n, 16, generator=generator)
    edited = original + torch.randn(n, 16, generator=generator)
    return normalize(original, dim=1), normalize(edited, dim=1)


def test_mean_cosine_equals_torchmetrics_and_interval_is_the_textbooks() -> None:
    original, edited = _embeddings()
    cosines = pairwise_cosine_similarity(original.double(), edited.double()).diagonal()
    interval = identity_preservation(original, edited)
    assert abs(interval.value - float(cosines.mean())) < 1e-6
    # As wide as Student's; cosines are skewed towards strangers, and so is the interval.
    half = 2.0227 * float(cosines.std()) / 40**0.5
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.1)
    assert interval.value - interval.low > interval.high - interval.value
    assert interval.n == 40


def test_the_same_person_is_1_and_the_opposite_is_minus_1() -> None:
    original, _ = _embeddings()
    assert identity_preservation(original, original).value == pytest.approx(1, abs=1e-6)
    assert identity_preservation(original, -original).value == pytest.approx(-1, abs=1e-6)


def test_batches_add_up() -> None:
    original, edited = _embeddings()
    parts = IdentityPreservation()
    for a, b in zip(original.split(7), edited.split(7), strict=True):
        parts.update(a, b)
    difference = torch.tensor(parts.compute()) - torch.tensor(identity_preservation(original, edited))
    assert difference.abs().max() < 1e-12


def test_bad_input_is_named() -> None:
    original, edited = _embeddings()
    with pytest.raises(InputError, match=r"unit norm, got a norm of 2"):
        identity_preservation(original, 2 * edited)
    with pytest.raises(InputError, match="unit norm, got a norm of nan"):
        identity_preservation(original, edited * torch.nan)
    with pytest.raises(InputError, match=r"\(40, 16\) and \(39, 16\)"):
        identity_preservation(original, edited[:39])


def test_fewer_than_ten_pairs_say_nothing() -> None:
    original, edited = _embeddings(9)
    interval = identity_preservation(original, edited)
    assert np.isnan(interval[:3]).all() and interval.n == 9


def test_true_accept_rate_is_a_point_of_the_roc_curve() -> None:
    original, edited = _embeddings(200)
    cosine = original @ edited.T
    same = torch.eye(200, dtype=torch.bool)
    false_positive, true_positive, _ = roc_curve(same.flatten(), cosine.flatten(), drop_intermediate=False)
    for allowed in (0.01, 0.1):
        expected = float(true_positive[false_positive <= allowed].max())
        assert 0.1 < expected < 1
        assert true_accept_rate(original, edited, allowed) == pytest.approx(expected, abs=1 / 200)
    assert true_accept_rate(original, original) == 1.0
    with pytest.raises(InputError, match="one shape"):
        true_accept_rate(original, edited[:3])


def test_strangers_pass_the_threshold_as_seldom_as_asked() -> None:
    people, _ = _embeddings(60)
    cosine = people.double() @ people.double().T
    different = cosine[~torch.eye(60, dtype=torch.bool)]
    for share in (0.01, 0.2):
        passed = float((different > stranger_threshold(people, share)).double().mean())
        assert passed == pytest.approx(share, abs=1e-3)
    with pytest.raises(InputError, match="needs"):
        stranger_threshold(people[:1])
