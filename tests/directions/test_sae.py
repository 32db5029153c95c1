"""Sparse autoencoders: a known dictionary is found again, and the figures are those of their definitions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded, collect
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.positions import by_position
from hspace.directions.sae import Usage, Vectors, fit_of, names_of, sparse_features
from hspace.directions.sparse import PATIENCE, SparseAutoencoder, _State, fit_sparse, largest
from hspace.metrics.correlation import p_of_correlation
from hspace.types import InputError

CHANNELS, ATOMS, USED = 20, 24, 2


class Red:
    """Mean of red, and noise."""

    id = "red"
    attributes: tuple[str, ...] = ("red", "noise")
    binary: tuple[bool, ...] = (False, False)

    def __call__(self, images: Tensor) -> Tensor:
        noise = torch.sin(1e4 * images[:, 0, 0, 0])
        return torch.stack([images[:, 0].mean(dim=(1, 2)), noise], dim=1)

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


def dictionary() -> Tensor:
    atoms = torch.randn(ATOMS, CHANNELS, generator=torch.Generator().manual_seed(5))
    return atoms / atoms.norm(dim=1, keepdim=True)


def drawing(seed: int, n: int = 256):
    """Batches of sums of a few atoms."""
    generator, atoms = torch.Generator().manual_seed(seed), dictionary()

    def draw() -> Tensor:
        codes = largest(torch.rand(n, ATOMS, generator=generator), USED)
        return codes @ atoms

    return draw


@pytest.fixture(scope="module")
def coder() -> SparseAutoencoder:
    return fit_sparse(drawing(0), features=2 * CHANNELS, active=USED, updates=500, rate=1e-2)


def test_a_known_dictionary_is_found_again(coder: SparseAutoencoder) -> None:
    cosines = (dictionary() @ coder.decoder.T).amax(dim=1)
    assert (cosines >= 0.9).float().mean() > 0.8
    x = drawing(1, 1000)()
    lost = (x - coder.decode(coder.encode(x))).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert lost < 0.2


def test_columns_have_unit_norm_and_few_features_are_used(coder: SparseAutoencoder) -> None:
    torch.testing.assert_close(coder.decoder.norm(dim=1), torch.ones(2 * CHANNELS))
    z = coder.encode(drawing(1)())
    assert (z >= 0).all() and ((z > 0).sum(dim=1) <= USED).all()
    assert ((z > 0).sum(dim=1) == USED).float().mean() > 0.5


def test_the_largest_values_are_kept_exactly() -> None:
    values = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    kept = largest(values, 3)
    for row, found in zip(values.tolist(), kept.tolist(), strict=True):
        assert sorted(value for value in found if value) == sorted(v for v in sorted(row)[-3:] if v > 0)
        assert all(value in (0.0, before) for value, before in zip(found, row, strict=True))


@pytest.mark.parametrize("patient", [True, False])
def test_dead_features_learn_from_what_the_others_leave(patient: bool) -> None:
    x = drawing(0, 16)()
    state = _State.start(x, features=6 * CHANNELS, active=1)
    dead = ~(state.model.encode(x) > 0).any(dim=0)
    assert 20 < dead.sum() < 6 * CHANNELS
    state.unused[dead] = PATIENCE - patient
    state.backward(x)
    slopes = [parameter.grad for parameter in state.parameters[:3]]
    assert all((slope is not None and bool(slope[dead].any())) != patient for slope in slopes)
    columns, slope = state.model.decoder.detach(), slopes[2]
    assert slope is not None and (slope * columns).sum(dim=1).abs().max() < 1e-5
    assert (state.unused[dead] == PATIENCE - patient + 16).all() and (state.unused[~dead] == 0).all()


@pytest.fixture(scope="module")
def recorded(tiny_model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return collect(tiny_model, range(20), tmp_path_factory.mktemp("sae") / "h.npy")


@pytest.fixture(scope="module")
def annotations(tiny_model: DiffusionModel) -> Annotations:
    return annotate(tiny_model, range(20), Red())


def test_vectors_are_centred_and_scaled_at_each_step(tiny_model: DiffusionModel, recorded: Recorded) -> None:
    vectors = Vectors.of(recorded)
    for step in range(3):
        x = vectors.read(step, list(range(20))).flatten(0, 1)
        assert x.mean(dim=0).abs().max() < 1e-4
        assert x.var(dim=0, correction=0).mean() == pytest.approx(1, rel=1e-3)
    batch = next(vectors.batches(range(3), 100))
    assert batch.shape == (64, 16)  # a sample has 64 positions


def test_components_explain_what_scikit_learn_says(recorded: Recorded) -> None:
    vectors, every = Vectors.of(recorded), range(20)
    x = torch.cat([each for _, each in vectors.each(every)]).double().numpy()
    expected = PCA(3).fit(x)
    components = vectors.components(every, 3)
    coder = SparseAutoencoder(*(torch.zeros(4, 16), torch.zeros(4), torch.zeros(4, 16), torch.zeros(16)), active=1)
    figures = fit_of(coder, components, vectors, every)
    assert figures["explained_variance_by_components"] == pytest.approx(
        expected.explained_variance_ratio_.sum(), rel=1e-4
    )
    assert figures["explained_variance"] == pytest.approx(0, abs=1e-6) and figures["active"] == 0
    means = vectors.means(components)
    assert means.shape == (20, 3)
    torch.testing.assert_close(
        means[4], torch.stack([vectors.read(step, [4])[0] for step in range(3)]).mean(dim=(0, 1)) @ components.T
    )


def test_usage_is_counted_over_samples(recorded: Recorded) -> None:
    vectors = Vectors.of(recorded)
    eye = torch.eye(16)
    usage = Usage.of(SparseAutoencoder(eye, torch.zeros(16), eye, torch.zeros(16), active=16), vectors)
    x = torch.stack([vectors.read(step, list(range(20))) for step in range(3)]).relu()
    torch.testing.assert_close(usage.means, x.mean(dim=(0, 2)))
    torch.testing.assert_close(usage.share, (x > 0).float().mean(dim=(0, 1, 2)))
    torch.testing.assert_close(usage.typical, x.sum(dim=(0, 1, 2)) / (x > 0).sum(dim=(0, 1, 2)))


def test_names_are_significant_after_bonferroni(annotations: Annotations) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 30, generator=generator)
    scores[:, 7] = -annotations.scores[:, 0] + 1e-3 * scores[:, 7]
    scores[:, 3] = 0  # a dead feature
    names = names_of(scores, annotations)
    assert names[7] == "feature 7, red -1.00"
    r, p = stats.pearsonr(scores[:, 5].double(), annotations.scores[:, 0].double())
    assert p_of_correlation(np.array([r]), 20)[0] == pytest.approx(p, rel=1e-6)
    smallest = min(
        float(stats.pearsonr(scores[:, j].double(), annotations.scores[:, a].double()).pvalue)  # pyright: ignore[reportAttributeAccessIssue]
        for j in range(30) if j not in (3, 7) for a in range(2)
    )  # fmt: skip
    assert (len(names) > 1) == (smallest * 29 * 2 < 0.05)
    assert names_of(scores, None) == {}


def test_features_are_directions_of_the_model(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations
) -> None:
    found = sparse_features(tiny_model, recorded, annotations, k=3, active=4, updates=40, batch=128, rate=1e-2)
    found.check(tiny_model, eta=1.0)
    assert found.directions.shape == (3, 3, *tiny_model.h_shape) and found.meta.unit == "activation"
    vectors = by_position(found.directions, tiny_model.h_shape)
    assert (vectors == vectors[:, :, :1]).all()
    scale = Vectors.of(recorded).scale
    torch.testing.assert_close(vectors[0, :, 0] / scale[:, None], (vectors[0, :1, 0] / scale[0]).expand(3, -1))
    report = found.meta.report
    assert 0 < report["explained_variance"] < 1 and 0 < report["explained_variance_by_components"] < 1
    assert report["features"] == 64 and 0 < report["active"] <= 4
    assert 0 <= report["dead"] < 1 and 0 <= report["named"] <= 1
    assert 0 <= report["named_by_components"] <= 1
    by_use = sparse_features(tiny_model, recorded, k=3, active=4, updates=2, batch=128)
    assert all(name.startswith("feature ") and "," not in name for name in by_use.meta.names)
    assert set(report) - set(by_use.meta.report) == {"named", "named_by_components"}


def test_what_cannot_be_learnt_is_refused(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="at most the number of features, 16, got 3 and 17"):
        sparse_features(tiny_model, recorded, k=3, expansion=1, active=17)
    few = collect(tiny_model, range(4), tmp_path / "h.npy")
    with pytest.raises(InputError, match="at least 10 samples, got 4"):
        sparse_features(tiny_model, few, k=1)
    other = collect(tiny_model, range(1, 21), tmp_path / "other.npy")
    with pytest.raises(InputError, match="same samples"):
        sparse_features(tiny_model, other, annotations, k=1)
    still = replace(annotations.provenance, eta=(0.0,) * len(annotations.eta))
    with pytest.raises(InputError, match="the recorded samples do not fit: eta"):
        sparse_features(tiny_model, recorded, replace(annotations, provenance=still), k=1)
    weights = replace(annotations.provenance, model={"network.tensors": "0" * 64})
    with pytest.raises(InputError, match="the annotations do not fit: model"):
        sparse_features(tiny_model, recorded, replace(annotations, provenance=weights), k=1)
