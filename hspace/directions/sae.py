# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Features of a sparse autoencoder of h as directions, named by the annotator's scores of the same samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, check_together
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.method import Sources, method
from hspace.directions.positions import by_position, everywhere, num_channels
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.directions.sparse import SparseAutoencoder, fit_sparse
from hspace.metrics.correlation import p_of_correlation
from hspace.metrics.paired import SIGNIFICANT
from hspace.output.tables import written
from hspace.system import distributed
from hspace.types import InputError

HELD_OUT = 5
"""One in so many samples is not trained on."""


class SaeSettings(Settings):
    """Settings of `method=sae`."""

    k: int = Field(8, ge=1)
    """Features that become directions."""
    num_samples: int = Field(500, ge=10, le=MAX_SAMPLES)
    """Samples whose h is learnt from; a fifth is held out."""
    named: bool = True
    """Whether features that the annotator's scores correlate with come first; else those that are used most."""
    expansion: int = Field(4, ge=1, le=256)
    """Features for each channel of h."""
    active: int = Field(10, ge=1)
    """Features that a position may use."""
    updates: int = Field(1000, ge=1, le=1_000_000)
    """Updates by Adam."""
    batch: int = Field(1024, ge=2)
    """Positions of an update, as whole samples."""
    rate: float = Field(1e-3, gt=0)
    """Adam's rate."""

    def count(self) -> int:
        """Number of directions."""
        return self.k


@method("sae", settings=SaeSettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: SaeSettings) -> Directions:
    """Features of a sparse autoencoder of the positions of h, those first that go with an attribute.

    Source: Gao et al. 2024 (arXiv 2406.04093) for the autoencoder; on h, and the names, ours.
    """
    n = settings.num_samples
    recorded, annotations = sources.annotated(n) if settings.named else (sources.recorded(n), None)
    return sparse_features(
        model, recorded, annotations, k=settings.k, expansion=settings.expansion,
        active=settings.active, updates=settings.updates, batch=settings.batch, rate=settings.rate,
    )  # fmt: skip


def parted(n: int) -> tuple[range, range]:
    """Rows of n samples that are learnt from, and those that are held out."""
    kept = n - max(n // HELD_OUT, 1)
    return range(kept), range(kept, n)


def sparse_features(
    model: DiffusionModel,
    recorded: Recorded,
    annotations: Annotations | None = None,
    *,
    k: int = 8,
    expansion: int = 4,
    active: int = 10,
    updates: int = 1000,
    batch: int = 1024,
    rate: float = 1e-3,
) -> Directions:
    """Columns of the decoder of a sparse autoencoder that explains each position of h by a few of many features.

    A position's vector of channels is centred and scaled at its step; one autoencoder serves all steps and positions.
    A feature belongs to the attribute whose scores correlate most with its mean over positions and steps, if that
    correlation is significant among all features and attributes (Bonferroni). The features of the most correlated
    attribute come first, one for each attribute, then the second of each, and at last those that are used most.

    Args:
        model: The model that h was recorded on.
        recorded: h of the samples.
        annotations: Scores of the same samples, in the same order; None takes the features that are used most.
        k: Number of directions.
        expansion: Number of features for each channel.
        active: Number of features that a position may use.
        updates: Number of updates by Adam.
        batch: Positions of an update, as whole samples of single steps.
        rate: Rate of Adam.

    Returns:
        k directions of unit "activation", the same at every position: strength 1 adds a feature everywhere as much as
        it is there, on average, where it is used. Their report holds, on held-out samples, the share of variance that
        the features explain and that as many principal components of positions do, the features that a position uses,
        and the share of dead ones; then the share of live features, and of these components, that get a name, where
        there are annotations.

    Raises:
        InputError: If h or scores are from another model, the samples differ or are under ten, there are fewer features
            than asked for, or several processes run.

    Source: Gao et al. 2024 (arXiv 2406.04093), sec. 2; names and their correction ours.
    """
    recorded.provenance.check(model.provenance(), "recorded samples")
    if annotations is not None:
        annotations.check(model)
    channels, n = num_channels(recorded.h_shape), len(recorded.seeds)
    _check(recorded, annotations, k, active, expansion * channels)
    vectors = Vectors.of(recorded)
    train, held = parted(n)
    drawn = vectors.batches(train, batch)
    coder = fit_sparse(
        lambda: next(drawn), features=expansion * channels, active=active, updates=updates, rate=rate
    )  # fmt: skip
    usage = Usage.of(coder, vectors)
    components = vectors.components(train, min(active, channels))
    named, named_components = (names_of(scores, annotations) for scores in (usage.means, vectors.means(components)))
    live = usage.used.any(dim=0)
    report = {
        "features": expansion * channels,
        **fit_of(coder, components, vectors, held),
        "dead": 1 - float(usage.used[list(held)].any(dim=0).double().mean()),
    }
    if annotations is not None:
        report["named"] = len(named) / max(int(live.sum()), 1)
        report["named_by_components"] = len(named_components) / len(components)
    chosen = ([*named] + [j for j in usage.share.argsort(descending=True).tolist() if j not in named])[:k]
    steps = vectors.scale[:, None] * coder.decoder[chosen, None] * usage.typical[chosen, None, None]
    meta = DirectionsMeta(
        space="h", provenance=recorded.provenance, model_id=model.model_id,
        method="sparse autoencoder" + (f", named by {annotations.scorer}" if annotations else ""),
        names=tuple(named.get(j, f"feature {j}") for j in chosen), unit="activation", seeds=recorded.seeds,
        report=report,
    )  # fmt: skip
    return Directions(everywhere(steps, recorded.h_shape).contiguous(), meta)


@dataclass(frozen=True)
class Vectors:
    """Recorded h as vectors of positions, centred and scaled at each step.

    Attributes:
        recorded: The recording.
        h: Its array, (steps, samples, d).
        mean: Mean of each channel, (steps, channels).
        scale: Root of the mean variance of the channels, (steps,).
    """

    recorded: Recorded
    h: np.ndarray
    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, recorded: Recorded) -> "Vectors":
        """The vectors of a recording, whose samples are all read once."""
        h = recorded.open()
        means, scales = [], []
        for step in range(len(h)):
            sums = [_sums(_rows(h, step, [row], recorded.h_shape)[0]) for row in range(h.shape[1])]
            mean, square = torch.stack(sums).mean(dim=0)
            means.append(mean)
            scales.append((square - mean.square()).mean().clamp(min=torch.finfo(torch.float64).tiny).sqrt())
        return cls(recorded, h, torch.stack(means).float(), torch.stack(scales).float())

    def read(self, step: int, rows: list[int]) -> Tensor:
        """The vectors of some samples at a step, (rows, positions, channels)."""
        return (_rows(self.h, step, rows, self.recorded.h_shape) - self.mean[step]) / self.scale[step]

    def batches(self, rows: range, size: int) -> Iterator[Tensor]:
        """Batches of about `size` vectors without end, of random samples and steps."""
        generator = torch.Generator().manual_seed(0)
        positions = self.read(0, [0]).shape[1]
        count = max(size // positions, 1)
        while True:
            steps = torch.randint(len(self.h), (count,), generator=generator).tolist()
            samples = torch.randint(len(rows), (count,), generator=generator).tolist()
            parts = [self.read(step, [rows[sample]])[0] for step, sample in zip(steps, samples, strict=True)]
            yield torch.cat(parts)

    def each(self, rows: range) -> Iterator[tuple[int, Tensor]]:
        """Every sample of every step: its row, and its vectors (positions, channels)."""
        for step in range(len(self.h)):
            for row in rows:
                yield row, self.read(step, [row])[0]

    def components(self, rows: range, k: int) -> Tensor:
        """The k leading principal components of the vectors, (k, channels), orthonormal."""
        covariance = torch.zeros(self.mean.shape[1], self.mean.shape[1], dtype=torch.float64)
        for _, x in self.each(rows):
            covariance += x.T.double() @ x.double()
        return torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :k].T.float()

    def means(self, components: Tensor) -> Tensor:
        """Mean projection of each sample over its positions and steps, (samples, components)."""
        return torch.stack([
            torch.stack([self.read(step, [row])[0].mean(dim=0) for step in range(len(self.h))]).mean(dim=0)
            for row in range(self.h.shape[1])
        ]) @ components.T  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """Where the samples use the features.

    Attributes:
        means: Mean of each feature over positions and steps, (samples, features).
        used: Whether a sample uses a feature anywhere, (samples, features) bool.
        share: Share of all vectors that use a feature, (features,).
        typical: Mean of a feature where it is used, (features,); 0 where it never is.
    """

    means: Tensor
    used: Tensor
    share: Tensor
    typical: Tensor

    @classmethod
    def of(cls, coder: SparseAutoencoder, vectors: Vectors) -> "Usage":
        """Encodes all vectors of a recording."""
        n = vectors.h.shape[1]
        total, times = (torch.zeros(n, len(coder.decoder)) for _ in range(2))
        count = 0
        for row, x in vectors.each(range(n)):
            z = coder.encode(x)
            total[row] += z.sum(dim=0)
            times[row] += (z > 0).sum(dim=0)
            count += len(x)
        often = times.sum(dim=0)
        return cls(total * n / count, times > 0, often / count, total.sum(dim=0) / often.clamp(min=1))


def fit_of(coder: SparseAutoencoder, components: Tensor, vectors: Vectors, rows: range) -> dict[str, float]:
    """The shares of the samples' variance that features and components explain, and the features that a vector uses."""
    lost = lost_by_components = variance = used = count = 0.0
    for _, x in vectors.each(rows):
        z = coder.encode(x)
        lost += float((x - coder.decode(z)).square().sum())
        lost_by_components += float((x - x @ components.T @ components).square().sum())
        variance += float(x.square().sum())
        used += float((z > 0).sum())
        count += len(x)
    explained = {"explained_variance": lost, "explained_variance_by_components": lost_by_components}
    return {name: 1 - each / variance for name, each in explained.items()} | {"active": used / count}


def names_of(scores: Tensor, annotations: Annotations | None) -> dict[int, str]:
    """Names such as "feature 3, smile +.61" of the columns that correlate with an attribute, in the order of choice.

    Args:
        scores: Scores of the samples, (n, features).
        annotations: The annotator's scores of the same samples; those of images that hide an attribute do not count.
    """
    if annotations is None:
        return {}
    pairs = [_correlations(scores, annotations, column) for column in range(len(annotations.attributes))]
    r, p = torch.stack([r for r, _ in pairs], dim=1), np.stack([p for _, p in pairs], axis=1)
    tests = int((scores.std(dim=0) > 0).sum()) * len(annotations.attributes)
    significant = torch.from_numpy(p * tests < SIGNIFICANT)
    size = torch.where(significant, r.abs(), -1.0)
    best = size.argmax(dim=1)
    order, seen = [], [0] * len(annotations.attributes)
    for j in size.amax(dim=1).argsort(descending=True).tolist():
        if size[j, best[j]] > 0:
            order.append((seen[best[j]], -float(size[j, best[j]]), j))
            seen[best[j]] += 1
    return {
        j: f"feature {j}, {annotations.attributes[best[j]]} {written(float(r[j, best[j]]))}" for *_, j in sorted(order)
    }


def _correlations(scores: Tensor, annotations: Annotations, column: int) -> tuple[Tensor, Any]:
    """Pearson's correlation of each column of scores with an attribute, and its p; 0 and 1 where a side is constant."""
    shown = annotations.visible[:, column]
    x, y = scores[shown].double(), annotations.sort_keys[shown, column].double()
    x, y = x - x.mean(dim=0), y - y.mean()
    norms = x.norm(dim=0) * y.norm()
    r = torch.where(norms > 0, (x.T @ y) / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)
    return r, p_of_correlation(r.numpy(), int(shown.sum()))


def _check(recorded: Recorded, annotations: Annotations | None, k: int, active: int, features: int) -> None:
    if distributed.world() > 1:
        raise InputError(f"method=sae learns in one process, got {distributed.world()}")
    if len(recorded.seeds) < 2 * HELD_OUT:
        raise InputError(f"a sparse autoencoder needs at least {2 * HELD_OUT} samples, got {len(recorded.seeds)}")
    if annotations is not None:
        check_together(recorded, annotations)
    if max(k, active) > features:
        raise InputError(f"k and active must be at most the number of features, {features}, got {k} and {active}")


def _rows(h: np.ndarray, step: int, rows: list[int], h_shape: tuple[int, ...]) -> Tensor:
    """Vectors of some samples, (rows, positions, channels)."""
    return by_position(torch.from_numpy(np.array(h[step, rows], dtype=np.float32)).unflatten(-1, h_shape), h_shape)


def _sums(x: Tensor) -> Tensor:
    """Mean and mean square of vectors over positions, (2, channels)."""
    x = x.double()
    return torch.stack([x.mean(dim=0), x.square().mean(dim=0)])
