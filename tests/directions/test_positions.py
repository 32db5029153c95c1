"""Positions of h on the image: a U-Net's pixels, a transformer's tokens."""

from pathlib import Path

import pytest
import torch
from pipelines import save

from hspace.diffusion.checkpoints import load_model
from hspace.directions.jacobian import jacobian
from hspace.directions.masks import rectangle_mask
from hspace.directions.positions import grid_of, shares


@pytest.mark.parametrize("box", [[0, 0, 0.25, 1], [0.25, 0.5, 1, 0.75]])
def test_tokens_lie_where_their_patches_do(tmp_path: Path, box: list[float]) -> None:
    """Behind the last block of a transformer each token makes its own patch, and nothing else."""
    model = load_model(
        str(save("dit", tmp_path / "dit")), tap="block:3", num_steps=2, device="cpu", prompt="3", guidance=1.0
    )
    grid = (4, 4)
    assert grid_of(model.h_shape, model.sample_shape) == grid
    mask = rectangle_mask(box, model.sample_shape[1:])
    found = jacobian(model, model.latents([1]), k=2, steps=[1], mask=mask, block_size=2)
    maps = shares(found.directions, model.h_shape, grid)
    assert torch.allclose(maps.sum(dim=(1, 2)), torch.ones(2))
    assert (maps[:, rectangle_mask(box, grid)].sum(dim=1) > 1 - 1e-5).all()


def test_grids() -> None:
    assert grid_of((8, 4, 6), (3, 32, 48)) == (4, 6)
    assert grid_of((24, 5), (4, 8, 12)) == (4, 6)
    assert grid_of((17, 5), (4, 8, 8)) is None, "tokens beside those of the image"
    assert grid_of((8, 1, 1), (3, 32, 32)) is grid_of((1, 5), (4, 8, 8)) is grid_of((40,), (4, 8, 8)) is None


def test_shares_are_over_channels_and_steps() -> None:
    h = torch.zeros(1, 2, 3, 2, 2)
    h[0, 0, :, 0, 1], h[0, 1, 1, 1, 0] = 1.0, 1.0
    assert torch.equal(shares(h, (3, 2, 2), (2, 2)), torch.tensor([[[0, 0.75], [0.25, 0]]]))
