"""Mixtures in the space of effects, on edits whose effects are known functions, and through a real run."""

import csv
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor

from hspace.cli import main
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.counter import find, mixture, single_steps, unit_norm
from hspace.directions.method import Sources
from hspace.directions.record import Directions
from hspace.metrics.effect import EffectMatrix, effect_matrix
from hspace.runs.parsing import settings_of
from hspace.system import distributed
from hspace.types import InputError

NAMES = ("smile", "gender", "age")
MATRIX = torch.tensor([[1.5, 0.9, -0.4], [0.3, 2.0, 0.5], [-0.2, 0.4, 1.2]], dtype=torch.float64)
AXES = torch.linalg.qr(torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0].T


class Judge:
    """Effects of vectors as a function of their coordinates along three axes, and how often they were asked for."""

    def __init__(self, effect: Callable[[Tensor], Tensor] = lambda change: change) -> None:
        self.effect, self.asked = effect, 0

    def __call__(self, vectors: Tensor) -> EffectMatrix:
        self.asked += 1
        change = self.effect(vectors.double() @ AXES.T @ MATRIX)
        before = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None].expand(40, 3)
        noise = torch.linspace(-1e-4, 1e-4, 40, dtype=torch.float64)[:, None]
        edited = before + noise + change[:, None]
        return effect_matrix(
            before, edited, attributes=NAMES, binary=(False,) * 3, edits=["mixed"] * len(vectors), unit=torch.ones(3)
        )


def test_linear_effects_reach_one_attribute_alone() -> None:
    judge, order = Judge(), [1, 0, 2]
    weights = mixture(AXES[order], judge, "gender", ridge=0.0)
    np.testing.assert_allclose(judge((weights.double() @ AXES[order])[None]).effect, [[0, 1, 0]], atol=1e-5)
    np.testing.assert_allclose(weights, np.linalg.solve(MATRIX[order].T, [0, 1, 0]), atol=1e-5)
    # The vectors, the mixture, and one that is not more selective; the last is this test's own.
    assert judge.asked == 4


def test_a_ridge_is_the_price_of_the_length_in_the_vectors_own_angles() -> None:
    lean = 1.5 * unit_norm(AXES + torch.tensor([[0.0], [0.7], [0.0]]) * AXES[:1])
    seen = (lean @ AXES.T @ MATRIX).numpy()
    gram = (lean @ lean.T).numpy()
    assert abs(gram[0, 1]) > 0.5
    weights = mixture(lean, Judge(), "smile", ridge=0.2, rounds=1)
    expected = np.linalg.solve(seen @ seen.T + 0.2 * gram / gram[0, 0], seen @ [1, 0, 0])
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    free = mixture(lean, Judge(), "smile", ridge=0.0)
    assert (weights @ lean.float()).norm() < (free @ lean.float()).norm()


def test_what_is_missing_is_measured_and_solved_for_again() -> None:
    def curved(change: Tensor) -> Tensor:
        return change + 0.1 * change * change.roll(1, dims=1)

    shares = []
    for rounds in (1, 3):
        judge = Judge(curved)
        mixed = mixture(AXES, judge, "smile", ridge=0.0, rounds=rounds).double() @ AXES
        found = judge(mixed[None])
        shares.append(found.selectivity_of(0, "smile").value)
    own = Judge(curved)(AXES[:1]).selectivity_of(0, "smile").value
    assert own < shares[0] < shares[1]


def test_a_mixture_that_is_not_more_selective_is_not_taken() -> None:
    def effect(change: Tensor) -> Tensor:
        """The vectors by themselves are seen as they are, any mixture of them moves all alike."""
        return change if len(change) == 3 else torch.ones_like(change)

    judge = Judge(effect)
    weights = mixture(AXES, judge, "smile", ridge=0.01)
    np.testing.assert_allclose(weights, [1 / 1.5, 0, 0], atol=1e-5)
    assert judge.asked == 2


def test_a_time_profile_takes_the_steps_that_move_one_attribute_alone() -> None:
    # Early the direction moves smile and gender, in the middle smile, late age.
    seen = torch.tensor([[0.6, 0.8, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.7]]).double()
    direction = seen @ MATRIX.inverse() @ AXES
    steps = single_steps(direction)
    torch.testing.assert_close(steps.sum(0), direction)

    def judge(vectors: Tensor) -> EffectMatrix:
        return Judge()(vectors.sum(dim=1))

    vectors = torch.cat([direction[None], steps])
    weights = mixture(vectors, judge, "smile", ridge=0.0)
    profile = weights[0] + weights[1:]
    np.testing.assert_allclose(profile, [0, 2, 0], atol=1e-5)
    assert judge(vectors).selectivity_of(0, "smile").value < 0.5
    mixed = torch.einsum("m,m...->...", weights.double(), vectors)[None]
    np.testing.assert_allclose(judge(mixed).effect, [[1, 0, 0]], atol=1e-5)


def test_it_runs_in_one_process(monkeypatch: pytest.MonkeyPatch, tiny_model: DiffusionModel) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(InputError, match="method=counter measures its mixtures in one process, got 2"):
        find(tiny_model, MagicMock(spec=Sources), settings_of({"name": "counter"}))


def test_an_attribute_that_does_not_move_is_refused() -> None:
    with pytest.raises(InputError, match="the effect of the direction of smile on it is unknown"):
        mixture(AXES, Judge(lambda change: 0 * change), "smile")


@pytest.mark.slow
def test_a_counter_edit_from_the_command_line(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    words = [
        "diffusion.num_steps=3", "edit.strengths=[-1,1]", "evaluation.num_samples=10", "batch_size=64", "device=cpu",
        "evaluation.reference_samples=12", "evaluation.calibration_samples=12", "tracking.mode=disabled",
        "method=counter", "method.attribute=skin", "method.conditions=[]", "method.base=supervised", "method.k=4",
        "method.by_step=true",
        "method.num_samples=12", f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert main([*words, f"output_dir={tmp_path / 'out'}"]) == 0
    found = Directions.load(tmp_path / "out" / "directions.safetensors")
    assert found.meta.unit == "sd of skin" and list(found.meta.settings["weights"]) == [
        "skin", "skin at step 0", "skin at step 1", "skin at step 2"
    ]  # fmt: skip
    with (tmp_path / "out" / "tables" / "directions.csv").open() as file:
        assert [row["target"] for row in csv.DictReader(file)] == ["skin", "skin"]
    # The measured scores are kept, and a smaller number of them is another result.
    kept = len(list((tmp_path / "cache" / "effects").iterdir()))
    assert main([*words, "method.rounds=2", f"output_dir={tmp_path / 'two'}"]) == 0
    assert len(list((tmp_path / "cache" / "effects").iterdir())) == kept
    assert main([*words, "evaluation.calibration_samples=10", f"output_dir={tmp_path / 'ten'}"]) == 0
    assert len(list((tmp_path / "cache" / "effects").iterdir())) > kept


@pytest.mark.slow
def test_counter_edits_of_two_attributes_share_what_was_measured_of_their_directions(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    words = [
        "diffusion.num_steps=2", "edit.strengths=[1]", "evaluation.num_samples=10", "batch_size=64", "device=cpu",
        "evaluation.reference_samples=12", "evaluation.calibration_samples=12", "tracking.mode=disabled",
        "method=counter", "method.base=supervised", "method.k=4", "method.rounds=1", "method.num_samples=12",
        f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    kept = []
    for one, other in (("skin", "age"), ("age", "skin")):
        given = [f"method.attribute={one}", f"method.conditions=[{other}]", f"output_dir={tmp_path / one}"]
        assert main([*words, *given]) == 0
        kept.append(len(list((tmp_path / "cache" / "effects").rglob("rows.safetensors"))))
    # The unedited samples, two directions and a mixture; then another mixture alone.
    assert kept == [4, 5]
