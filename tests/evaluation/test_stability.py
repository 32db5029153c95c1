import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hspace.diffusion.identity import WEIGHTS
from hspace.diffusion.provenance import ProcessFacts, Provenance
from hspace.directions.record import Directions, DirectionsMeta
from hspace.evaluation.stability import at_timesteps, principal_angles, stability
from hspace.types import InputError


def _directions(vectors: Tensor, timesteps: tuple[int, ...] = (900, 500, 100), space: str = "h") -> Directions:
    process = ProcessFacts(timesteps, (), "epsilon")
    eta = tuple(0.1 * i for i in range(len(timesteps)))
    meta = DirectionsMeta(
        space=space, provenance=Provenance({WEIGHTS: "0" * 64}, process, ("after",), eta=eta), model_id="made",
        method="made", names=tuple(f"d{j}" for j in range(len(vectors))), unit="std",
    )  # fmt: skip
    return Directions(vectors, meta)


def _random(seed: int) -> Tensor:
    return torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_angles_known_in_closed_form() -> None:
    e = torch.eye(5, dtype=torch.float64)
    tilted = torch.stack([math.cos(1e-9) * e[0] + math.sin(1e-9) * e[3], math.cos(0.7) * e[1] + math.sin(0.7) * e[4]])
    angles = principal_angles(e[:2], tilted)
    assert float(angles[0].deg2rad()) == pytest.approx(1e-9, rel=1e-6)  # a cosine would say 0
    assert float(angles[1].deg2rad()) == pytest.approx(0.7, abs=1e-12)
    assert principal_angles(e[:2], e[2:]).tolist() == pytest.approx([90, 90])
    assert principal_angles(e[:3], e[2:3]).tolist() == pytest.approx([0])


def test_scale_sign_order_and_mixing_do_not_matter() -> None:
    vectors = _random(0)
    mixed = torch.einsum("ij,j...->i...", torch.tensor([[0.0, -1e-4], [30.0, 2.0]]), vectors)
    assert principal_angles(vectors, mixed).max() < 1e-3
    with pytest.raises(InputError, match="linearly dependent"):
        principal_angles(vectors, torch.cat([vectors, 2 * vectors[:1]]))


def test_the_matrix_compares_every_pair_whole_or_step_by_step() -> None:
    first, other = _random(0), _random(1)
    half = first.clone()
    half[:, 1:] = other[:, 1:]
    sets = [_directions(first), _directions(half), _directions(other)]
    whole, steps = stability(sets), stability(sets, per_step=True)
    assert whole.shape == (3, 3) and steps.shape == (3, 3, 3)
    assert np.allclose(whole, whole.T) and np.allclose(np.diagonal(whole), 0)
    assert steps[0, 0, 1] < 1e-3 and steps[1, 1, 2] < 1e-3 and steps[1, 0, 1] > 30
    assert whole[0, 2] == pytest.approx(float(principal_angles(first, other).mean()))


def test_directions_are_taken_at_the_nearest_model_time() -> None:
    directions = _directions(_random(0))
    taken = at_timesteps(directions, (880, 750, 600, 20))
    assert torch.equal(taken.directions, directions.directions[:, [0, 0, 1, 2]])
    assert taken.meta.timesteps == (880, 750, 600, 20) and taken.meta.eta == (0.0, 0.0, 0.1, 0.2)


def test_mistakes_are_named() -> None:
    directions = _directions(_random(0))
    x_t = _directions(_random(0)[:, 0], space="x_T")
    with pytest.raises(InputError, match="at the same model times"):
        stability([directions, at_timesteps(directions, (900, 100))])
    with pytest.raises(InputError, match="at least two sets"):
        stability([directions])
    with pytest.raises(InputError, match="no steps to compare"):
        stability([x_t, replace(x_t)], per_step=True)
    with pytest.raises(InputError, match="no steps to be taken"):
        at_timesteps(x_t, (900,))
