"""Edits: strengths times directions, added over a window of steps, for many samples at once.

The edit is exactly strength x direction; what a strength means is in the direction's `unit`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hspace.checkpoints import DiffusionModel
from hspace.directions.base import Directions
from hspace.latents import Latents
from hspace.sample import sample
from hspace.types import InputError

Edits = Float[Tensor, "batch edits channel height width"]
"""Edited images, (batch, edits, channel, height, width)."""


def edit(
    model: DiffusionModel,
    latents: Latents,
    directions: Directions,
    *,
    component: int,
    strengths: Sequence[float],
    eta: float | Sequence[float] = 1.0,
    injection: str = "symmetric",
    start: int = 0,
    stop: int | None = None,
    batch_size: int = 16,
) -> Edits:
    """Every sample at every strength of one component.

    Args:
        model: The model that the directions belong to.
        latents: The samples to edit.
        directions: Directions of h or of x_T.
        component: Which of them.
        strengths: Factors of the direction; 0 leaves a sample as it is.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        injection: `symmetric` or `asyrp`.
        start: First edited step; 0 is the noisiest.
        stop: First step that is not edited any more; None edits to the end.
        batch_size: Rows (sample and strength) per pass.

    Returns:
        Images, (batch, strengths, channel, height, width), on the CPU.

    Raises:
        InputError: If the directions do not fit the model, or an argument is out of range.
    """
    directions.check(model)
    k = len(directions.directions)
    if not 0 <= component < k:
        raise InputError(f"component must be in [0, {k}), got {component}")
    weights = torch.zeros(len(strengths), k)
    weights[:, component] = torch.tensor(strengths, dtype=torch.float32)
    offsets = edit_offsets(directions, weights, len(model.schedule.timesteps), start, stop)
    return apply_offsets(model, latents, offsets, eta=eta, injection=injection, batch_size=batch_size)


def edit_offsets(
    directions: Directions, weights: Float[Tensor, "edits k"], num_steps: int, start: int = 0, stop: int | None = None
) -> Tensor:
    """Weighted sums of directions, so that several components can be edited at once.

    Args:
        directions: k directions of h or of x_T.
        weights: One row per edit, the strength of each component, (edits, k).
        num_steps: The model's number of steps.
        start: First edited step; 0 is the noisiest.
        stop: First step that is not edited any more; None edits to the end.

    Returns:
        Offsets of h, (edits, steps, channel, height, width), zero outside the window; of x_T, which has no steps,
        (edits, channel, height, width).

    Raises:
        InputError: If a weight is NaN or infinite, their number is not k, or the window is empty or too long.
    """
    vectors = directions.directions
    if weights.shape[1] != len(vectors) or not weights.isfinite().all():
        raise InputError(f"weights must be {len(vectors)} finite strengths per edit, got {weights.tolist()}")
    stop = num_steps if stop is None else stop
    if not 0 <= start < stop <= num_steps:
        raise InputError(f"the edited steps must satisfy 0 <= start < stop <= {num_steps}, got {start} to {stop}")
    offsets = torch.einsum("ek,k...->e...", weights, vectors)
    if directions.meta.space == "x_T":
        if (start, stop) != (0, num_steps):
            raise InputError(f"an edit of x_T has no steps; leave out start and stop, got {start} to {stop}")
        return offsets
    if offsets.shape[1] != num_steps:
        raise InputError(f"the directions have {offsets.shape[1]} steps, the model takes {num_steps}")
    offsets[:, :start] = 0
    offsets[:, stop:] = 0
    return offsets


def apply_offsets(
    model: DiffusionModel,
    latents: Latents,
    offsets: Tensor,
    *,
    eta: float | Sequence[float] = 1.0,
    injection: str = "symmetric",
    batch_size: int = 16,
) -> Edits:
    """Every sample under every edit.

    Args:
        model: The model to sample.
        latents: The samples to edit.
        offsets: From `edit_offsets`: of h, (edits, steps, channel, height, width), or of x_T without the steps.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        injection: `symmetric` or `asyrp`.
        batch_size: Rows (sample and edit) per pass.

    Returns:
        Images, (batch, edits, channel, height, width), on the CPU.

    Raises:
        InputError: If there is no edit, or an argument is out of range.
    """
    if batch_size < 1 or not len(offsets):
        raise InputError(f"batch_size and the number of edits must be >= 1, got {batch_size} and {len(offsets)}")
    num_edits = len(offsets)
    rows = torch.arange(len(latents.seeds) * num_edits)
    images = []
    for chunk in rows.split(batch_size):
        batch, delta = latents.select((chunk // num_edits).tolist()), offsets[chunk % num_edits]
        if offsets.ndim == 4:
            batch, delta = Latents(batch.seeds, batch.x_T + delta, batch.z), None
        images.append(sample(model, batch, eta=eta, delta_h=delta, injection=injection).x_0.cpu())
    return torch.cat(images).unflatten(0, (-1, num_edits))
