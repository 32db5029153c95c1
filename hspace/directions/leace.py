"""Removing attributes in the metric of the data (LEACE), where eq. 12 removes them in the plain metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, steps_together
from hspace.directions.record import Directions
from hspace.directions.shrinkage import shrunk_covariance
from hspace.types import InputError

INDEPENDENT = 1e-6
"""Singular values of the whitened cross-covariance below this share of the largest count as zero."""


@dataclass(frozen=True)
class Eraser:
    """The affine map x -> x - (x - mean) right^T left^T, after which no linear map of x says anything about z.

    Attributes:
        mean: Mean of the samples, (d,).
        left: Directions that are removed, (d, r).
        right: Readouts of x, (r, d), with right @ left = I.
    """

    mean: Tensor
    left: Tensor
    right: Tensor

    def erase(self, samples: Tensor) -> Tensor:
        """The erased samples, (n, d) to (n, d)."""
        return samples - ((samples - self.mean) @ self.right.T) @ self.left.T

    def project(self, directions: Tensor) -> Tensor:
        """The part of directions that a linear readout of z does not see, (m, d) to (m, d)."""
        return directions - (directions @ self.right.T) @ self.left.T


def fit_eraser(samples: Tensor, concepts: Tensor) -> Eraser:
    """The least change of the samples, in their own covariance, that leaves no linear trace of the concepts.

    P = I - W^-1 U U^T W with W = S_xx^(-1/2), S_xx shrunk, and U an orthonormal basis of the columns of W S_xz. The
    cross-covariance of the erased samples with the concepts is zero whatever the shrinkage.

    Args:
        samples: x, (n, d).
        concepts: z, (n, q): values, or 0 and 1; constant columns say nothing and are left out.

    Raises:
        InputError: If there are fewer than three samples, the lengths differ, or no concept varies.

    Source: Belrose et al. 2023 (arXiv 2306.03819), theorem 4.2; the shrinkage is Ledoit-Wolf's, since n << d.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = (torch.rand(100, 1, generator=generator) < 0.5).double()
        >>> x = torch.randn(100, 5, generator=generator, dtype=torch.float64) + 3 * z
        >>> erased = fit_eraser(x, z).erase(x)
        >>> bool((erased[z[:, 0] > 0].mean(0) - erased[z[:, 0] == 0].mean(0)).abs().max() < 1e-9)
        True
    """
    if len(samples) != len(concepts) or len(samples) < 3:
        raise InputError(f"erasing needs 3 or more samples with one row of concepts each, got {len(samples)}")
    x, z = samples.double(), concepts.double()
    mean = x.mean(0)
    centred, wanted = x - mean, z - z.mean(0)
    wanted = wanted[:, wanted.std(0) > 0]
    if not wanted.shape[1]:
        raise InputError("erasing needs a concept that varies among the samples, got constant ones")
    covariance = shrunk_covariance(centred)
    crossed = (wanted / wanted.std(0)).T @ centred / len(x)
    _, singular_values, rows = torch.linalg.svd(covariance.power(crossed, -0.5), full_matrices=False)
    basis = rows[singular_values > INDEPENDENT * singular_values[0]]
    return Eraser(mean, covariance.power(basis, 0.5).T, covariance.power(basis, -0.5))


def erase_conditions(
    directions: Directions, recorded: Recorded, annotations: Annotations, conditions: Sequence[str]
) -> Directions:
    """Removes conditions from directions of h, at each step in the metric of h there: v = P v_0.

    Adding v changes no linear prediction of the conditions from h, where eq. 12 makes v orthogonal to their directions.

    Args:
        directions: v_0, k directions of h.
        recorded: h of the annotated samples, in their order.
        annotations: Scores of the conditions; samples that hide one are left out.
        conditions: Names of attributes.

    Raises:
        InputError: If h and scores are not of the same samples of one model, the directions are not of h, or a
            condition is unknown or does not vary.

    Source: Belrose et al. 2023 (arXiv 2306.03819), used as a projection of directions.
    """
    if directions.meta.space != "h":
        raise InputError("LEACE removes conditions from directions of h, got directions of x_T")
    steps = steps_together(recorded, annotations)
    columns = [annotations.column(condition) for condition in conditions]
    shown = annotations.visible[:, columns].all(dim=1)
    concepts, vectors = annotations.scores[shown][:, columns], directions.directions.flatten(2).double()
    parts = [fit_eraser(h[shown], concepts).project(vectors[:, step]) for step, h in enumerate(steps)]
    erased = torch.stack(parts, dim=1).float().reshape(directions.directions.shape)
    names = tuple(f"{name} without {', '.join(conditions)}"[:200] for name in directions.meta.names)
    meta = replace(
        directions.meta, names=names, method=f"{directions.meta.method}, conditions erased", calibration=None, report={}
    )
    return Directions(erased, meta)
