# pyright: strict, reportUnknownMemberType=false
"""The positions of h: a U-Net's pixels or a transformer's tokens, each of which holds a vector of channels."""

import math

from torch import Tensor


def by_position(h: Tensor, h_shape: tuple[int, ...]) -> Tensor:
    """The vectors of all positions, (..., *h_shape) to (..., positions, channels).

    Args:
        h: Features at the tap.
        h_shape: (channel, height, width), or any shape whose last axis holds the channels; one axis is one position.

    Examples:
        >>> import torch
        >>> tuple(by_position(torch.zeros(2, 5, 4, 3), (5, 4, 3)).shape)
        (2, 12, 5)
    """
    leading = h.shape[: h.ndim - len(h_shape)]
    if len(h_shape) == 3:
        h = h.movedim(-3, -1)
    return h.reshape(*leading, -1, h.shape[-1])


def from_positions(vectors: Tensor, h_shape: tuple[int, ...]) -> Tensor:
    """The inverse of `by_position`, (..., positions, channels) to (..., *h_shape).

    Examples:
        >>> import torch
        >>> h = torch.arange(120.0).reshape(2, 5, 4, 3)
        >>> torch.equal(from_positions(by_position(h, (5, 4, 3)), (5, 4, 3)), h)
        True
    """
    leading = vectors.shape[:-2]
    if len(h_shape) == 3:
        return vectors.reshape(*leading, *h_shape[1:], h_shape[0]).movedim(-1, -3)
    return vectors.reshape(*leading, *h_shape)


def everywhere(vectors: Tensor, h_shape: tuple[int, ...]) -> Tensor:
    """The same vector of channels at every position, (..., channels) to (..., *h_shape).

    Examples:
        >>> import torch
        >>> tuple(everywhere(torch.zeros(2, 5), (5, 4, 3)).shape)
        (2, 5, 4, 3)
    """
    leading = vectors.shape[:-1]
    if len(h_shape) == 3:
        return vectors[..., None, None].expand(*leading, *h_shape)
    return vectors.reshape(*leading, *(1,) * (len(h_shape) - 1), h_shape[-1]).expand(*leading, *h_shape)


def num_channels(h_shape: tuple[int, ...]) -> int:
    """Number of channels of each position."""
    return h_shape[0] if len(h_shape) == 3 else h_shape[-1]


def grid_of(h_shape: tuple[int, ...], sample_shape: tuple[int, int, int]) -> tuple[int, int] | None:
    """Rows and columns of the positions of h on the image; None where h has no such positions, or one only.

    Args:
        h_shape: (channel, height, width), (token, channel), or any other shape, which has no grid.
        sample_shape: (channel, height, width) of x_t; tokens are square patches of it, row by row.

    Examples:
        >>> grid_of((512, 8, 8), (3, 256, 256)), grid_of((32, 24), (4, 8, 16)), grid_of((24,), (4, 8, 8))
        ((8, 8), (4, 8), None)
    """
    if len(h_shape) == 3:
        return (h_shape[1], h_shape[2]) if h_shape[1:] != (1, 1) else None
    if len(h_shape) != 2 or h_shape[0] == 1:
        return None
    height, width = sample_shape[1:]
    rows = round(math.sqrt(h_shape[0] * height / width))
    columns = rows * width // height
    return (rows, columns) if rows * columns == h_shape[0] else None


def shares(vectors: Tensor, h_shape: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    """The share of its squared length that a direction has at each position, (k, rows, columns), 1 in all.

    Args:
        vectors: Directions of h, (k, steps, *h_shape).
        h_shape: Shape of h.
        grid: Rows and columns of its positions; see `grid_of`.

    Examples:
        >>> import torch
        >>> h = torch.zeros(1, 2, 6, 5)
        >>> h[0, :, 4] = 1.0
        >>> shares(h, (6, 5), (2, 3))[0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    squared = by_position(vectors.float(), h_shape).square().sum(dim=(1, 3))
    return (squared / squared.sum(dim=1, keepdim=True)).reshape(-1, *grid)
