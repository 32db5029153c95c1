"""Top singular triplets of a matrix of which only products with blocks of vectors are known."""

import logging
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

MAX_PRODUCTS_PER_TRIPLET = 200
"""Number of products at which the search ends with a warning if it has not converged; a triplet takes about ten."""


@runtime_checkable
class LinearMap(Protocol):
    """A linear map J from tensors of one shape to tensors of another; every product takes and gives a block."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def jvp(self, v: Tensor) -> Tensor:
        """J v for every v, (block, *in_shape) to (block, *out_shape)."""
        ...

    def vjp(self, u: Tensor) -> Tensor:
        """J^T u for every u, (block, *out_shape) to (block, *in_shape)."""
        ...


@dataclass(frozen=True)
class Triplets:
    """The k largest singular triplets, J v = s u.

    Attributes:
        u: (k, *out_shape), orthonormal; exactly J v / s.
        s: (k,), descending.
        v: (k, *in_shape), orthonormal; the entry of largest magnitude is positive.
        residuals: (k,) of |J^T J v - s² v| / s_1², computed from the products themselves.
        products: Number of vectors that J or J^T was applied to.
    """

    u: Tensor
    s: Tensor
    v: Tensor
    residuals: Tensor
    products: int


@dataclass(frozen=True)
class _Space:
    """Orthonormal columns V, and J V and J^T J V."""

    basis: Tensor
    images: Tensor
    normal: Tensor

    def extended(self, operator: LinearMap, block: Tensor) -> "_Space":
        """The space with more columns, each of which costs one product of either kind."""
        image = operator.jvp(block.T.unflatten(1, operator.in_shape)).flatten(1)
        normal = operator.vjp(image.unflatten(1, operator.out_shape)).flatten(1)
        new = (block, image.T, normal.T)
        return _Space(*(torch.cat(pair, dim=1) for pair in zip(self.columns, new, strict=True)))

    def rotated(self, rotation: Tensor) -> "_Space":
        return _Space(*(part @ rotation for part in self.columns))

    def leading(self, k: int) -> tuple[Tensor, Tensor]:
        """U and V of the first k triplets, once the columns are those of triplets: J V is U times descending values."""
        q, r = torch.linalg.qr(self.images[:, :k])
        return q * r.diagonal().sign(), self.basis[:, :k]

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.basis, self.images, self.normal


def top_triplets(operator: LinearMap, k: int, *, tolerance: float = 1e-4, block_size: int | None = None) -> Triplets:
    """Block Golub-Kahan-Lanczos with full reorthogonalisation and thick restarts.

    Every block is J^T J times the one before it, projected off all earlier ones; the triplets are those of J on the
    space they span. A space of 2 k + 10 blocks is restarted from its best half, so that at most (2 n + p)(2 k + 10
    block_size) numbers are kept for a p x n matrix. The start is always the same Gaussian block.

    Args:
        operator: J.
        k: Number of triplets, at most the rank of J.
        tolerance: Largest relative residual of any triplet; the angle of the subspace is about this over the gap
            (s_k² - s_{k+1}²) / s_1².
        block_size: Number of vectors per product; a smaller one takes less memory and finds the same, but of exactly
            repeated singular values at most this many copies. None is min(k, 2).

    Raises:
        InputError: If an argument is out of range or J has fewer than k nonzero singular values.

    Source: Golub, Luk & Overton 1981, block Lanczos; Wu & Simon 2000, thick restart. In place of the subspace iteration
    of Haas et al. 2024, algorithm 1, which forgets all but its last block, and of the blockwise deflation of their
    algorithm 2: here the vectors already found stay in the space, so that new blocks are projected off them anyway.
    """
    _check(operator, k, tolerance, block_size)
    n, p = math.prod(operator.in_shape), math.prod(operator.out_shape)
    size = min(k, 2) if block_size is None else block_size
    empty = [torch.zeros(rows, 0, dtype=operator.dtype, device=operator.device) for rows in (n, p, n)]
    space, products = _Space(*empty), 0
    block = orthonormal_to(space.basis, _start(operator, n, size))
    while True:
        space, products = space.extended(operator, block), products + 2 * block.shape[1]
        s, rotation = _right_singular(space.images)
        best = space.rotated(rotation.mT)
        residuals = (best.normal - best.basis * s**2).norm(dim=0)[:k] / s[0].clamp(min=torch.finfo(s.dtype).tiny) ** 2
        if len(residuals) == k and bool((residuals <= tolerance).all()):
            break
        if space.basis.shape[1] == n or products > MAX_PRODUCTS_PER_TRIPLET * k:
            log.warning("%d products left a residual of %.1e > %.1e", products, float(residuals.max()), tolerance)
            break
        block = orthonormal_to(space.basis, space.normal[:, -size:])[:, : n - space.basis.shape[1]]
        if space.basis.shape[1] + size > 2 * k + 10 * size:
            space = best.rotated(torch.eye(len(s), k + 5 * size, dtype=s.dtype, device=s.device))
    return _triplets(operator, *best.leading(k), s[:k], residuals, products)


def _right_singular(images: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values and right vectors (as rows) of a tall matrix."""
    # Of the small triangle, on the CPU: a GPU takes far longer for the singular values of a tall matrix.
    triangle = torch.linalg.qr(images, mode="r").R
    _, s, rotation = torch.linalg.svd(triangle.cpu(), full_matrices=False)
    return s.to(images.device), rotation.to(images.device)


def _triplets(operator: LinearMap, space_u: Tensor, v: Tensor, s: Tensor, residuals: Tensor, products: int) -> Triplets:
    """Columns to tensors, with the sign fixed."""
    rank = int((s > 10 * torch.finfo(s.dtype).eps * s[0]).sum())
    if rank < len(s):
        raise InputError(f"k must be at most {rank}, the number of nonzero singular values, got {len(s)}")
    largest = v.gather(0, v.abs().argmax(dim=0, keepdim=True))
    u, v = (space_u * largest.sign()).T, (v * largest.sign()).T
    return Triplets(u.unflatten(1, operator.out_shape), s, v.unflatten(1, operator.in_shape), residuals, products)


def _start(operator: LinearMap, n: int, size: int) -> Tensor:
    """Gaussian columns, drawn on the CPU so that they are the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, size, generator=generator).to(operator.device, operator.dtype)


def orthonormal_to(basis: Tensor, columns: Tensor) -> Tensor:
    """Orthonormal columns of the part of `columns` outside the span of `basis`."""
    # Twice is enough (Parlett): the second pass removes what rounding left of the first.
    for _ in range(2):
        columns = torch.linalg.qr(columns - basis @ (basis.T @ columns)).Q
    return columns


def _check(operator: LinearMap, k: int, tolerance: float, block_size: int | None) -> None:
    most = min(math.prod(operator.in_shape), math.prod(operator.out_shape))
    if not 1 <= k <= most:
        raise InputError(f"k must be from 1 to {most}, the smaller side of the Jacobian, got {k}")
    if block_size is not None and not 1 <= block_size <= most:
        raise InputError(f"block_size must be from 1 to {most}, got {block_size}")
    least = 50 * torch.finfo(operator.dtype).eps
    if not least <= tolerance < 1:
        raise InputError(f"tolerance must be in [{least:.0e}, 1) in {operator.dtype}, got {tolerance}")
