"""The camera in the room, the planes that its rays meet, and where points are seen.

Metres: x to the right along the back wall, y up from the floor, z from the camera towards the back wall. The camera
turns about a pivot in the room and keeps verticals vertical. Everything is (n, 1 or height, 1 or width).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.worlds.sdf import Scalar, box

WIDE, HIGH, DEEP = 2.1, 2.6, 4.0
"""Half of the room's width, its height, and where the back wall is."""
PIVOT = (0.02, 1.12, 2.4)
RADIUS = 3.3
MAX_YAW = math.radians(20)
LOWEST, HIGHEST = 0.95, 2.15
FIELD = 0.55
"""Tangent of half the field of view."""


@dataclass(frozen=True)
class Surface:
    """Where the rays of a window of pixels meet a plane.

    Attributes:
        x: To the right.
        y: Up.
        z: Towards the back wall.
        depth: Distance from the camera along its axis; infinite where a ray does not meet the plane.
        normal: Of the plane, towards the room.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    depth: Tensor
    normal: tuple[float, float, float]

    def seen(self, distance: Tensor) -> Tensor:
        """A distance on the plane as one in the image, whose coordinates run over [-1, 1]."""
        return distance / (self.depth * FIELD)


@dataclass(frozen=True)
class Camera:
    """Where the camera is and where it looks; each (n, 1, 1).

    Attributes:
        x: To the right.
        y: Up.
        z: Towards the back wall.
        angle: Turn to the right, radians.
        shift: Tangent of the elevation in the middle of the image.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    angle: Tensor
    shift: Tensor

    @classmethod
    def of(cls, yaw: Tensor, height: Tensor) -> "Camera":
        """A camera that looks at the pivot from a side in [-1, 1] and a height in [0, 1]."""
        angle, y = MAX_YAW * yaw, LOWEST + (HIGHEST - LOWEST) * height
        x, z = PIVOT[0] - RADIUS * angle.sin(), PIVOT[2] - RADIUS * angle.cos()
        return cls(x, y, z, angle, (PIVOT[1] - y) / RADIUS)

    def rays(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Directions of pixels, of unit length along the camera's axis.

        Args:
            x: Of columns, (1, 1, width).
            y: Of rows, (1, height, 1).

        Returns:
            To the right (n, 1, width), up (n, height, 1), towards the back wall (n, 1, width).
        """
        right, sin, cos = FIELD * x, self.angle.sin(), self.angle.cos()
        return right * cos + sin, self.shift - FIELD * y, cos - right * sin

    def project(self, x: Scalar, y: Scalar, z: Scalar) -> tuple[Tensor, Tensor, Tensor]:
        """Where a point is seen.

        Returns:
            x and y in the image, and how long a metre there is in it.
        """
        right, up, ahead = x - self.x, y - self.y, z - self.z
        depth = right * self.angle.sin() + ahead * self.angle.cos()
        across = right * self.angle.cos() - ahead * self.angle.sin()
        scale = 1 / (depth * FIELD)
        return across * scale, (self.shift - up / depth) / FIELD, scale


@dataclass(frozen=True)
class Box:
    """A piece of furniture with its faces along the walls: the ends of its sides, each (n, 1, 1) or a number."""

    left: Scalar
    right: Scalar
    bottom: Scalar
    top: Scalar
    near: Scalar
    far: Scalar


def rectangle(u: Tensor, v: Tensor, left: Scalar, right: Scalar, low: Scalar, high: Scalar) -> Tensor:
    """Distance on a plane to a rectangle, given by its ends."""
    return box(u, v, (left + right) / 2, (low + high) / 2, (right - left) / 2, (high - low) / 2)


def between(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """Linear interpolation, whatever the shapes are."""
    return low + share * (high - low)


def smooth(value: Tensor, low: float, high: float) -> Tensor:
    """0 below, 1 above, and a smooth rise between."""
    share = ((value - low) / (high - low)).clamp(0, 1)
    return share.square() * (3 - 2 * share)


def stripes(value: Tensor, width: float) -> Tensor:
    """A wave over [0, 1] along stripes of a width."""
    return 0.5 + 0.5 * torch.cos(math.pi / width * value)
