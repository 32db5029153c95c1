# pyright: strict, reportUnknownMemberType=false
"""Masks on the grid of x_t for regions of interest: a rectangle, a PNG file or a named region."""

from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from hspace.system.pictures import read_picture
from hspace.types import Images, InputError, RegionNetwork

Mask = Bool[Tensor, "rows columns"]
"""True where the prediction counts, on the grid of x_t; a latent model's grid is coarser than its images."""


def make_mask(
    region: str | Sequence[float],
    size: tuple[int, int],
    *,
    image: Images | None = None,
    network: RegionNetwork | None = None,
) -> Mask:
    """The mask of a region that a configuration names.

    Args:
        region: Rectangle `[top, left, bottom, right]` in fractions of the image, path of a PNG, or name of a region.
        size: Height and width of x_t.
        image: Final image of the sample, (1, channel, height, width) in [-1, 1], for a named region.
        network: Network that finds regions, for a named region.

    Raises:
        InputError: If the region is not of one of these kinds, cannot be read or found, or holds no pixel of the grid.
    """
    if not isinstance(region, str):
        return rectangle_mask(region, size)
    if region.lower().endswith(".png"):
        return png_mask(region, size)
    if network is None or image is None:
        raise InputError(f"mask {region} is a named region, and this model has no network that finds regions")
    return region_mask(region, image, network, size)


def rectangle_mask(box: Sequence[float], size: tuple[int, int]) -> Mask:
    """The pixels whose centres lie in a rectangle.

    Args:
        box: Top, left, bottom and right in fractions of the image, in [0, 1].
        size: Height and width of x_t.

    Raises:
        InputError: If these are not four such numbers, or no pixel's centre is inside.

    Examples:
        >>> rectangle_mask([0.5, 0.0, 1.0, 0.5], (2, 2)).tolist()
        [[False, False], [True, False]]
    """
    if len(box) != 4 or not all(isinstance(edge, Real) and 0 <= edge <= 1 for edge in box):
        raise InputError(f"a mask's rectangle is [top, left, bottom, right] in fractions of 0 to 1, got {list(box)}")
    top, left, bottom, right = box
    rows, columns = ((torch.arange(length) + 0.5) / length for length in size)
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    return _not_empty(inside, str(list(box)))


def png_mask(path: str | Path, size: tuple[int, int]) -> Mask:
    """The pixels of a PNG that are lighter than 50% grey, on the grid; see `on_grid`.

    Transparent parts are laid on black, since what is left out of the drawing does not belong to the region.

    Raises:
        InputError: If the file cannot be read as a PNG (see `read_picture`), or no pixel is light.
    """
    try:
        grey = read_picture(path, background="black", formats=("PNG",)).convert("L")
    except InputError as error:
        raise InputError(f"mask {error}") from error
    return _not_empty(on_grid(torch.from_numpy(np.array(grey) > 127), size), str(path))


def region_mask(name: str, image: Images, network: RegionNetwork, size: tuple[int, int]) -> Mask:
    """A named region of one image, on the grid; see `on_grid`.

    Raises:
        InputError: If the network does not know the region, or the image does not show it.
    """
    if name not in network.regions:
        raise InputError(f"mask must be one of {', '.join(network.regions)}, a rectangle or a PNG file, got {name}")
    return _not_empty(on_grid(network(image)[name][0], size), name)


def on_grid(mask: Bool[Tensor, "height width"], size: tuple[int, int]) -> Mask:
    """The cells of a grid at least half of which lie in a mask of pixels; of a thinner mask those that hold most of it.

    A cell of a latent model's grid stands for a square of pixels, such as 8 x 8: a mouth can be thinner than that.
    """
    covered = F.interpolate(mask[None, None].float(), size, mode="area")[0, 0]
    return (covered >= covered.max().clamp(max=0.5)) & (covered > 0)


def _not_empty(mask: Mask, name: str) -> Mask:
    if not mask.any():
        raise InputError(
            f"mask {name} holds no pixel of the {mask.shape[0]} x {mask.shape[1]} grid; choose a larger one"
        )
    return mask
