"""Effect matrices of several draws of examples, as one."""

from collections.abc import Sequence

import numpy as np

from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import MIN_DRAWS
from hspace.metrics.paired import paired_draws
from hspace.types import InputError


def intervals_over(draws: int, of: str = "draws of examples and samples") -> str:
    """Words for a caption, such as "with 95% intervals over 5 draws of examples and samples"."""
    return f"with 95% intervals over {draws} {of}" if draws >= MIN_DRAWS else f"{draws} {of}, too few for intervals"


def matrices_over_draws(matrices: Sequence[EffectMatrix]) -> EffectMatrix:
    """The mean of effect matrices, one for each draw of examples and samples, with intervals over the draws.

    Args:
        matrices: Effect matrices of the same edits and attributes.

    Returns:
        A matrix whose n counts draws; its limits and p values are nan with fewer than five of them.

    Raises:
        InputError: If there is none, or their rows or columns differ.

    Source: Haas et al. 2024, table I, has 10 seeds; ours differ in their examples too.
    """
    shapes = {(matrix.edits, matrix.attributes) for matrix in matrices}
    if len(shapes) != 1:
        raise InputError(f"effect matrices must have the same rows and columns, got {len(shapes)} kinds of them")
    effects = np.stack([matrix.effect for matrix in matrices])
    found = [[paired_draws(column, 0 * column) for column in row] for row in np.moveaxis(effects, 0, -1)]
    value, low, high, n, p = np.moveaxis(np.array([[(*cell, p) for cell, p in row] for row in found]), -1, 0)
    known, off = np.isfinite(effects).astype(int), np.nan_to_num(effects - value)
    # Only draws that have both effects tell of a pair: the diagonal is the squared error of the interval beside it.
    pairs = np.maximum(np.einsum("dei,dej->eij", known, known), 1)
    covariance = np.einsum("dei,dej->eij", off, off) / np.maximum(pairs - 1, 1) / pairs
    first = matrices[0]
    return EffectMatrix(first.attributes, first.edits, value, low, high, p, n.astype(int), covariance)
