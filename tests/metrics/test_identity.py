import pytest
import torch
from sklearn.metrics import roc_curve
from torch.nn.functional import normalize
from torchmetrics.functional import pairwise_cosine_similarity

from hspace.metrics.identity import (
    IdentityPreservation,
    identity_drift,
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


def test_mean_cosine_equals_torchmetrics_and_interval_the_textbook() -> None:
    original, edited = _embeddings()
    cosines = pairwise_cosine_similarity(original.double(), edited.double()).diagonal()
    interval = identity_preservation(original, edited)
    assert abs(interval.value - float(cosines.mean())) < 1e-6
    half = 1.959964 * float(cosines.std()) / 40**0.5
    assert abs(interval.high - interval.value - half) < 1e-6
    assert abs(interval.value - interval.low - half) < 1e-6


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
    with pytest.raises(InputError, match="at least two pairs"):
        identity_preservation(original[:1], edited[:1])


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


def test_drift_is_the_loss_of_identity_per_unit_of_effect() -> None:
    original, edited = _embeddings()
    change = torch.linspace(-3.0, -1.0, 40)
    loss = 1 - pairwise_cosine_similarity(original.double(), edited.double()).diagonal()
    drift = identity_drift(original, edited, change, seed=0)
    assert drift.value == pytest.approx(float(loss.mean()) / 2, rel=1e-6)
    assert drift.low < drift.value < drift.high
    twice = identity_drift(original, edited, 2 * change, seed=0)
    assert twice == pytest.approx(tuple(each / 2 for each in drift))
    assert identity_drift(original, edited, torch.zeros(40), seed=0).value == float("inf")
    assert identity_drift(original, original, change, seed=0).value == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="n changes"):
        identity_drift(original, edited, change[:5], seed=0)


def test_strangers_pass_the_threshold_as_seldom_as_asked() -> None:
    people, _ = _embeddings(60)
    cosine = people.double() @ people.double().T
    different = cosine[~torch.eye(60, dtype=torch.bool)]
    for share in (0.01, 0.2):
        passed = float((different > stranger_threshold(people, share)).double().mean())
        assert passed == pytest.approx(share, abs=1e-3)
    with pytest.raises(InputError, match="needs"):
        stranger_threshold(people[:1])
