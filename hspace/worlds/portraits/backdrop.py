"""Reads the background off an image, without a network: it alone fills the upper corners."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.types import Images

WIDTH, HEIGHT = 1 / 8, 7 / 32
"""Of a corner, as parts of the image: no hat reaches into it."""
PATCHES = (4, 2)


def _corners(images: Images) -> Tensor:
    """The upper corners, (batch, 2, 3, height, width) in [0, 1]."""
    height, width = max(int(HEIGHT * images.shape[-2]), 1), max(int(WIDTH * images.shape[-1]), 1)
    corners = torch.stack([images[..., :height, :width], images[..., :height, -width:]], dim=1)
    return corners / 2 + 0.5


def background_hue(images: Images) -> Tensor:
    """Hue of the background, as the factor `background` has it.

    The three colours of a hue are a constant and a cosine at thirds of a turn, so that their first Fourier coefficient
    has the hue as its angle, whatever the light.

    Args:
        images: (batch, 3, height, width) in [-1, 1].

    Returns:
        (batch,) in [0, 1), a turn; grey has none and gives noise.
    """
    colors = _corners(images).mean(dim=(1, 3, 4))
    turn = 2 * math.pi / 3 * torch.arange(3, device=images.device)
    return torch.atan2(-(colors * turn.sin()).sum(1), (colors * turn.cos()).sum(1)) / (2 * math.pi) % 1


def background_embedding(images: Images) -> Tensor:
    """Colours of the background in patches, in which gradient and lights show too.

    Args:
        images: (batch, 3, height, width) in [-1, 1].

    Returns:
        (batch, 48) in [0, 1]: two corners of 4 x 2 patches.
    """
    corners = _corners(images)
    return F.adaptive_avg_pool2d(corners.flatten(0, 1), PATCHES).reshape(len(images), -1)
