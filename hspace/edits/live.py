# pyright: strict, reportUnknownMemberType=false
"""Prompt pairs while an image is sampled: the part of h under another prompt that h under the empty one has not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.denoiser import Conditioning, Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import LiveEdit, sample
from hspace.directions.positions import by_position, from_positions
from hspace.edits.sums import Edits, every_edit
from hspace.types import InputError


@torch.no_grad()
def live_prompt(
    model: DiffusionModel,
    latents: Latents,
    prompt: str,
    *,
    strengths: Sequence[float],
    empty: str = "",
    sampler: Sampler = Sampler(),
) -> Edits:
    """Edits every sample by words, without any sample to learn from: h + strength · (h_e without its part along h_0).

    At each edited step h is computed at the sample's own x_t under two more prompts, without guidance: h_e under
    `prompt` and h_0 under `empty`. Of each position of h_e the part along the same position of h_0 is taken off. That
    is three passes up to the tap in place of one.

    Args:
        model: A model of prompts, under the prompt of the image.
        latents: The samples to edit.
        prompt: Prompt of the concept, such as "a smile".
        strengths: Factors of what is added.
        empty: Prompt that says nothing, or a class where the model knows no other conditions.
        sampler: Settings of the sampling and of the edited steps; a row is a sample at one strength.

    Returns:
        Images, (batch, strengths, channel, height, width), on the CPU.

    Raises:
        InputError: If the model takes no prompts, both prompts are the same, or there is no strength.
        NotFinite: If an image becomes NaN or infinite.

    Source: after FluxSpace (Dalva et al. 2024, arXiv 2412.09611), which does so with the outputs of attention; here it
    is the tap, which may be one (`tap=block:11.attn`). Their code was not compared.
    """
    if model.cond is None:
        raise InputError(f"a live prompt needs a model of prompts or classes, and {model.model_id} takes none")
    if prompt == empty:
        raise InputError(f"prompt must differ from the empty one, got {prompt!r} for both")
    if not strengths:
        raise InputError("a live prompt needs at least one strength, got none")
    conditions = [model.with_prompt(each, 1.0).cond for each in (prompt, empty)]
    factors = torch.tensor(list(strengths))

    def edited(batch: Latents, index: list[int]) -> Tensor:
        return sample(model, batch, sampler=sampler, live=adding_prompt(model, conditions, factors[index])).x_0

    return every_edit(latents, len(factors), sampler.batch_size, edited, lambda edit: "; use smaller strengths")


def adding_prompt(model: DiffusionModel, conditions: Sequence[Conditioning | None], strengths: Tensor) -> LiveEdit:
    """The edit of a batch, by the conditions of the concept and of nothing, and a strength for each row."""

    def edit(step: int, x_t: Tensor, encoded: Encoded) -> Tensor:
        t = model.process.timesteps[step]
        concept, nothing = (model.denoiser.encode(x_t, t, each).h.float() for each in conditions)
        factors = strengths.to(concept).reshape(-1, *(1,) * (concept.ndim - 1))
        added = factors * without(concept, nothing, model.h_shape)
        return (encoded.h.float() + added).to(encoded.h.dtype)

    return edit


def without(h: Tensor, other: Tensor, h_shape: tuple[int, ...]) -> Tensor:
    """Each position of h without its part along the same position of another h, (batch, *h_shape).

    Examples:
        >>> without(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]), (2,)).tolist()
        [[0.0, 4.0]]
    """
    x, y = by_position(h, h_shape), by_position(other, h_shape)
    along = (x * y).sum(-1, keepdim=True) / y.square().sum(-1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
    return from_positions(x - along * y, h_shape)
