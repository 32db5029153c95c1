import logging
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.identity import WEIGHTS
from hspace.diffusion.recording import Recorded, collect, collect_around
from hspace.diffusion.sampling import sample
from hspace.directions import solvers
from hspace.directions.pca import broken_components, pca
from hspace.directions.record import Directions
from hspace.directions.solvers import StepPCA, gram_pca, krylov_pca
from hspace.types import InputError

Solver = Callable[..., StepPCA]
SOLVERS = pytest.mark.parametrize("solve", [gram_pca, krylov_pca])


def _features(n: int, d: int, seed: int = 0, decay: float = 0.8) -> np.ndarray:
    """Samples with a slowly decaying spectrum and a mean much larger than the spread."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(d, min(n, d))))
    scales = np.maximum(decay ** np.arange(min(n, d)), 0.02)
    return (rng.normal(size=(n, min(n, d))) * scales @ rotation.T + rng.normal(size=d) * 5).astype(np.float32)


def _recording(features: np.ndarray, model: DiffusionModel, path: Path) -> Recorded:
    np.save(path, features)
    recorded = Recorded(
        path=path,
        seeds=tuple(range(features.shape[1])),
        h_shape=model.h_shape,
        provenance=model.provenance(eta=1.0),
    )
    recorded.save()
    return recorded


def _error_of_subspace(a: torch.Tensor, b: np.ndarray | None) -> float:
    """Sine of the largest principal angle between the rows' spans."""
    a64 = a.double()
    b64 = torch.from_numpy(np.array(b)).double()
    return float(torch.linalg.matrix_norm(a64 - a64 @ b64.T @ b64, ord=2))


@SOLVERS
@pytest.mark.parametrize(("n", "d"), [(80, 300), (300, 80)])
def test_equals_sklearn(solve: Solver, n: int, d: int) -> None:
    # Chunks of a few rows or columns, so that streaming is what is tested.
    chunk, features = 4 * 7 * max(n, d), _features(n, d)
    ours, reference = (
        solve(features[None], 6, chunk),
        PCA(n_components=6, svd_solver="full").fit(features.astype(np.float64)),
    )
    assert np.abs(ours.mean.numpy() - reference.mean_).max() < 1e-5
    assert np.abs(ours.explained_variance.numpy() / reference.explained_variance_ - 1).max() < 1e-5
    assert _error_of_subspace(ours.components, reference.components_) < 1e-3
    cosines = np.abs((ours.components.numpy() * reference.components_).sum(axis=1))
    assert np.abs(cosines - 1).max() < 1e-5


@SOLVERS
def test_components_are_orthonormal_and_projections_are_theirs(solve: Solver) -> None:
    features = _features(60, 200)
    result = solve(features[None], 10)
    identity = result.components.double() @ result.components.double().T
    assert (identity - torch.eye(10)).abs().max() < 1e-6
    projections = (torch.from_numpy(features) - result.mean).double() @ result.components.double().T
    assert (result.projections - projections).abs().max() < 1e-3 * projections.abs().max()
    assert (projections.var(dim=0) / result.explained_variance - 1).abs().max() < 1e-4


def test_krylov_equals_gram_at_a_slow_spectrum() -> None:
    features = _features(400, 500, decay=0.97)
    gram, krylov = gram_pca(features[None], 8), krylov_pca(features[None], 8)
    assert _error_of_subspace(krylov.components, gram.components.numpy()) < 1e-2
    assert (krylov.explained_variance / gram.explained_variance - 1).abs().max() < 1e-5
    assert krylov.residuals.max() <= 1e-4


@SOLVERS
def test_every_component_of_few_samples_is_found(solve: Solver) -> None:
    features = _features(9, 40)
    reference = PCA(svd_solver="full").fit(features.astype(np.float64)).explained_variance_[:8]
    assert np.abs(solve(features[None], 8).explained_variance.numpy() / reference - 1).max() < 1e-4


@SOLVERS
def test_components_without_variance_are_refused(solve: Solver) -> None:
    rank_2 = _features(20, 2) @ _features(2, 30, seed=1)
    with pytest.raises(InputError, match="k must be at most 2"):
        solve(rank_2[None], 3)


@SOLVERS
def test_memory_is_one_chunk_and_not_the_data(solve: Solver, tmp_path: Path) -> None:
    np.save(tmp_path / "h.npy", _features(200, 4000))
    features = np.load(tmp_path / "h.npy", mmap_mode="r")
    # numpy reports to tracemalloc, torch does not: chunks are numpy's.
    tracemalloc.start()
    solve(features[None], 3, 2**16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**16 < features.nbytes / 10


def test_real_recording_gives_directions_in_standard_deviations(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    recorded = collect(tiny_model, range(12), tmp_path / "h.npy")
    directions = pca(recorded, tiny_model, k=3)
    directions.check(tiny_model)
    assert directions.directions.shape == (3, 3, *tiny_model.h_shape)
    assert directions.meta.unit == "std" and directions.meta.seeds == tuple(range(12))
    variance, correlation = directions.explained_variance, directions.correlation
    assert variance is not None and correlation is not None and correlation.shape == (3, 2)
    for step, features in enumerate(recorded.open()):
        reference = PCA(n_components=3, svd_solver="full").fit(features.astype(np.float64))
        ours = directions.directions[:, step].flatten(1).numpy()
        expected = reference.components_ * np.sqrt(reference.explained_variance_)[:, None]
        expected *= np.sign((ours * expected).sum(axis=1, keepdims=True))
        assert np.abs(ours - expected).max() < 1e-3 * np.abs(expected).max()
    # The edit at strength 1 is one standard deviation of what the samples do along the component.
    assert (directions.norms() / variance.sqrt() - 1).abs().max() < 1e-5


@pytest.mark.parametrize("memory", [4 * 2**16, 4 * 2**10])
def test_joint_components_are_those_of_whole_trajectories(
    tiny_model: DiffusionModel, tmp_path: Path, memory: int
) -> None:
    # Chunks of a few rows or columns, so that streaming is what is tested; the second limit takes block Krylov.
    recorded = collect(tiny_model, range(25), tmp_path / "h.npy")
    directions = pca(recorded, tiny_model, k=3, joint=True, memory=memory)
    directions.check(tiny_model)
    trajectories = recorded.open().swapaxes(0, 1).reshape(25, -1)
    reference = PCA(n_components=3, svd_solver="full").fit(trajectories.astype(np.float64))
    ours = directions.directions.flatten(1).numpy()
    expected = reference.components_ * np.sqrt(reference.explained_variance_)[:, None]
    expected *= np.sign((ours * expected).sum(axis=1, keepdims=True))
    assert np.abs(ours - expected).max() < 1e-3 * np.abs(expected).max()
    assert directions.mean is not None and directions.explained_variance is not None
    assert np.abs(directions.mean.flatten().numpy() - reference.mean_).max() < 1e-5 * np.abs(reference.mean_).max()
    assert np.abs(directions.explained_variance.numpy() / reference.explained_variance_ - 1).max() < 1e-4
    assert directions.correlation is None and directions.meta.method == "pca joint"
    directions.save(tmp_path / "d.safetensors")
    assert Directions.load(tmp_path / "d.safetensors").meta == directions.meta


def test_local_components_are_those_around_one_sample(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    center = tiny_model.latents([7])
    recorded = collect_around(tiny_model, center, 20, tmp_path / "h.npy")
    directions = pca(recorded, tiny_model, k=2)
    h = sample(tiny_model, center.neighbours(range(20)), record_h=True).h
    assert h is not None
    for step in range(3):
        reference = PCA(n_components=2, svd_solver="full").fit(h[:, step].flatten(1).double().numpy())
        ours = directions.directions[:, step].flatten(1).numpy()
        expected = reference.components_ * np.sqrt(reference.explained_variance_)[:, None]
        expected *= np.sign((ours * expected).sum(axis=1, keepdims=True))
        assert np.abs(ours - expected).max() < 1e-3 * np.abs(expected).max()
    assert directions.meta.method == "pca local" and directions.meta.seeds == (7,)
    everywhere = pca(collect(tiny_model, range(20), tmp_path / "all.npy"), tiny_model, k=2)
    assert directions.norms().max() < everywhere.norms().max()


def test_matched_components_follow_the_samples_where_their_ranks_change(
    tiny_model: DiffusionModel, tmp_path: Path
) -> None:
    """Three scores whose order by variance is another at each step: by rank every component is broken, matched none."""
    rng = np.random.default_rng(0)
    scores = np.linalg.qr(rng.normal(size=(40, 4)) - [[0, 0, 0, 0]])[0][:, :3]
    scores = (scores - scores.mean(0)) * 10
    sizes = [(3, 2, 1), (1, 3, 2), (2, 1, 3)]
    bases = [np.linalg.qr(rng.normal(size=(1024, 3)))[0] for _ in sizes]
    features = np.stack([scores * size @ basis.T for size, basis in zip(sizes, bases, strict=True)]).astype(np.float32)
    recorded = _recording(features, tiny_model, tmp_path / "h.npy")
    assert broken_components(pca(recorded, tiny_model, k=3)) == [0, 1, 2]
    matched = pca(recorded, tiny_model, k=3, matched=True)
    assert broken_components(matched) == [] and matched.meta.method == "pca matched"
    along = np.stack([features[i] @ matched.directions[:, i].flatten(1).numpy().T for i in range(3)])
    for component in range(3):
        assert np.corrcoef(along[:, :, component]).min() > 0.95
    # A strength is in standard deviations of the matched component itself, not of its rank.
    variance = matched.explained_variance
    assert variance is not None and torch.allclose(matched.norms(), variance.sqrt(), rtol=1e-4)
    with pytest.raises(InputError, match="joint=False"):
        pca(recorded, tiny_model, k=2, joint=True, matched=True)


def test_signs_follow_the_samples_even_where_the_component_turns(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 2)) * [3, 1]
    # The same two scores in another, unrelated basis at every step: inner products of components mean nothing.
    bases = [np.linalg.qr(rng.normal(size=(1024, 2)))[0] for _ in range(3)]
    features = np.stack([scores @ basis.T for basis in bases]).astype(np.float32)
    directions = pca(_recording(features, tiny_model, tmp_path / "h.npy"), tiny_model, k=2)
    correlation = directions.correlation
    assert correlation is not None and (correlation - 1).abs().max() < 1e-5
    along = np.stack([features[i] @ directions.directions[:, i].flatten(1).numpy().T for i in range(3)])
    for component in range(2):
        agreement = np.corrcoef(along[:, :, component])
        assert (agreement > 0.99).all()
        first = directions.directions[component, 0].flatten()
        assert first[first.abs().argmax()] > 0


def test_a_component_that_changes_its_meaning_is_reported(
    tiny_model: DiffusionModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, 200, 2)) * [3, 1]
    scores[:, :, 0] = scores[0, :, 0]
    scores[1, :, 1] = rng.normal(size=200)
    basis, _ = np.linalg.qr(rng.normal(size=(1024, 2)))
    recorded = _recording((scores @ basis.T).astype(np.float32), tiny_model, tmp_path / "h.npy")
    with caplog.at_level(logging.WARNING):
        directions = pca(recorded, tiny_model, k=2)
    assert broken_components(directions) == [1]
    assert "1 of 2 components are broken" in caplog.text and "(1)" in caplog.text
    directions.save(tmp_path / "d.safetensors")
    assert broken_components(Directions.load(tmp_path / "d.safetensors")) == [1]


def test_many_samples_take_the_streamed_solver(
    tiny_model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.stack([_features(30, 1024, seed=step) for step in range(3)])
    recorded = _recording(features, tiny_model, tmp_path / "h.npy")
    exact = pca(recorded, tiny_model, k=3)
    monkeypatch.setattr(solvers, "GRAM_LIMIT", 20)
    streamed = pca(recorded, tiny_model, k=3)
    assert (exact.directions - streamed.directions).abs().max() < 1e-3 * exact.directions.abs().max()
    assert exact.residuals is None or exact.residuals.max() == 0
    assert streamed.residuals is not None and streamed.residuals.max() > 0


def test_bad_input_is_named(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    recorded = _recording(np.zeros((3, 5, 1024), np.float32), tiny_model, tmp_path / "h.npy")
    for k in (0, 5):
        with pytest.raises(InputError, match=f"k must be from 1 to 4 for 5 samples of 1024 features, got {k}"):
            pca(recorded, tiny_model, k=k)
    with pytest.raises(InputError, match="at most 0"):
        pca(recorded, tiny_model, k=1)
    strange = replace(recorded.provenance, model={WEIGHTS: "0" * 64})
    other = replace(recorded, provenance=strange)
    with pytest.raises(InputError, match=r"model is network.tensors 000"):
        pca(other, tiny_model, k=1)
