"""Signed distances of simple shapes, vectorised over images, and the anti-aliased coverage they give.

Coordinates run over [-1, 1], x to the right and y down; a distance is negative inside. Positions and radii are
(n, 1, 1) tensors (or floats), x and y are (1, height, width), so every result is (n, height, width).
"""

import torch
from torch import Tensor

Scalar = Tensor | float | int


def pixel_grid(size: int) -> tuple[Tensor, Tensor]:
    """Centres of the pixels of a `size` x `size` image.

    Returns:
        x and y, each (1, size, size), in (-1, 1).
    """
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x[None], y[None]


def ellipse(x: Tensor, y: Tensor, cx: Scalar, cy: Scalar, rx: Scalar, ry: Scalar) -> Tensor:
    """Distance to an ellipse, exact for circles and to first order near the boundary otherwise."""
    dx, dy = (x - cx) / rx, (y - cy) / ry
    radius = (dx.square() + dy.square() + 1e-12).sqrt()
    slope = ((dx / rx).square() + (dy / ry).square() + 1e-12).sqrt()
    return (radius - 1) * radius / slope


def superellipse(x: Tensor, y: Tensor, cx: Scalar, cy: Scalar, rx: Scalar, ry: Scalar, power: Scalar) -> Tensor:
    """Approximate distance to |dx/rx|^power + |dy/ry|^power = 1; a higher power is squarer."""
    total = ((x - cx) / rx).abs() ** power + ((y - cy) / ry).abs() ** power
    return ((total + 1e-12) ** (1 / power) - 1) * torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry))


def box(x: Tensor, y: Tensor, cx: Scalar, cy: Scalar, rx: Scalar, ry: Scalar, corner: float = 0.0) -> Tensor:
    """Exact distance to a rectangle of half-widths `rx`, `ry` with rounded corners."""
    qx = (x - cx).abs() - rx + corner
    qy = (y - cy).abs() - ry + corner
    outside = (qx.clamp(min=0).square() + qy.clamp(min=0).square() + 1e-12).sqrt()
    return outside + torch.maximum(qx, qy).clamp(max=0) - corner


def outline(distance: Tensor, half_width: Scalar) -> Tensor:
    """Distance to a line of the given half-width along a shape's boundary."""
    return distance.abs() - half_width


def both(*distances: Tensor) -> Tensor:
    """Intersection of shapes."""
    result = distances[0]
    for distance in distances[1:]:
        result = torch.maximum(result, distance)
    return result


def blob(x: Tensor, y: Tensor, cx: Scalar, cy: Scalar, rx: Scalar, ry: Scalar) -> Tensor:
    """A soft spot: 1 in the centre, a Gaussian of standard deviations `rx` and `ry`."""
    return torch.exp(-0.5 * (((x - cx) / rx).square() + ((y - cy) / ry).square()))


def coverage(distance: Tensor, size: int, softness: float = 0.0) -> Tensor:
    """Share of each pixel that the shape covers: a ramp across the boundary, in [0, 1].

    Args:
        distance: To the shape.
        size: Height and width in pixels of the whole image.
        softness: Width of the ramp; never under one pixel.
    """
    return (0.5 - distance / max(2 / size, softness)).clamp(0, 1)
