"""The distance of an edited h from those of the model's own samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.recording import Recorded
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.operators import Found, Operator
from hspace.directions.solvers import gram_pca
from hspace.edits.changes import Map
from hspace.edits.sums import edit_offsets
from hspace.system.shards import in_batches
from hspace.types import HTrajectory, InputError, Seeds

RANK = 20
"""Components of h that distances are measured with, where samples and features allow as many."""
SHARE = 3
"""Samples for each of these components; with nearly as many components, unseen samples would lie far away."""
ROWS = 256
"""Samples in memory at a time."""


@dataclass(frozen=True)
class HGaussian:
    """A Gaussian of h at each step: `rank` principal components and one variance for all that is left.

    The covariance is V diag(variance) V^T + residual (I - V V^T).

    Attributes:
        mean: Means, (steps, d) float32.
        components: V, orthonormal rows, (steps, rank, d) float32.
        variance: Variance along each component, (steps, rank) float64.
        residual: Variance along each direction outside the components, (steps,) float64.
    """

    mean: Tensor
    components: Tensor
    variance: Tensor
    residual: Tensor

    @property
    def rank(self) -> int:
        """Number of components."""
        return self.components.shape[1]

    def distance(self, h: HTrajectory) -> Tensor:
        """Mahalanobis distance of each sample at each step, over sqrt(d), so that the fitted samples lie about 1 away.

        sqrt((h - mean)^T C^-1 (h - mean) / d), in standard deviations; unseen samples are farther where there were
        fewer samples than dimensions, so compare edited ones with unedited ones of the same seeds.

        Args:
            h: The h of every step, (batch, steps, *h_shape).

        Returns:
            Distances, (batch, steps) float64, >= 0.

        Raises:
            InputError: If h has other steps or another size.
        """
        rows = h.flatten(2)
        if rows.shape[1:] != self.mean.shape:
            raise InputError(f"h must be {tuple(self.mean.shape)} steps and features, got {tuple(rows.shape[1:])}")
        centred = rows.double() - self.mean
        along = torch.einsum("bsd,srd->bsr", centred, self.components.double())
        left = (centred.square().sum(dim=2) - along.square().sum(dim=2)).clamp(min=0)
        squared = (along.square() / self.variance).sum(dim=2) + left / self.residual
        return (squared / rows.shape[2]).sqrt()


def fit_gaussian(recorded: Recorded, rank: int) -> HGaussian:
    """Fits a Gaussian to recorded h at every step by maximum likelihood, but with n - 1.

    The residual variance is the mean over the d - rank directions outside the components, so that a rank near the
    number of samples leaves next to none and the distance of unseen samples grows without bound: state the rank.

    Args:
        recorded: Recorded h of n discovery samples.
        rank: Number of principal components, from 1 to min(n - 2, d - 1).

    Raises:
        InputError: If there are too few samples or features, the rank is out of range, or h has fewer components with
            variance.

    Source: Tipping & Bishop 1999 (J. R. Stat. Soc. B 61, 611-622), probabilistic PCA.
    """
    features = recorded.open()
    _, n, d = features.shape
    if min(n - 2, d - 1) < 1:
        raise InputError(f"a Gaussian of h needs 3 samples and 2 features at least, got {n} and {d}")
    if not 1 <= rank <= min(n - 2, d - 1):
        raise InputError(f"rank must be from 1 to {min(n - 2, d - 1)} for {n} samples of {d} features, got {rank}")
    steps = [gram_pca(features[i : i + 1], rank) for i in range(len(features))]
    totals = torch.tensor([_total_variance(features[i], step.mean.numpy()) for i, step in enumerate(steps)])
    variance = torch.stack([step.explained_variance for step in steps])
    return HGaussian(
        mean=torch.stack([step.mean for step in steps]),
        components=torch.stack([step.components for step in steps]),
        variance=variance,
        residual=(totals - variance.sum(dim=1)) / (d - rank),
    )


def own_gaussian(recorded: Recorded) -> HGaussian:
    """`fit_gaussian` with the usual number of components, or fewer of few features or samples, which must leave a rest.

    Raises:
        InputError: As `fit_gaussian` does.
    """
    _, n, d = recorded.open().shape
    return fit_gaussian(recorded, min(RANK, n // SHARE, d - 1))


def off_manifold(
    model: DiffusionModel,
    directions: Found,
    gaussian: HGaussian,
    seeds: Seeds,
    *,
    component: int,
    strength: float,
    sampler: Sampler = Sampler(),
) -> Tensor:
    """The increase of the distance of h from the model's own samples by an edit, at each step.

    It is distance(edited h) - distance(unedited h) of each sample, where the edited h is the one that the decoder gets:
    that of the edited trajectory with the edit. 0 costs nothing; the distance of a sample of the model is about 1.

    Args:
        model: The model that the directions belong to.
        directions: Directions of h or of x_T, or an operator.
        gaussian: Gaussian of h on discovery seeds, from `fit_gaussian`.
        seeds: Seeds of at least two evaluation samples.
        component: Index of the direction; 0 for an operator.
        strength: Strength, in the direction's unit.
        sampler: Settings of the sampling and of the edited steps.

    Returns:
        Differences, (samples, steps) float64, of Mahalanobis distances over sqrt(d).

    Raises:
        InputError: If the directions do not fit the model, there are fewer than two seeds, or an argument is out of
            range.
    """
    fitting = directions.fit(model, eta=sampler.eta)
    if len(seeds) < 2:
        raise InputError(f"the cost of an edit needs at least two samples, got {len(seeds)}")
    if isinstance(fitting, Operator):
        change, space = strength * fitting, "h"
    else:
        weights = strength * torch.eye(len(fitting.directions))[component][None]
        change = edit_offsets(fitting, weights, len(model.process.timesteps), sampler.start, sampler.stop)
        space = fitting.meta.space

    def make(rows: range) -> Tensor:
        latents = model.latents([seeds[row] for row in rows])
        before, after = distances(model, latents, change, gaussian, space=space, sampler=sampler)
        return after - before

    return in_batches(range(len(seeds)), sampler.batch_size, make)


def distances(
    model: DiffusionModel,
    latents: Latents,
    change: Tensor | Map,
    gaussian: HGaussian,
    *,
    space: str = "h",
    sampler: Sampler = Sampler(),
) -> tuple[Tensor, Tensor]:
    """Distances of h without and with an edit from the model's own samples, (batch, steps) each; see `off_manifold`.

    Args:
        model: The model to sample.
        latents: The samples, in one batch.
        change: Operator, perhaps with an offset beside it, or offset of h, (1, steps, *h_shape), or of x_T, (1,
            channel, height, width).
        gaussian: Gaussian of h on discovery seeds.
        space: Space of an offset, `h` or `x_T`.
        sampler: Settings of the sampling and of the edited steps.
    """
    act = _adding(change) if isinstance(change, Tensor) else change
    of_x_T = change if isinstance(change, Tensor) and space == "x_T" else None
    edited = latents if of_x_T is None else replace(latents, x_T=latents.x_T + of_x_T.to(latents.x_T))
    edit = None if of_x_T is not None else lambda step, encoded: act(step, encoded.h)
    before = sample(model, latents, sampler=sampler, record_h=True).h
    after = sample(model, edited, sampler=sampler, edit=edit, record_h=True).h
    assert before is not None and after is not None
    # What is recorded is h before the edit.
    for step in sampler.window(len(model.process.timesteps)) if of_x_T is None else ():
        after[:, step] = act(step, after[:, step])
    return gaussian.distance(before.cpu()), gaussian.distance(after.cpu())


def _adding(offset: Tensor) -> Callable[[int, Tensor], Tensor]:
    """The function of a step and its h that adds an offset of h, (1, steps, *h_shape)."""
    return lambda step, h: h + offset[:, step].to(h)


def _total_variance(features: np.ndarray, mean: np.ndarray) -> float:
    """Sum of the variances of all features, with n - 1, of (n, d)."""
    chunks = (features[first : first + ROWS].astype(np.float64) - mean for first in range(0, len(features), ROWS))
    return sum(float(np.square(chunk).sum()) for chunk in chunks) / (len(features) - 1)
