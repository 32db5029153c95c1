"""Directions and operators without a meaning, for tests of what is done with them."""

import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.operators import Operator
from hspace.directions.record import Directions


def directions_of(model: DiffusionModel, names: tuple[str, ...] = ("smile", "age"), size: float = 3.0) -> Directions:
    """Random directions that fit a model, of one norm."""
    shape = (len(names), len(model.process.timesteps), *model.h_shape)
    vectors = size * torch.randn(shape, generator=torch.Generator().manual_seed(5))
    return Directions.of(model, vectors, names=names, unit="norm", method="random", eta=1.0)


def operator_of(model: DiffusionModel, name: str = "skin") -> Operator:
    """An operator that fits a model, whose change depends on h and is not zero where h is."""
    found = directions_of(model, (name,))
    vector = found.directions[0]
    gain = 0.5 * torch.sin(torch.arange(vector.numel()).float()).reshape(vector.shape)
    return Operator(found.meta, "transport", torch.zeros_like(vector), gain=gain, shift=0.2 * vector)
