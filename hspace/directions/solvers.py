"""PCA of samples on disk, exact while they fit a Gram matrix, by block Krylov above that."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hspace.directions.krylov import orthonormal_to
from hspace.system import distributed
from hspace.types import InputError

GRAM_LIMIT, GRAM_BYTES = 4000, 20
"""Most samples for the exact solver, a Gram matrix of 128 MB; bytes for each of its entries, see `gram_pca`."""
CHUNK_BYTES = 64 * 2**20
"""Size of the one piece of h that is in memory, if no limit asks for less."""
RESIDUAL = 1e-4
"""Block Krylov stops when |C v - λ v| is below this share of λ, for every component."""
GRAM_ROWS = 128
"""Rows of one product for the Gram matrix, of which only the lower triangle is needed."""


@dataclass(frozen=True)
class StepPCA:
    """PCA of one step, or of all in one; n samples of d features.

    Attributes:
        mean: (d,) float32.
        components: (k, d) float32 of unit norm, largest variance first; orthogonal unless rotated.
        explained_variance: (k,) float64, with n - 1.
        projections: (n, k) float64, of the centred samples on the components.
        residuals: (k,) float64 relative residuals; 0 for the exact solver.
    """

    mean: Tensor
    components: Tensor
    explained_variance: Tensor
    projections: Tensor
    residuals: Tensor

    def ordered(self, order: Tensor) -> "StepPCA":
        """The same PCA with the components in another order."""
        return replace(
            self,
            components=self.components[order],
            explained_variance=self.explained_variance[order],
            projections=self.projections[:, order],
            residuals=self.residuals[order],
        )

    def flipped(self, signs: Tensor) -> "StepPCA":
        """The same PCA with component j multiplied by signs[j]."""
        return replace(self, components=self.components * signs[:, None], projections=self.projections * signs)


def solver(n: int, memory: int | None) -> tuple[Callable[[np.ndarray, int, int], StepPCA], int]:
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

    Each of several processes has its own samples; they exchange only means, products and projections.

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
        new = orthonormal_to(basis, block[:, : d - basis.shape[1]])
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
    """Rows and columns of (steps, n, d) as a matrix in which all steps of a sample are one row."""
    steps, n, d = features.shape
    return n, steps * d


def _columns(features: np.ndarray, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of columns: their place, and a copy of them for all n samples."""
    steps, n, d = features.shape
    width = max(1, chunk // (4 * n))
    for step, start in itertools.product(range(steps), range(0, d, width)):
        piece = torch.from_numpy(np.array(features[step, :, start : start + width], dtype=np.float32))
        first = step * d + start
        yield slice(first, first + piece.shape[1]), piece


def _centred_rows(features: np.ndarray, mean: Tensor, chunk: int) -> Iterator[Tensor]:
    """Chunks of samples with the mean subtracted."""
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


def _check_rank(values: Tensor) -> None:
    """Refuses components below 1e-6 of the largest variance, where an fp32 product holds only rounding."""
    rank = int((values > 1e-6 * values[0]).sum())
    if rank < len(values):
        raise InputError(f"k must be at most {rank}, the number of components with variance, got {len(values)}")
