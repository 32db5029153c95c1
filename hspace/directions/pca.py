# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""PCA of h per step or of whole trajectories, exact while the samples fit a Gram matrix, by block Krylov above that."""

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.system import distributed
from hspace.types import InputError

logger: logging.Logger = logging.getLogger(__name__)

GRAM_LIMIT, GRAM_BYTES = 4000, 20
"""Most samples for the exact solver, a Gram matrix of 128 MB; bytes for each of its entries, see `gram_pca`."""
CHUNK_BYTES = 64 * 2**20
"""Size of the one piece of h that is in memory, if no limit asks for less."""
RESIDUAL = 1e-4
"""Block Krylov stops when |C v - λ v| is below this share of λ, for every component."""
GRAM_ROWS = 128
"""Rows of one product for the Gram matrix, of which only the lower triangle is needed."""
BROKEN = 0.3
"""|correlation| of neighbouring steps under which a component is no longer one direction."""


class ComponentSettings(Settings):
    """What methods share that find principal components."""

    k: int = Field(8, ge=1)
    """Components kept; a strength is in standard deviations."""
    num_samples: int = Field(500, ge=2, le=MAX_SAMPLES)
    """Samples generated to discover with."""

    @model_validator(mode="after")
    def _check_rank(self) -> "ComponentSettings":
        if self.k >= self.num_samples:
            raise ValueError(
                f"k must be below method.num_samples={self.num_samples} (n samples span n - 1 components), got {self.k}"
            )
        return self

    def count(self) -> int:
        """Number of directions."""
        return self.k


class PcaSettings(ComponentSettings):
    """Settings of `method=pca`."""

    joint: bool = False
    """Whether all steps share one PCA."""


@method("pca", settings=PcaSettings)
def find(model: DiffusionModel, sources: Sources, settings: PcaSettings) -> Directions:
    """Principal components of h per step, or of whole trajectories: global directions, found without labels.

    Source: Haas et al. 2024, sec. IV-A, figs. 3 and 4.
    """
    recorded = sources.recorded(settings.num_samples)
    return pca(recorded, model, k=settings.k, joint=settings.joint, memory=sources.memory)


@dataclass(frozen=True)
class StepPCA:
    """PCA of one step, or of all in one; n samples of d features.

    Attributes:
        mean: (d,) float32.
        components: (k, d) float32, orthonormal, largest variance first.
        explained_variance: (k,) float64, with n - 1.
        projections: (n, k) float64, of the centred samples on the components.
        residuals: (k,) float64 relative residuals; 0 for the exact solver.
    """

    mean: Tensor
    components: Tensor
    explained_variance: Tensor
    projections: Tensor
    residuals: Tensor

    def flipped(self, signs: Tensor) -> "StepPCA":
        """The same PCA with component j multiplied by signs[j]."""
        return replace(self, components=self.components * signs[:, None], projections=self.projections * signs)


def pca(
    recorded: Recorded, model: DiffusionModel, *, k: int, joint: bool = False, memory: int | None = None
) -> Directions:
    """Principal components of h_t at every step; direction j is the j-th component of all steps.

    Of a recording around one sample (`collect_around`) they are that sample's own, local ones.

    Strength is in standard deviations: directions[j, i] = component * sqrt(explained variance) of step i. The mean is
    saved and is not part of an edit.

    Signs: each step agrees with the step before it, by the correlation of the same samples' projections (an inner
    product means little once a component has turned); at step 0 the entry of largest magnitude is positive.

    Args:
        recorded: h of n samples, (steps, n, d) on disk, at most one piece of which is in memory at a time. Of several
            processes each gives its own samples, and all get the same directions.
        model: The model that h was recorded on.
        k: Number of components, at most n - 1 and d.
        joint: Whether to take the components of the concatenated trajectory h_{T:1} instead. A standard deviation is
            then the whole trajectory's, steps share it as they vary, and there is no correlation to report.
        memory: Bytes that a step may take; chunks, and where it must be the solver, are chosen by it. None: 64 MB and
            what the solvers say.

    Returns:
        k directions of unit "std". A component whose |correlation| falls under .3 is reported.

    Raises:
        InputError: If k is not in range, h has fewer than k components with variance, or h is another model's.

    Source: Haas et al. 2024, sec. IV-A; their signs follow the inner product with step 0, ours the samples.
    """
    recorded_seeds = tuple(itertools.chain(*distributed.gathered(recorded.seeds)))
    _check(recorded, model, k, len(recorded_seeds))
    features = recorded.open()
    solve, chunk = _solver(features.shape[1], memory)
    parts = [features] if joint else [features[i : i + 1] for i in range(len(features))]
    solved = list(_aligned(solve(part, k, chunk) for part in parts))
    solutions = [solution for solution, _ in solved]
    components = torch.stack([solution.components for solution in solutions], dim=1)
    variance = torch.stack([solution.explained_variance for solution in solutions], dim=1).float()
    residuals = torch.stack([solution.residuals for solution in solutions], dim=1).float()
    correlation = torch.stack([correlation for _, correlation in solved], dim=1)[:, 1:].float().contiguous()
    shape = (len(features), *recorded.h_shape)
    directions = Directions(
        directions=(components * variance.sqrt()[..., None]).reshape(k, *shape),
        meta=_meta(recorded, model, k, joint, recorded_seeds),
        mean=torch.stack([solution.mean for solution in solutions]).reshape(shape),
        explained_variance=variance[:, 0] if joint else variance,
        residuals=residuals[:, 0] if joint else residuals,
        correlation=None if joint else correlation,
    )
    if broken := broken_components(directions):
        logger.warning(
            "%d of %d components are broken, not one direction at all steps: their correlation between neighbouring "
            "steps falls under %g (%s)", len(broken), k, BROKEN, ", ".join(map(str, broken)),
        )  # fmt: skip
    return directions


def broken_components(directions: Directions) -> list[int]:
    """Components whose |correlation| between neighbouring steps is somewhere under .3: not one direction throughout."""
    if directions.correlation is None:
        return []
    return torch.nonzero((directions.correlation < BROKEN).any(dim=1)).flatten().tolist()


def _solver(n: int, memory: int | None) -> tuple[Callable[[np.ndarray, int, int], StepPCA], int]:
    """The solver for n samples, and the bytes of its chunks."""
    chunk = CHUNK_BYTES if memory is None else min(CHUNK_BYTES, memory // 4)
    fits = memory is None or GRAM_BYTES * n**2 + chunk <= memory
    return (gram_pca if distributed.world() == 1 and n <= GRAM_LIMIT and fits else krylov_pca), chunk


def gram_pca(features: np.ndarray, k: int, chunk: int = CHUNK_BYTES) -> StepPCA:
    """Exact PCA from the Gram matrix of the centred samples: fp32 products, float64 sums and eigenvectors.

    Memory: 20 n² bytes (Gram matrix, its eigenvectors, what finds them) + one chunk + 8 k d; time O(n² d).

    Args:
        features: (steps, n, d) float32, may be a memory map; the steps of a sample are one vector of steps · d.
        k: Number of components.
        chunk: Bytes of the piece of h that is in memory.
    """
    n, d = _matrix_shape(features)
    gram, mean = torch.zeros(n, n, dtype=torch.float64), torch.empty(d)
    for columns, piece in _columns(features, chunk):
        mean[columns] = piece.mean(dim=0, dtype=torch.float64).float()
        centred = piece.sub_(mean[columns])
        # The lower triangle is all that eigh reads.
        for first in range(0, n, GRAM_ROWS):
            stop = first + GRAM_ROWS
            gram[first:stop, :stop] += centred[first:stop] @ centred[:stop].T
    values, vectors = _largest(gram, k)
    _check_rank(values)
    projections = vectors * values.sqrt()
    components = torch.empty(d, k)
    for columns, piece in _columns(features, chunk):
        components[columns] = piece.sub_(mean[columns]).T @ (vectors / values.sqrt()).float()
    return StepPCA(mean, _orthonormal(components).T, values / (n - 1), projections, torch.zeros_like(values))


def krylov_pca(features: np.ndarray, k: int, chunk: int = CHUNK_BYTES) -> StepPCA:
    """PCA by block Krylov: products of the centred X and X^T with blocks, full reorthogonalisation, to RESIDUAL.

    Of several processes each has its own samples, and only means, products and projections are exchanged.

    Memory: 24 d m bytes for a basis of m vectors (k + 8 more with every pass over the data) + one chunk.

    Args:
        features: (steps, n, d) float32, may be a memory map; the steps of a sample are one vector of steps · d. Of
            several processes the process's own samples.
        k: Number of components.
        chunk: Bytes of the piece of h that is in memory.

    Source: Musco & Musco 2015 (arXiv 1504.05477), algorithm 2.
    """
    _, d = _matrix_shape(features)
    mean = _mean(features, chunk)
    start = torch.randn(d, min(k + 8, d), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis = _orthonormal(start)
    images = block = _covariance_product(features, mean, basis, chunk)
    while True:
        values, components, residuals = _ritz(basis, images, k)
        if bool((residuals <= RESIDUAL).all()) or basis.shape[1] == d:
            break
        new = _orthonormal_to(basis, block[:, : d - basis.shape[1]])
        block = _covariance_product(features, mean, new, chunk)
        basis, images = torch.cat([basis, new], dim=1), torch.cat([images, block], dim=1)
    _check_rank(values)
    components = components.float()
    projections = torch.cat([(rows @ components).double() for rows in _centred_rows(features, mean, chunk)])
    projections = torch.cat(distributed.gathered(projections))
    return StepPCA(mean, components.T, values, projections, residuals)


def _largest(symmetric: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues of a symmetric matrix, descending, and their eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(symmetric)
    return values.flip(0)[:k], vectors.flip(1)[:, :k]


def _ritz(basis: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Best k eigenpairs of C in the span of `basis`, (k,) and (d, k), with relative residuals (k,)."""
    projected = basis.T @ images
    values, vectors = _largest((projected + projected.T) / 2, k)
    components = basis @ vectors
    residuals = (images @ vectors - components * values).norm(dim=0)
    # fp32 products resolve no less than about 1e-7 of the largest variance.
    return values, components, residuals / values.clamp(min=float(1e-3 * values[0]))


def _covariance_product(features: np.ndarray, mean: Tensor, block: Tensor, chunk: int) -> Tensor:
    """C @ block = X^T (X block) / (n - 1), (d, b): fp32 products, summed in float64 over chunks of rows."""
    product, block = torch.zeros_like(block), block.float()
    for rows in _centred_rows(features, mean, chunk):
        product += rows.T @ (rows @ block)
    return distributed.total(product) / (_num_samples(features) - 1)


def _num_samples(features: np.ndarray) -> int:
    """Samples of all processes."""
    return sum(distributed.gathered(features.shape[1]))


def _matrix_shape(features: np.ndarray) -> tuple[int, int]:
    """Rows and columns where the steps of a sample, (steps, n, d), are one row."""
    steps, n, d = features.shape
    return n, steps * d


def _columns(features: np.ndarray, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of columns: where they are, and a copy of all n samples of them."""
    steps, n, d = features.shape
    width = max(1, chunk // (4 * n))
    for step, start in itertools.product(range(steps), range(0, d, width)):
        piece = torch.from_numpy(np.array(features[step, :, start : start + width], dtype=np.float32))
        first = step * d + start
        yield slice(first, first + piece.shape[1]), piece


def _centred_rows(features: np.ndarray, mean: Tensor, chunk: int) -> Iterator[Tensor]:
    """Chunks of samples with the mean taken off."""
    n, d = _matrix_shape(features)
    height = max(1, chunk // (4 * d))
    for start in range(0, n, height):
        piece = np.array(features[:, start : start + height].swapaxes(0, 1), dtype=np.float32, order="C")
        yield torch.from_numpy(piece).flatten(1).sub_(mean)


def _mean(features: np.ndarray, chunk: int) -> Tensor:
    """Mean of the samples, (d,) float32, summed in float64."""
    _, d = _matrix_shape(features)
    no_offset, sums = torch.zeros(d), torch.zeros(d, dtype=torch.float64)
    for rows in _centred_rows(features, no_offset, chunk):
        sums += rows.sum(dim=0, dtype=torch.float64)
    return (distributed.total(sums) / _num_samples(features)).float()


def _orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal columns, each as near as possible to the given one; float64 inside, the given dtype outside."""
    q, r = torch.linalg.qr(columns.double())
    return (q * r.diagonal().sign()).to(columns.dtype)


def _orthonormal_to(basis: Tensor, columns: Tensor) -> Tensor:
    """Orthonormal columns of the part of `columns` outside the span of `basis`."""
    # Twice is enough (Parlett): the second pass removes what rounding left of the first.
    for _ in range(2):
        columns = torch.linalg.qr(columns - basis @ (basis.T @ columns)).Q
    return columns


def _aligned(solutions: Iterator[StepPCA]) -> Iterator[tuple[StepPCA, Tensor]]:
    """Each step with its signs made to agree with the step before, and the |correlation| (k,) of the two."""
    previous = None
    for solution in solutions:
        if previous is None:
            largest = solution.components.abs().argmax(dim=1, keepdim=True)
            agreement = solution.components.gather(1, largest)[:, 0]
            correlation = torch.ones(len(agreement), dtype=torch.float64)
        else:
            agreement = _correlation(previous, solution.projections)
            correlation = agreement.abs()
        solution = solution.flipped(torch.where(agreement < 0, -1.0, 1.0))
        previous = solution.projections
        yield replace(solution, projections=torch.empty(0)), correlation


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of the columns of two (n, k), in [-1, 1]."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return ((a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0))).clamp(-1, 1)


def _check(recorded: Recorded, model: DiffusionModel, k: int, n: int) -> None:
    d = int(np.prod(recorded.h_shape))
    if not 1 <= k <= min(n - 1, d):
        raise InputError(f"k must be from 1 to {min(n - 1, d)} for {n} samples of {d} features, got {k}")
    recorded.provenance.check(model.provenance(), "recorded samples")


def _check_rank(values: Tensor) -> None:
    """Below 1e-6 of the largest variance an fp32 product leaves only rounding, and a component would be noise."""
    rank = int((values > 1e-6 * values[0]).sum())
    if rank < len(values):
        raise InputError(f"k must be at most {rank}, the number of components with variance, got {len(values)}")


def _meta(recorded: Recorded, model: DiffusionModel, k: int, joint: bool, seeds: tuple[int, ...]) -> DirectionsMeta:
    # Only the neighbours of one sample share their seed.
    local = len(set(seeds)) < len(seeds)
    return DirectionsMeta(
        space="h",
        provenance=recorded.provenance,
        model_id=model.model_id,
        method=f"pca{' joint' if joint else ''}{' local' if local else ''}",
        names=tuple(f"component {j}" for j in range(k)),
        unit="std",
        seeds=tuple(dict.fromkeys(seeds)),
    )
