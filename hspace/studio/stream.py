"""Edits that can be watched while they are made: the predicted clean image of every step, then the image itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.types import Images


@torch.no_grad()
def watched(
    model: DiffusionModel, latents: Latents, offsets: Tensor, *, eta: float | Sequence[float], injection: str
) -> Iterator[Images]:
    """One sample under several edits, step by step; a caller that stops asking stops the work.

    Args:
        model: The model.
        latents: One sample.
        offsets: From `edit_offsets`: of h, (edits, steps, channel, height, width), or of x_T without the steps.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        injection: `symmetric` or `asyrp`.

    Yields:
        After every step but the last the predicted clean images, (edits, channel, height, width), and at the end what
        `sample` gives; on the CPU.

    Source: Haas et al. 2024, eqs. 2-5, as in `sample`.
    """
    process, dtype = model.process, torch.promote_types(model.dtype, torch.float32)
    batch = latents.select([0] * len(offsets))
    delta = offsets.to(model.device, model.dtype) if offsets.ndim > 4 else None
    x_t = (batch.x_T if delta is not None else batch.x_T + offsets.to(batch.x_T)).to(model.device, dtype)
    batch = replace(batch, x_T=x_t)
    for i, ((t, t_prev), step_eta) in enumerate(zip(process.pairs(), process.etas(eta), strict=True)):
        encoded = model.denoiser.encode(x_t, t, model.cond)
        h = encoded.h if delta is None else encoded.h + delta[:, i]
        eps = eps_edit = process.to_eps(model.denoiser.decode(h, encoded).to(dtype), x_t, t)
        if injection == "asyrp" and delta is not None:
            eps = process.to_eps(model.denoiser.decode(encoded.h, encoded).to(dtype), x_t, t)
        x0_hat = process.predict_x0(x_t, eps_edit, t)
        mean, sigma = process.posterior(x0_hat, eps, t, t_prev, step_eta)
        x_t = mean + sigma * batch.z[:, i].to(model.device) if sigma > 0 else mean
        if t_prev >= 0:
            yield model.codec.decode(x0_hat).float().cpu()
    yield model.codec.decode(x_t if batch.residual is None else x_t + batch.residual.to(x_t)).float().cpu()
