"""Rotations of joint principal components, which trade the order of variance for directions that are simpler.

The loadings L, (d, k), are components times their standard deviations; the scores z, (n, k), are uncorrelated with unit
variance, and a sample is the mean + L z. For any rotation R the same sample is the mean + (L R) (Rᵀ z), and the scores
Rᵀ z are uncorrelated with unit variance too: a column of L R is what one standard deviation of a rotated score changes.
"""

import logging
import warnings
from dataclasses import replace
from typing import Any, Literal

import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from hspace.directions.solvers import StepPCA

log: logging.Logger = logging.getLogger(__name__)

Rotation = Literal["varimax", "ica"]

ITERATIONS = 1000
"""Largest number of iterations of a rotation."""
TOLERANCE = 1e-7
"""Relative growth of varimax's criterion at which its iterations end."""


def rotated(solution: StepPCA, rotation: Rotation) -> StepPCA:
    """The same subspace and the same samples, described by rotated components, largest variance first.

    Args:
        solution: k principal components.
        rotation: `varimax` makes each direction large in few entries of h (Kaiser 1958); `ica` makes the scores as
            independent as a rotation can (FastICA, Hyvärinen 1999).

    Returns:
        Components of unit norm, which are not orthogonal any more, with the variance of each.
    """
    sd = solution.explained_variance.sqrt()
    loadings = solution.components.double().T * sd
    scores = solution.projections / sd
    turn = varimax(loadings) if rotation == "varimax" else _independent(scores)
    loadings, scores = loadings @ turn, scores @ turn
    order = loadings.square().sum(dim=0).argsort(descending=True)
    norms = loadings.norm(dim=0)[order]
    return replace(
        solution,
        components=(loadings[:, order] / norms).T.float(),
        explained_variance=norms.square(),
        projections=scores[:, order] * norms,
        residuals=solution.residuals.max().expand_as(norms),
    )


def varimax(loadings: Tensor) -> Tensor:
    """The rotation under which the squares of each column's entries vary most.

    It maximises the sum over columns of the variance of the squared entries, by the ascent of ten Berge that takes a
    polar factor in each iteration.

    Args:
        loadings: (d, k).

    Returns:
        Orthogonal (k, k).

    Source: Kaiser 1958, "The varimax criterion for analytic rotation in factor analysis", the raw criterion.
    """
    turn, before = torch.eye(loadings.shape[1], dtype=loadings.dtype), 0.0
    for _ in range(ITERATIONS):
        now = loadings @ turn
        gradient = loadings.T @ (now**3 - now * now.square().mean(dim=0))
        u, s, vt = torch.linalg.svd(gradient)
        turn, reached = u @ vt, float(s.sum())
        if reached <= before * (1 + TOLERANCE):
            break
        before = reached
    else:
        log.warning("rotation=varimax has not converged after %d iterations", ITERATIONS)
    return turn


def _independent(scores: Tensor) -> Tensor:
    """The rotation that FastICA finds; the scores are white already."""
    whiten: Any = False  # as it takes, though the type of its default is str
    ica = FastICA(whiten=whiten, max_iter=ITERATIONS, tol=1e-5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(scores.numpy())
    if ica.n_iter_ >= ITERATIONS:
        log.warning(
            "rotation=ica has not converged on %d samples, so its components are as good as any: take more samples, or "
            "fewer components", len(scores),
        )  # fmt: skip
    # Symmetric decorrelation leaves rounding only.
    u, _, vt = torch.linalg.svd(torch.from_numpy(ica.components_.T.copy()))
    return u @ vt
