"""Covariances of few samples in many dimensions: shrunk towards the identity, and never formed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.types import InputError


@dataclass(frozen=True)
class ShrunkCovariance:
    """S = B^T diag(values) B + rest (I - B^T B), positive definite.

    Attributes:
        basis: B, (r, d) orthonormal rows: the span of the samples.
        values: Eigenvalues within the span, (r,), descending.
        rest: Eigenvalue of everything outside of it.
        shrinkage: Share of the identity, in [0, 1].
    """

    basis: Tensor
    values: Tensor
    rest: float
    shrinkage: float

    def power(self, vectors: Tensor, exponent: float) -> Tensor:
        """S^exponent applied to rows, (m, d) to (m, d)."""
        within = vectors @ self.basis.T
        outside = self.rest**exponent
        return outside * vectors + (within * (self.values**exponent - outside)) @ self.basis


def shrunk_covariance(samples: Tensor) -> ShrunkCovariance:
    """The Ledoit-Wolf estimate of the covariance of centred samples, in O(n² d).

    S = (1 - rho) X^T X / n + rho mu I, with mu the mean variance and rho the share that minimises the expected squared
    error. The Gram matrix X X^T holds all that rho needs.

    Args:
        samples: X, (n, d), n >= 2, centred; float64 is best. At least one must differ from 0.

    Raises:
        InputError: If the samples do not vary at all, as those of groups of one.

    Source: Ledoit & Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices; scikit-learn's
    `ledoit_wolf` gives the same.

    Examples:
        >>> samples = torch.randn(40, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> found = shrunk_covariance(samples - samples.mean(0))
        >>> found.shrinkage > 0.9
        True
    """
    if not samples.any():
        raise InputError("a covariance needs samples that vary within their groups: set method.k to 2 or more examples")
    n, d = samples.shape
    gram = samples @ samples.T
    trace = gram.trace() / n
    mu = trace / d
    squared_norm = gram.square().sum() / n**2
    spread = (squared_norm - d * mu.square()) / d
    noise = (gram.diagonal().square().sum() / n - squared_norm) / (d * n)
    shrinkage = float((noise.clamp(min=0).minimum(spread) / spread).clamp(0, 1)) if spread > 0 else 1.0
    eigenvalues, vectors = torch.linalg.eigh(gram)
    kept = eigenvalues > eigenvalues[-1] * n * torch.finfo(gram.dtype).eps
    eigenvalues, vectors = eigenvalues[kept].flip(0), vectors[:, kept].flip(1)
    basis = (vectors / eigenvalues.sqrt()).T @ samples
    values = (1 - shrinkage) * eigenvalues / n + shrinkage * mu
    # Without shrinkage there is no variance outside the span of the samples.
    rest = max(shrinkage * float(mu), float(values[-1]) * torch.finfo(gram.dtype).eps)
    return ShrunkCovariance(basis, values, rest, shrinkage)
