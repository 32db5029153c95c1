"""Angles between the spans of two sets of vectors, which say whether directions are found again."""

import torch
from torch import Tensor

from hspace.types import InputError


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles between the spans of two sets of vectors, in degrees, smallest first.

    0 is a shared direction, 90 one that the other set does not contain at all; two random sets of k of d dimensions,
    k << d, lie near 90. Signs, scales and the order within a set do not matter. Small angles are computed from their
    sines, since cosines do not resolve them.

    Args:
        a: Linearly independent vectors, (k, ...), flattened behind the first axis.
        b: Vectors of the same size, (m, ...).

    Returns:
        Angles, (min(k, m),) float64 in [0, 90].

    Raises:
        InputError: If the vectors differ in size or a set is linearly dependent.

    Source: Björck & Golub 1973 (Math. Comp. 27, 579-594).

    Examples:
        >>> x, y, z = torch.eye(3, dtype=torch.float64)
        >>> principal_angles(torch.stack([x, y]), torch.stack([x, y + z])).round(decimals=3).tolist()
        [0.0, 45.0]
    """
    if a[0].numel() != b[0].numel():
        raise InputError(f"principal angles need vectors of one size, got {[*a.shape[1:]]} and {[*b.shape[1:]]}")
    first, second = sorted((_basis(a), _basis(b)), key=lambda basis: basis.shape[1], reverse=True)
    cosine = torch.linalg.svdvals(first.T @ second).clamp(0, 1)
    sine = torch.linalg.svdvals(second - first @ (first.T @ second)).flip(0).clamp(0, 1)
    return torch.where(cosine**2 > 0.5, sine.asin(), cosine.acos()).rad2deg()


def _basis(vectors: Tensor) -> Tensor:
    """Orthonormal columns that span the vectors, (d, k) float64."""
    rows = vectors.flatten(1).double()
    # Scaling comes first: whether a set is dependent must not depend on the lengths of its vectors.
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    q, r = torch.linalg.qr(rows.T)
    if len(rows) > rows.shape[1] or not bool((r.diagonal().abs() > 1e-6).all()):
        raise InputError(f"{len(rows)} vectors of {rows.shape[1]} numbers are linearly dependent")
    return q
