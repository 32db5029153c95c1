# pyright: strict, reportUnknownMemberType=false
"""Random directions of matched norm: the control for every claim that a direction means something."""

from dataclasses import replace
from typing import SupportsIndex

import numpy as np
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import as_seed
from hspace.directions.method import Sources, method
from hspace.directions.pca import PcaSettings, components_of
from hspace.directions.record import Directions


class RandomSettings(PcaSettings):
    """Settings of `method=random`: those of the components that the directions are as large as."""


@method("random", settings=RandomSettings, reads=("seed",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: RandomSettings) -> Directions:
    """Random directions, each step's norm matched to a principal component's: the control."""
    return random(components_of(model, sources, settings), seed=sources.seed())


def random(like: Directions, *, seed: SupportsIndex) -> Directions:
    """Gaussian directions, as many as `like` has, with each one's norm at each step.

    At equal strength a random edit is then exactly as large as the edit it controls for.

    Args:
        like: The directions to match; their unit is kept.
        seed: Seed of the private generator, an integer >= 0.

    Raises:
        InputError: If the seed is not an integer >= 0.

    Source: Haas et al. 2024, fig. 4.

    Examples:
        >>> from hspace.diffusion.checkpoints import load_model
        >>> model = load_model("portraits", num_steps=10)
        >>> like = Directions.of(model, torch.ones(2, *model.h_shape))
        >>> control = random(like, seed=0)
        >>> torch.allclose(control.norms(), like.norms()), control.meta.names
        (True, ('random 0, seed 0', 'random 1, seed 0'))
    """
    seed = as_seed(seed)
    values = np.random.default_rng(seed).standard_normal(like.directions.shape, dtype=np.float32)
    noise = Directions(torch.from_numpy(values), like.meta)
    scale = like.norms().cpu() / noise.norms()
    scale = scale.reshape(*scale.shape, *(1,) * (noise.directions.ndim - scale.ndim))
    names = tuple(f"random {j}, seed {seed}" for j in range(len(like.directions)))
    meta = replace(like.meta, method="random", names=names, seeds=(), calibration=None, report={})
    return Directions(noise.directions * scale, meta)
