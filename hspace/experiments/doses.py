"""Edits of many directions in one batch, so that a GPU is busy; only what networks read off the images leaves it."""

import copy
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from hspace.diffusion.denoiser import Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampling import Edit, sample
from hspace.edits.sums import every_edit
from hspace.evaluation.readings import score
from hspace.runs.keys import edit_key, network_key, tensor_sha256
from hspace.runs.lab import Lab
from hspace.system.shards import SHARD
from hspace.types import Embedder, Scorer


@dataclass(frozen=True)
class Dose:
    """One edit.

    Attributes:
        vector: Index of its direction.
        strength: Factor of the direction.
        start: First edited step.
        stop: Step before which the edit ends; None is the end.
    """

    vector: int
    strength: float
    start: int = 0
    stop: int | None = None


def read_doses(
    lab: Lab, vectors: Tensor, doses: Sequence[Dose], seeds: Sequence[int], networks: Sequence[Scorer | Embedder]
) -> Tensor:
    """What networks read off samples, unedited and under every edit, from the cache.

    Args:
        lab: The run, with the model tapped where the vectors belong.
        vectors: Directions, (k, steps, *h_shape).
        doses: m edits.
        seeds: Seeds of n samples.
        networks: Networks whose outputs are joined.

    Returns:
        (n, 1 + m, outputs), on the CPU.
    """
    model, steps = lab.model, len(lab.model.process.timesteps)
    key = {
        "vectors": tensor_sha256(vectors), "doses": [astuple(each) for each in doses], "seeds": tuple(seeds),
        "networks": [network_key(each) for each in networks], **edit_key(lab.cfg, model),
    }  # fmt: skip

    def make(rows: range) -> Tensor:
        there = [placed(network, model.device) for network in networks]
        directions = vectors.to(model.device)
        weights = torch.stack([_strengths(each, len(vectors), steps) for each in (Dose(0, 0.0), *doses)])

        def read(batch: Latents, index: list[int]) -> Tensor:
            edit = _adding(directions, weights[index].to(model.device))
            images = sample(model, batch, sampler=lab.sampler, edit=edit).x_0.float()
            return torch.cat([score(network, images) for network in there], dim=1)

        latents = model.latents(seeds[rows.start : rows.stop])
        return every_edit(latents, len(weights), lab.sampler.batch_size, read)

    return lab.kept("dose", len(seeds), make, size=SHARD, **key)


@lru_cache(maxsize=8)
def placed(network: Scorer | Embedder, device: torch.device) -> Scorer | Embedder:
    """The network on the model's device: itself if it is there, else one copy."""
    if not isinstance(network, nn.Module) or next(network.parameters(), torch.empty(0)).device == device:
        return network
    return copy.deepcopy(network).to(device)


def _strengths(dose: Dose, count: int, steps: int) -> Tensor:
    """Strength of each direction at each step, (steps, count)."""
    strengths = torch.zeros(steps, count)
    strengths[dose.start : dose.stop, dose.vector] = dose.strength
    return strengths


def _adding(directions: Tensor, strengths: Tensor) -> Edit:
    """The edit that adds sums of directions, (k, steps, ...), at strengths of each row, (rows, steps, k)."""

    def edit(step: int, encoded: Encoded) -> Tensor:
        offset = torch.einsum("rk,k...->r...", strengths[:, step], directions[:, step])
        return encoded.h + offset.to(encoded.h.dtype)

    return edit
