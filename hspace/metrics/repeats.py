"""Effect matrices, repeated: over the seeds of a table, and within subgroups of the samples."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hspace.metrics.effect import EffectMatrix, effect_matrix
from hspace.metrics.interval import MIN_SAMPLES
from hspace.types import InputError

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeedEffects:
    """Effects over the seeds of a table; a seed is a fresh set of evaluation samples, the directions stay.

    Attributes:
        attributes: Column ids, A of them.
        edits: Row ids, E of them.
        mean: (E, A) mean over seeds, in standard deviations of the unedited samples.
        sd: (E, A) standard deviation over seeds, n - 1: how much one table differs from the next, not the error of
            `mean`, which is sqrt(seeds) times smaller.
        seeds: Number of them.
    """

    attributes: tuple[str, ...]
    edits: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    seeds: int


def over_seeds(matrices: Sequence[EffectMatrix]) -> SeedEffects:
    """Mean and standard deviation of effect matrices that differ in their samples alone.

    Args:
        matrices: One per table seed, at least two, of the same edits and attributes.

    Raises:
        InputError: If there are fewer than two, or their rows or columns differ.

    Source: Haas et al. 2024, table I: 100 samples, 10 seeds.
    """
    if len(matrices) < 2:
        raise InputError(f"a spread over seeds needs at least two effect matrices, got {len(matrices)}")
    first = matrices[0]
    for matrix in matrices:
        if (matrix.edits, matrix.attributes) != (first.edits, first.attributes):
            raise InputError(
                f"effect matrices must have the same rows and columns, got {first.edits} by {first.attributes} and "
                f"{matrix.edits} by {matrix.attributes}"
            )
    effects = np.stack([matrix.effect for matrix in matrices])
    return SeedEffects(first.attributes, first.edits, effects.mean(axis=0), effects.std(axis=0, ddof=1), len(matrices))


def subgroups(scores: Tensor, visible: Tensor, *, attribute: str, binary: bool) -> dict[str, Tensor]:
    """Two groups of samples by one attribute of the unedited images.

    Args:
        scores: Of the attribute, (n,).
        visible: Which samples show it, (n,); the others are in no group.
        attribute: Its id, for the groups' names.
        binary: Whether scores are probabilities: then the groups meet at .5, else at the median of those visible.

    Returns:
        Masks (n,) by name, such as "age above median".

    Example:
        >>> ages = torch.tensor([0.1, 0.2, 0.8, 0.9])
        >>> groups = subgroups(ages, torch.tensor([True, True, True, False]), attribute="age", binary=False)
        >>> groups["age above median"]
        tensor([False, False,  True, False])
    """
    if not bool(visible.any()):
        raise InputError(f"no sample shows {attribute}, so that there are no groups of it")
    bound, name = (0.5, ".5") if binary else (float(scores[visible].double().quantile(0.5)), "median")
    return {
        f"{attribute} above {name}": visible & (scores > bound),
        f"{attribute} below {name}": visible & (scores <= bound),
    }


def subgroup_effects(
    original: Tensor,
    edited: Tensor,
    groups: Mapping[str, Tensor],
    *,
    attributes: Sequence[str],
    binary: Sequence[bool],
    edits: Sequence[str],
    unit: Tensor,
    visible: Tensor | None = None,
) -> dict[str, EffectMatrix]:
    """The effect matrix within each group of samples, in the unit of all, so that the groups compare.

    Args:
        original: Scores of the unedited samples, (n, A).
        edited: Scores of the same samples under each edit, (E, n, A).
        groups: Masks of samples by name, (n,) bool; a group of fewer than 10 is left out and reported.
        attributes: Column ids, A.
        binary: Which columns are probabilities, A.
        edits: Row ids, E.
        unit: The sd of each score over all unedited samples, (A,).
        visible: As in `effect_matrix`.

    Raises:
        InputError: As `effect_matrix`, or if a group is no mask of the samples.
    """
    seen = torch.ones(edited.shape, dtype=torch.bool) if visible is None else visible.expand(edited.shape)
    matrices = {}
    for name, members in groups.items():
        if members.dtype != torch.bool or members.shape != original.shape[:1]:
            raise InputError(f"group {name!r} must be a mask of {len(original)} samples, got {tuple(members.shape)}")
        if int(members.sum()) < MIN_SAMPLES:
            logger.warning("%d samples with %s are too few to measure effects on", int(members.sum()), name)
            continue
        matrices[name] = effect_matrix(
            original[members], edited[:, members], attributes=attributes, binary=binary, edits=edits,
            visible=seen[:, members], unit=unit,
        )  # fmt: skip
    return matrices
