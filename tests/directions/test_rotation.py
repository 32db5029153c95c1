"""Rotations of joint components: what they keep, what they raise, and what they recover."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition._factor_analysis import _ortho_rotation
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import collect
from hspace.directions.pca import PcaSettings, pca
from hspace.directions.rotation import Rotation, rotated, varimax
from hspace.directions.solvers import StepPCA, gram_pca
from hspace.types import InputError

BOTH = pytest.mark.parametrize("rotation", ["varimax", "ica"])


def planted(n: int = 2000, d: int = 60, k: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples of k independent, heavy-tailed sources of equal size, each seen in its own few features."""
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(n, k)) / np.sqrt(2)
    loadings = np.zeros((d, k))
    for j in range(k):
        loadings[10 * j : 10 * j + 10, j] = rng.uniform(0.8, 1.2, size=10)
    samples = sources @ loadings.T + 0.01 * rng.normal(size=(n, d)) + 3
    return samples.astype(np.float32), sources, loadings


def solution(k: int = 4) -> StepPCA:
    return gram_pca(planted()[0][None], k)


def criterion(loadings: Tensor) -> float:
    """Kaiser's: the variance of the squared entries of each column, summed."""
    return float(loadings.square().var(dim=0, unbiased=False).sum())


@BOTH
def test_the_samples_stay_what_they_were(rotation: Rotation) -> None:
    before = solution()
    after = rotated(before, rotation)
    torch.testing.assert_close(after.components.norm(dim=1), torch.ones(4))
    samples = [each.projections @ each.components.double() for each in (before, after)]
    torch.testing.assert_close(samples[1], samples[0], atol=1e-4, rtol=0)
    # Scores stay uncorrelated, with the variance that is said.
    covariance = torch.cov(after.projections.T)
    torch.testing.assert_close(covariance, after.explained_variance.diag(), atol=1e-5, rtol=0)
    assert (after.explained_variance.diff() <= 0).all()
    torch.testing.assert_close(after.explained_variance.sum(), before.explained_variance.sum())


@BOTH
def test_planted_sources_come_back_apart(rotation: Rotation) -> None:
    _, sources, _ = planted()
    plain, turned = solution(), rotated(solution(), rotation)

    def worst(found: StepPCA) -> float:
        return np.abs(np.corrcoef(found.projections.numpy().T, sources.T)[:4, 4:]).max(axis=1).min()

    assert worst(turned) > 0.99 > worst(plain)


def test_varimax_is_at_a_maximum_and_as_scikit_learn_has_it() -> None:
    rng = np.random.default_rng(1)
    loadings = torch.from_numpy(rng.normal(size=(40, 5)) ** 3)
    turn = varimax(loadings)
    torch.testing.assert_close(turn @ turn.T, torch.eye(5, dtype=torch.float64))
    reached = criterion(loadings @ turn)
    assert reached > criterion(loadings)
    for i in range(5):
        for j in range(i):
            for angle in (-0.01, 0.01):
                givens = torch.eye(5, dtype=torch.float64)
                givens[[i, j], [i, j]] = np.cos(angle)
                givens[i, j], givens[j, i] = np.sin(angle), -np.sin(angle)
                assert criterion(loadings @ turn @ givens) < reached
    theirs = torch.from_numpy(_ortho_rotation(loadings.numpy(), tol=1e-10, max_iter=2000).T.copy())
    assert criterion(theirs) == pytest.approx(reached, rel=1e-6)


@BOTH
def test_joint_components_of_a_model_are_rotated(
    rotation: Rotation, tiny_model: DiffusionModel, tmp_path: Path
) -> None:
    recorded = collect(tiny_model, range(40), tmp_path / "h.npy")
    plain, turned = (pca(recorded, tiny_model, k=3, joint=True, rotation=each) for each in (None, rotation))
    assert turned.meta.method == f"pca joint {rotation}" and turned.meta.unit == "std"
    flat = [each.directions.flatten(1).double() for each in (plain, turned)]
    # The same rank-3 covariance: sum over directions of direction times its transpose.
    probe = torch.randn(flat[0].shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(*((each.T @ (each @ probe)) for each in flat), atol=1e-4, rtol=1e-4)


def test_steps_are_not_rotated_apart(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    recorded = collect(tiny_model, range(12), tmp_path / "h.npy")
    with pytest.raises(InputError, match="joint=True"):
        pca(recorded, tiny_model, k=2, rotation="varimax")
    with pytest.raises(ValueError, match=r"method\.joint=true"):
        PcaSettings(k=2, num_samples=12, joint=False, rotation="ica")
