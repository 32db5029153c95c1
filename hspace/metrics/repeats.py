"""Effect matrices, repeated over the seeds of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hspace.metrics.effect import EffectMatrix
from hspace.types import InputError


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
