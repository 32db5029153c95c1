from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.identity import WEIGHTS
from hspace.diffusion.provenance import ProcessFacts, Provenance
from hspace.diffusion.recording import Recorded, collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.record import Directions, DirectionsMeta
from hspace.evaluation.manifold import fit_gaussian, off_manifold, own_gaussian
from hspace.types import InputError

SHAPE, D, N, RANK = (3, 2, 2), 12, 60, 4


def _recorded(path: Path, seed: int = 0) -> tuple[Recorded, np.ndarray]:
    """Two steps of h whose sample mean and covariance are exact, and the covariances, (2, d, d)."""
    rng = np.random.default_rng(seed)
    steps, covariances = [], []
    for step in range(2):
        axes, _ = np.linalg.qr(rng.standard_normal((D, D)))
        scales = np.array([9.0, 5.0, 4.0, 3.0] + [0.5] * (D - RANK)) * (1 + step)
        noise = rng.standard_normal((N, D))
        white, _ = np.linalg.qr(noise - noise.mean(axis=0))
        steps.append(step + white * (N - 1) ** 0.5 * scales**0.5 @ axes.T)
        covariances.append((axes * scales) @ axes.T)
    origin = Provenance({WEIGHTS: "0" * 64}, ProcessFacts((500, 0), (), "epsilon"), ("after",), eta=(1.0, 1.0))
    np.save(path, np.stack(steps).astype(np.float32))
    recorded = Recorded(path, tuple(range(N)), SHAPE, origin)
    return recorded, np.stack(covariances)


def make_directions(model: DiffusionModel) -> Directions:
    torch.manual_seed(1)
    steps = len(model.process.timesteps)
    meta = DirectionsMeta(
        space="h", provenance=model.provenance(eta=1.0), model_id=model.model_id,
        method="made", names=tuple(f"direction {j}" for j in range(2)), unit="unit norm",
    )  # fmt: skip
    return Directions(torch.randn(2, steps, *model.h_shape), meta)


def test_the_distance_is_that_of_the_covariance_that_the_samples_have(tmp_path: Path) -> None:
    recorded, covariances = _recorded(tmp_path / "h.npy")
    gaussian = fit_gaussian(recorded, RANK)
    assert gaussian.rank == RANK and gaussian.residual.tolist() == pytest.approx([0.5, 1.0], rel=1e-5)
    h = torch.randn(5, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = gaussian.distance(h)
    for step in range(2):
        centred = h[:, step].flatten(1).double().numpy() - step
        squared = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariances[step]), centred)
        assert found[:, step].numpy() == pytest.approx(np.sqrt(squared / D), rel=1e-4)


def test_the_samples_themselves_are_at_1(tmp_path: Path) -> None:
    recorded, _ = _recorded(tmp_path / "h.npy")
    h = torch.from_numpy(np.array(recorded.open()).swapaxes(0, 1)).unflatten(2, SHAPE)
    for rank in (1, RANK, 10):
        # The trace of C^-1 S is d for any rank, since both have the same variance in and outside the components.
        squared = fit_gaussian(recorded, rank).distance(h).square().mean(dim=0)
        assert squared.tolist() == pytest.approx([(N - 1) / N] * 2, rel=1e-5)


def test_the_usual_rank_fits_few_features(tmp_path: Path) -> None:
    recorded, _ = _recorded(tmp_path / "h.npy")
    assert own_gaussian(recorded).components.shape == (2, 11, 12), "12 features have 11 components and a rest"


def test_few_samples_do_not_put_unseen_ones_far_away(tmp_path: Path) -> None:
    """Standard normal features, of which every sample is 1 away in truth."""
    rows = torch.randn(2, 110, 400, generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "few.npy", rows[:, :10].numpy())
    recorded, _ = _recorded(tmp_path / "h.npy")
    few = replace(recorded, path=tmp_path / "few.npy", seeds=recorded.seeds[:10], h_shape=(400,))
    unseen = rows[:, 10:].transpose(0, 1)
    found, most = (each.distance(unseen).mean() for each in (own_gaussian(few), fit_gaussian(few, 8)))
    assert found < 1.5 and most > 3


def test_mistakes_are_named(tmp_path: Path) -> None:
    recorded, _ = _recorded(tmp_path / "h.npy")
    with pytest.raises(InputError, match="rank must be from 1 to 11 for 60 samples of 12 features, got 12"):
        fit_gaussian(recorded, 12)
    with pytest.raises(InputError, match="needs 3 samples and 2 features at least, got 2 and 12"):
        np.save(tmp_path / "two.npy", np.array(recorded.open())[:, :2])
        own_gaussian(replace(recorded, path=tmp_path / "two.npy", seeds=recorded.seeds[:2]))
    with pytest.raises(InputError, match=r"h must be \(2, 12\) steps and features"):
        fit_gaussian(recorded, 2).distance(torch.zeros(1, 3, *SHAPE))


def test_the_cost_of_an_edit_is_how_much_farther_h_lies(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    directions, seeds = make_directions(tiny_model), range(100, 105)
    gaussian = fit_gaussian(collect(tiny_model, range(12), tmp_path / "h.npy"), rank=3)
    nothing = off_manifold(tiny_model, directions, gaussian, seeds, component=1, strength=0.0)
    assert nothing.abs().max() < 1e-5

    costs = off_manifold(
        tiny_model, directions, gaussian, seeds, component=1, strength=2.0, sampler=Sampler(start=1, batch_size=2)
    )
    latents, delta = tiny_model.latents(seeds), 2 * directions.directions[1:2]
    delta[:, 0] = 0
    before = sample(tiny_model, latents, record_h=True).h
    after = sample(tiny_model, latents, delta_h=delta, record_h=True).h
    assert before is not None and after is not None
    expected = gaussian.distance(after + delta) - gaussian.distance(before)
    assert torch.allclose(costs, expected, rtol=1e-3, atol=1e-5)
    assert costs[:, 0].abs().max() < 1e-5 and costs[:, 1].min() > 0
    with pytest.raises(InputError, match="at least two samples, got 1"):
        off_manifold(tiny_model, directions, gaussian, [100], component=0, strength=1.0)


def test_an_edit_of_x_t_has_a_cost_too(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    made = make_directions(tiny_model)
    offsets = torch.randn(2, *tiny_model.sample_shape, generator=torch.Generator().manual_seed(0))
    directions = Directions(offsets, replace(made.meta, space="x_T"))
    gaussian = fit_gaussian(collect(tiny_model, range(12), tmp_path / "h.npy"), rank=3)
    costs = off_manifold(tiny_model, directions, gaussian, range(100, 104), component=0, strength=4.0)
    assert costs.shape == (4, 3) and costs[:, 0].mean() > 0.01
