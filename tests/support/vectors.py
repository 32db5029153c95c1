"""Directions without a meaning, for tests of what is done with directions."""

import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions


def directions_of(model: DiffusionModel, names: tuple[str, ...] = ("smile", "age"), size: float = 3.0) -> Directions:
    """Random directions that fit a model, of one norm."""
    shape = (len(names), len(model.process.timesteps), *model.h_shape)
    vectors = size * torch.randn(shape, generator=torch.Generator().manual_seed(5))
    return Directions.of(model, vectors, names=names, unit="norm", method="random", eta=1.0)
