"""Stability: whether directions found again, on other samples, steps or eta, span the same space."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.provenance import ProcessFacts
from hspace.directions.record import Directions
from hspace.types import InputError


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles between the spans of two sets of vectors, in degrees, smallest first.

    0 is a shared direction, 90 one that the other set has nothing of; two random sets of k of d dimensions, k << d, lie
    near 90. Signs, scales and the order within a set do not matter. From the sines where the angle is small, which its
    cosine no longer resolves.

    Args:
        a: (k, ...) vectors, flattened behind the first axis and linearly independent.
        b: (m, ...) vectors of the same size.

    Returns:
        (min(k, m),) float64 in [0, 90].

    Raises:
        InputError: If the vectors are of unlike size or a set is linearly dependent.

    Source: Björck & Golub 1973 (Math. Comp. 27, 579-594).
    """
    if a[0].numel() != b[0].numel():
        raise InputError(f"principal angles need vectors of one size, got {[*a.shape[1:]]} and {[*b.shape[1:]]}")
    first, second = sorted((_basis(a), _basis(b)), key=lambda basis: basis.shape[1], reverse=True)
    cosine = torch.linalg.svdvals(first.T @ second).clamp(0, 1)
    sine = torch.linalg.svdvals(second - first @ (first.T @ second)).flip(0).clamp(0, 1)
    return torch.where(cosine**2 > 0.5, sine.asin(), cosine.acos()).rad2deg()


def stability(sets: Sequence[Directions], *, per_step: bool = False) -> np.ndarray:
    """Mean principal angle of every pair of direction sets, such as those of other seeds or sample sizes.

    Args:
        sets: R >= 2 sets of directions at the same model times (see `at_timesteps`), of one space.
        per_step: Whether to compare each step's part by itself instead of the concatenation of all.

    Returns:
        (R, R) degrees, or (steps, R, R); 0 on the diagonal, symmetric.

    Raises:
        InputError: If there are fewer than two sets, or they lie at other model times or in another space.
    """
    if len(sets) < 2:
        raise InputError(f"stability needs at least two sets of directions, got {len(sets)}")
    for each in sets:
        if (each.meta.timesteps, each.meta.space) != (sets[0].meta.timesteps, sets[0].meta.space):
            raise InputError(
                f"sets of directions must be of one space and at the same model times, got {sets[0].meta.space} at "
                f"{sets[0].meta.timesteps} and {each.meta.space} at {each.meta.timesteps}"
            )
    if per_step:
        if sets[0].meta.space != "h":
            raise InputError("directions of x_T have no steps to compare one by one")
        return np.stack([_pairwise([d.directions[:, i] for d in sets]) for i in range(len(sets[0].meta.timesteps))])
    return _pairwise([each.directions for each in sets])


def at_timesteps(directions: Directions, timesteps: Sequence[float]) -> Directions:
    """Directions of h at other model times: each takes the nearest time that was found, to compare or to try.

    Args:
        directions: Directions of h.
        timesteps: Model times, descending.

    Raises:
        InputError: If these are directions of x_T, or the times are no valid ones.
    """
    if directions.meta.space != "h":
        raise InputError("directions of x_T have no steps to be taken at other model times")
    found = torch.tensor(directions.meta.timesteps)
    nearest = (torch.tensor(timesteps)[:, None] - found).abs().argmin(dim=1)
    origin = directions.meta.provenance
    eta = origin.eta and tuple(origin.eta[i] for i in nearest.tolist())
    process = ProcessFacts(tuple(timesteps), (), origin.process.prediction_type)
    meta = replace(directions.meta, provenance=replace(origin, process=process, eta=eta))
    return Directions(directions.directions[:, nearest].contiguous(), meta)


def _pairwise(sets: Sequence[Tensor]) -> np.ndarray:
    angles = np.zeros((len(sets), len(sets)))
    for i in range(len(sets)):
        for j in range(i):
            angles[i, j] = angles[j, i] = float(principal_angles(sets[i], sets[j]).mean())
    return angles


def _basis(vectors: Tensor) -> Tensor:
    """Orthonormal columns that span the vectors, (d, k) float64."""
    rows = vectors.flatten(1).double()
    # Scaled first: what is a dependent set must not depend on how long its vectors are.
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    q, r = torch.linalg.qr(rows.T)
    if len(rows) > rows.shape[1] or not bool((r.diagonal().abs() > 1e-6).all()):
        raise InputError(f"{len(rows)} vectors of {rows.shape[1]} numbers are linearly dependent")
    return q
