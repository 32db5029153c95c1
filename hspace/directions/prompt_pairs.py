# pyright: strict, reportUnknownMemberType=false
"""Prompt pairs: what a concept in the prompt changes of h, on average over the same noise."""

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import trajectories
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import h_varies
from hspace.directions.examples import difference_meta
from hspace.directions.method import Sources, method
from hspace.directions.positions import by_position, everywhere
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.system.shards import row_batches
from hspace.types import InputError, Seeds


class PromptPairsSettings(Settings):
    """Settings of `method=prompt_pairs`."""

    prompt: str = Field(pattern=r"\S")
    """Prompt, or class, with the concept; `model.prompt` is the same without it."""
    num_samples: int = Field(100, ge=1, le=MAX_SAMPLES)
    """Pairs of samples of the same noise."""
    average: bool = False
    """Whether all positions share the mean difference over positions."""

    def count(self) -> int:
        """Number of directions."""
        return 1


@method("prompt_pairs", settings=PromptPairsSettings)
def find(model: DiffusionModel, sources: Sources, settings: PromptPairsSettings) -> Directions:
    """The mean difference of h with and without a concept in the prompt, for the same noise.

    Source: the static form of a difference of prompts; ours.
    """
    return prompt_pairs(
        model, settings.prompt, sources.seeds(settings.num_samples), average=settings.average, sampler=sources.sampler
    )  # fmt: skip


def prompt_pairs(
    model: DiffusionModel, prompt: str, seeds: Seeds, *, average: bool = False, sampler: Sampler = Sampler()
) -> Directions:
    """The mean over samples of h under a prompt less h under the model's own, from the same x_T and z.

    Each sample of a pair follows its own trajectory. Both have the guidance of the model's own prompt, and the h of
    guided passes is that of the conditioned one.

    Args:
        model: The model, under the prompt without the concept.
        prompt: Prompt, or class, with the concept.
        seeds: Seeds of the pairs.
        average: Whether all positions share the mean difference over positions.
        sampler: Settings whose eta and batch size are taken.

    Returns:
        One direction of unit "difference", named after the prompt.

    Raises:
        InputError: If the model takes no prompts, there is no seed, both prompts are the same, or h depends
            on neither of them at the tap.

    Source: ours; FluxSpace (Dalva et al. 2024) takes such differences while it samples.
    """
    own = model.cond
    if own is None:
        raise InputError(f"prompt pairs need a model of prompts or classes, and {model.model_id} takes none")
    if prompt == own.prompt:
        raise InputError(f"prompt must differ from the model's own, got {prompt!r} for both")
    other, total = model.with_prompt(prompt, own.guidance), torch.zeros((), dtype=torch.float64)
    if not h_varies(model, other):
        raise InputError(f"tap {model.denoiser.tap}: h depends neither on the sample nor on the prompt there")
    for rows in row_batches(len(seeds), sampler.batch_size):
        latents = model.latents([seeds[row] for row in rows])
        with_concept, without = (trajectories(each, latents, sampler).double().sum(dim=0) for each in (other, model))
        total = total + with_concept - without
    difference = _averaged(total, model.h_shape) if average else total
    # A name is one line, which a prompt need not be.
    name, eta = repr(prompt)[1:-1][:200], model.process.etas(sampler.eta)
    meta = difference_meta(model, "h", eta, "prompt pairs", name, tuple(map(int, seeds)))
    return Directions((difference / len(seeds)).float()[None].contiguous(), replace(meta, settings={"prompt": prompt}))


def _averaged(h: Tensor, h_shape: tuple[int, ...]) -> Tensor:
    """The mean over positions at every position, (steps, *h_shape)."""
    return everywhere(by_position(h, h_shape).mean(dim=-2), h_shape)
