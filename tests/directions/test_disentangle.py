"""Eq. 12: what is left of a direction is orthogonal to its conditions, and is what the equation says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.identity import WEIGHTS
from hspace.directions.disentangle import disentangle
from hspace.directions.record import Directions, DirectionsMeta
from hspace.types import InputError

Make = Callable[..., Directions]


@pytest.fixture(scope="module")
def make(tiny_model: DiffusionModel) -> Make:
    """Random directions that all have a large part in common, as those of entangled attributes have."""

    def directions(*names: str, seed: int, space: str = "h") -> Directions:
        shape = (3, *tiny_model.h_shape) if space == "h" else tiny_model.sample_shape
        common = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        own = torch.randn(len(names), *shape, generator=torch.Generator().manual_seed(seed))
        meta = DirectionsMeta(
            space=space,
            provenance=tiny_model.provenance(eta=1.0),
            model_id="tiny",
            method="supervised",
            names=names,
            unit="difference",
            seeds=(seed, seed + 1),
            calibration={"strength": 2.0},
        )
        return Directions(3 * common + own, meta)

    return directions


def cosines(a: torch.Tensor, b: torch.Tensor, start: int) -> torch.Tensor:
    """Cosines of all pairs of two sets of vectors, flattened from axis `start`."""
    a, b = (x.double().flatten(start) for x in (a, b))
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    return torch.einsum("k...d,m...d->km...", a, b)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("space", ["h", "x_T"])
def test_the_result_is_orthogonal_to_every_condition(make: Make, space: str, per_step: bool, renormalise: bool) -> None:
    v_0 = make("smile", "glasses", seed=1, space=space)
    conditions = [make("age", seed=2, space=space), make("gender", "hat", seed=3, space=space)]
    if per_step and space == "x_T":
        with pytest.raises(InputError, match="directions of x_T have no steps"):
            disentangle(v_0, conditions, per_step=True)
        return
    v = disentangle(v_0, conditions, per_step=per_step, renormalise=renormalise)
    spanning = torch.cat([condition.directions for condition in conditions])
    start = 2 if per_step else 1
    assert cosines(v_0.directions, spanning, start).abs().min() > 0.5
    assert cosines(v.directions, spanning, start).abs().max() <= 1e-6


def test_the_result_is_equation_12(make: Make) -> None:
    v_0, first, second = make("smile", seed=1), make("age", seed=2), make("hat", seed=3)
    v = disentangle(v_0, [first, second]).directions[0].double().flatten()
    matrix = torch.stack([d.directions[0].double().flatten() for d in (first, second)], dim=1)
    original = v_0.directions[0].double().flatten()
    expected = original - matrix @ torch.linalg.inv(matrix.T @ matrix) @ matrix.T @ original
    assert (v - expected).abs().max() < 1e-6
    assert v.norm() < 0.6 * original.norm()


def test_jointly_is_not_step_by_step(make: Make) -> None:
    v_0, condition = make("smile", seed=1), make("age", seed=2)
    joint, stepwise = (disentangle(v_0, [condition], per_step=per_step) for per_step in (False, True))
    one_step = replace(condition, directions=condition.directions * torch.tensor([1.0, 0, 0])[:, None, None, None])
    assert cosines(joint.directions, condition.directions, 2).abs().max() > 1e-4
    assert cosines(stepwise.directions, condition.directions, 2).abs().max() <= 1e-6
    only_first = disentangle(v_0, [one_step], per_step=True)
    assert torch.equal(only_first.directions[:, 1:], v_0.directions[:, 1:])


@pytest.mark.parametrize("per_step", [False, True])
def test_norm_is_restored_on_request_and_said(make: Make, per_step: bool, tmp_path: Path) -> None:
    v_0, condition = make("smile", "glasses", seed=1), make("age", seed=2)
    projected, restored = (
        disentangle(v_0, [condition], per_step=per_step, renormalise=renormalise) for renormalise in (False, True)
    )
    start = 2 if per_step else 1
    norms = [d.directions.flatten(start).norm(dim=-1) for d in (v_0, projected, restored)]
    assert (norms[1] < 0.8 * norms[0]).all()
    assert (norms[2] / norms[0] - 1).abs().max() < 1e-6
    assert (cosines(projected.directions, restored.directions, start).diagonal() - 1).abs().max() < 1e-6
    assert (projected.meta.unit, restored.meta.unit) == ("difference, projected", "difference, norm restored")
    assert projected.meta.method == "supervised, disentangled" + per_step * " per step"
    assert projected.meta.names == ("smile without age", "glasses without age")
    assert projected.meta.seeds == (1, 2, 3) and projected.meta.calibration is None
    projected.save(tmp_path / "v.safetensors")
    assert torch.equal(Directions.load(tmp_path / "v.safetensors").directions, projected.directions)


def test_conditions_may_depend_on_each_other(make: Make) -> None:
    v_0, first, second = make("smile", seed=1), make("age", seed=2), make("hat", seed=3)
    both = replace(first, directions=first.directions - 2 * second.directions)
    zero = replace(first, directions=torch.zeros_like(first.directions))
    expected = disentangle(v_0, [first, second]).directions
    assert (disentangle(v_0, [first, second, both, first, zero]).directions - expected).abs().max() < 1e-5


def test_twice_is_once(make: Make) -> None:
    v_0, condition = make("smile", seed=1), make("age", seed=2)
    once = disentangle(v_0, [condition])
    assert (disentangle(once, [condition]).directions - once.directions).abs().max() < 1e-6


def test_spanned_directions_are_refused(make: Make) -> None:
    v_0, first, second = make("smile", "hat", seed=1), make("age", seed=2), make("gender", seed=3)
    mixture = first.directions[0] - 0.3 * second.directions[0]
    spanned = replace(v_0, directions=torch.stack([v_0.directions[0], mixture]))
    with pytest.raises(InputError, match=r"the conditions span hat: .* of its norm remains, at least 0.001 must"):
        disentangle(spanned, [first, second])
    at_one_step = spanned.directions.clone()
    at_one_step[1, :2] = v_0.directions[1, :2]
    with pytest.raises(InputError, match=r"the conditions span hat at step 2"):
        disentangle(replace(v_0, directions=at_one_step), [first, second], per_step=True)


def test_bad_conditions(make: Make) -> None:
    v_0, condition = make("smile", seed=1), make("age", seed=2)
    with pytest.raises(InputError, match="at least one condition, got none"):
        disentangle(v_0, [])
    with pytest.raises(InputError, match="condition age does not fit: space is x_T, of the direction h"):
        disentangle(v_0, [make("age", seed=2, space="x_T")])
    strange = replace(condition.meta.provenance, model={WEIGHTS: "f" * 64})
    other = replace(condition, meta=replace(condition.meta, provenance=strange))
    with pytest.raises(InputError, match=r"the conditions age do not fit: model is"):
        disentangle(v_0, [condition, other])
