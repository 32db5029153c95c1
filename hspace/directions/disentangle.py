# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Disentangling (eq. 12): removing from a direction what other directions explain of it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hspace.directions.record import Directions
from hspace.types import InputError

SPANNED = 1e-3
"""Share of its norm that must remain of a direction; less is rounding and noise, not a direction."""
DEPENDENT = 1e-6
"""Share below which a condition's part outside the span of the others is float32 rounding, and counts as inside."""


def disentangle(
    directions: Directions,
    conditions: Sequence[Directions],
    *,
    per_step: bool = False,
    renormalise: bool = False,
    allow: Sequence[str] = (),
) -> Directions:
    """Project off the conditions: v = (I - V (V^T V)^-1 V^T) v_0, V all directions of all conditions.

    Args:
        directions: The k directions v_0, each projected by itself.
        conditions: Directions that v becomes orthogonal to; they may depend on each other linearly.
        per_step: Whether each step is projected by itself. Otherwise all steps share one coefficient per condition, as
            in the paper: v is orthogonal to the conditions as a trajectory, not at each step.
        renormalise: Whether v gets the norm of v_0 back (with `per_step` at each step). Otherwise it is shorter, as in
            the paper, and the same strength is a weaker edit.
        allow: Fields of `Provenance` in which conditions may differ from the directions.

    Returns:
        The directions, named "v_0 without conditions"; method and unit say how they were made.

    Raises:
        InputError: If there is no condition, one does not fit the directions, or the conditions span a direction: less
            than a thousandth of its norm remains.

    Source: Haas et al. 2024, eq. 12; by an orthonormal basis of V instead of the inverse.

    Examples:
        >>> from hspace.diffusion.checkpoints import load_model
        >>> model = load_model("portraits", num_steps=10)
        >>> axes = torch.zeros(2, *model.h_shape).flatten(1)
        >>> axes[:, 0], axes[1, 1] = 1.0, 1.0
        >>> glasses, age = (Directions.of(model, axis.reshape(1, *model.h_shape)) for axis in (axes[1], axes[0]))
        >>> free = disentangle(glasses, [age])
        >>> float((free.directions * age.directions).sum().abs()) < 1e-4
        True
    """
    _check(directions, conditions, per_step, allow)
    start = 2 if per_step else 1
    v_0 = directions.directions.double()
    spanning = torch.cat([condition.directions.double() for condition in conditions])
    v = _project_off(_grouped(v_0, start), _grouped(spanning, start)).reshape(v_0.shape)
    before, after = (_grouped(vectors, start).norm(dim=-1) for vectors in (v_0, v))
    _check_remaining(after, before, directions.meta.names, per_step)
    if renormalise:
        scale = torch.where(after > 0, before / after, 0.0)
        v = (_grouped(v, start) * scale[..., None]).reshape(v_0.shape)
    return _like(directions, conditions, v.float(), per_step, renormalise)


def _grouped(vectors: Tensor, start: int) -> Tensor:
    """(k, groups, d): the groups are projected apart, one per step or one in all."""
    return vectors.flatten(start)[:, None] if start == 1 else vectors.flatten(start)


def _project_off(vectors: Tensor, conditions: Tensor) -> Tensor:
    """The part of the vectors (k, groups, d) that is orthogonal to all conditions (m, groups, d) of the same group."""
    unit = conditions / conditions.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(conditions.dtype).tiny)
    basis, singular_values, _ = torch.linalg.svd(unit.permute(1, 2, 0), full_matrices=False)
    basis = basis * (singular_values > DEPENDENT * singular_values[:, :1])[:, None]
    # Twice is enough (Parlett): the second pass removes what rounding left of the first.
    for _ in range(2):
        coefficients = torch.einsum("gdr,kgd->kgr", basis, vectors)
        vectors = vectors - torch.einsum("gdr,kgr->kgd", basis, coefficients)
    return vectors


def _check(directions: Directions, conditions: Sequence[Directions], per_step: bool, allow: Sequence[str]) -> None:
    if not conditions:
        raise InputError("disentangling needs at least one condition, got none")
    if per_step and directions.meta.space == "x_T":
        raise InputError("directions of x_T have no steps to project one by one, use per_step=False")
    for condition in conditions:
        ours, theirs, label = directions.meta, condition.meta, ", ".join(condition.meta.names)
        if ours.space != theirs.space:
            raise InputError(f"condition {label} does not fit: space is {theirs.space}, of the direction {ours.space}")
        # The annotator may differ: the direction lies in the same space.
        theirs.provenance.check(replace(ours.provenance, annotator=None), f"conditions {label}", allow)


def _check_remaining(after: Tensor, before: Tensor, names: Sequence[str], per_step: bool) -> None:
    spanned = torch.nonzero(after < SPANNED * before).tolist()
    if spanned:
        k, group = spanned[0]
        share, step = float(after[k, group] / before[k, group]), f" at step {group}" if per_step else ""
        raise InputError(
            f"the conditions span {names[k]}{step}: {share:.1e} of its norm remains, at least {SPANNED:g} must"
        )


def _like(
    directions: Directions, conditions: Sequence[Directions], v: Tensor, per_step: bool, renormalise: bool
) -> Directions:
    """`v` with the metadata of the directions that it was made from."""
    meta = directions.meta
    without = ", ".join(name for condition in conditions for name in condition.meta.names)
    seeds = (seed for source in (directions, *conditions) for seed in source.meta.seeds)
    meta = replace(
        meta,
        names=tuple(f"{name} without {without}"[:200] for name in meta.names),
        method=f"{meta.method}, disentangled{' per step' if per_step else ''}",
        unit=f"{meta.unit}, {'norm restored' if renormalise else 'projected'}",
        seeds=tuple(dict.fromkeys(seeds)),
        calibration=None,
        report={},
    )
    return Directions(v, meta)
