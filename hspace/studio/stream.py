"""Edits that can be watched while they are made: the predicted clean image of every step, then the image itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import NotFinite, adding, reverse
from hspace.edits.changes import Map, operating
from hspace.types import Images


@torch.no_grad()
def watched(
    model: DiffusionModel,
    latents: Latents,
    edits: Tensor | Sequence[Map],
    *,
    space: str = "h",
    sampler: Sampler,
) -> Iterator[Images]:
    """One sample under several edits, step by step; a caller that stops asking stops the work.

    Args:
        model: The model.
        latents: One sample.
        edits: Offsets from `edit_offsets`: of h, (edits, steps, *h_shape), or of x_T, (edits, *sample_shape); or an
            operator for each edit, with an offset beside it or not.
        space: Space of the offsets, h or x_T.
        sampler: Settings of the sampling and of the edited steps.

    Yields:
        The predicted clean images, (edits, channel, height, width), after every step but the last, and at the end those
        of `sample`; on the CPU.

    Raises:
        NotFinite: If an image becomes NaN or infinite.
    """
    batch, edit = latents.select([0] * len(edits)), None
    if not isinstance(edits, Tensor):
        edit = operating(edits)
    elif space == "x_T":
        batch = replace(batch, x_T=batch.x_T + edits.to(batch.x_T))
    else:
        edit = adding(edits.to(model.device, model.dtype))
    last = len(model.process.timesteps) - 1
    for step in reverse(model, batch, sampler=sampler, edit=edit):
        if step.index < last:
            yield model.codec.decode(step.x0_hat).float().cpu()
            continue
        residual = 0 if batch.residual is None else batch.residual.to(step.x_t)
        images = model.codec.decode(step.x_t + residual).float().cpu()
        if not bool(images.isfinite().all()):
            row = int((~images.isfinite()).flatten(1).any(dim=1).nonzero()[0])
            raise NotFinite(row, "an edited image became NaN or infinite: take smaller strengths, or dtype=float32")
        yield images
