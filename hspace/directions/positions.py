# pyright: strict, reportUnknownMemberType=false
"""The positions of h: a U-Net's pixels or a transformer's tokens, each of which holds a vector of channels."""

from torch import Tensor


def by_position(h: Tensor, h_shape: tuple[int, ...]) -> Tensor:
    """The vectors of all positions, (..., *h_shape) to (..., positions, channels).

    Args:
        h: Features at the tap.
        h_shape: (channel, height, width), or any shape whose last axis holds the channels; one axis is one position.

    Example:
        >>> import torch
        >>> tuple(by_position(torch.zeros(2, 5, 4, 3), (5, 4, 3)).shape)
        (2, 12, 5)
    """
    leading = h.shape[: h.ndim - len(h_shape)]
    if len(h_shape) == 3:
        h = h.movedim(-3, -1)
    return h.reshape(*leading, -1, h.shape[-1])


def everywhere(vectors: Tensor, h_shape: tuple[int, ...]) -> Tensor:
    """The same vector of channels at every position, (..., channels) to (..., *h_shape).

    Example:
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
