"""What all parts of a portrait are painted with: the turned head, its light, its colours and the layers.

The head is an ellipsoid seen from the front. A feature sits at an azimuth and an elevation on it, so turning the head
moves and foreshortens every feature consistently. The light comes from the upper left and does not turn with the head.
Coordinates run over [-1, 1], x right and y down.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.worlds.sdf import coverage, pixel_grid, superellipse

Factors = dict[str, Tensor]
Window = tuple[slice, slice]

REGIONS = ("eyes", "brows", "mouth", "nose", "hair", "hat", "glasses", "face")

SKIN = ((0.99, 0.87, 0.78), (0.95, 0.77, 0.63), (0.83, 0.61, 0.45), (0.63, 0.43, 0.31), (0.45, 0.30, 0.22))
HAIR = ((0.11, 0.09, 0.10), (0.31, 0.18, 0.11), (0.55, 0.31, 0.15), (0.77, 0.47, 0.20), (0.95, 0.81, 0.48))
EYES = ((0.30, 0.17, 0.08), (0.22, 0.45, 0.22), (0.20, 0.46, 0.82))
CLOTHES = ((0.18, 0.31, 0.62), (0.50, 0.22, 0.48), (0.72, 0.22, 0.22), (0.82, 0.60, 0.22), (0.18, 0.48, 0.36))
GREY, BLACK, WHITE = (0.80, 0.80, 0.82), (0.07, 0.06, 0.07), (0.98, 0.97, 0.96)

MAX_YAW, MAX_PITCH = math.radians(24), math.radians(13)
LIGHT = (-0.48, -0.52, 0.71)
SHADED, LIT = (0.60, 0.49, 0.53), (1.07, 1.04, 1.00)


@dataclass(frozen=True)
class Layer:
    """One coat of paint.

    Attributes:
        coverage: (n, height, width) of the window, in [0, 1].
        color: (n, 3) or (n, 3, height, width), in [0, 1].
        region: The region of `REGIONS` that it belongs to, "other" for what merely hides one, None for shading that
            leaves the region under it as it is.
        window: Rows and columns of the image that it covers.
    """

    coverage: Tensor
    color: Tensor
    region: str | None
    window: Window


@dataclass(frozen=True)
class Head:
    """Where the head is and how it is turned; all (n, 1, 1).

    Attributes:
        cx: Centre to the right.
        cy: Centre downwards.
        width: Half-width.
        height: Half-height.
        yaw: Radians, positive to the right of the image.
        pitch: Radians, positive upwards.
    """

    cx: Tensor
    cy: Tensor
    width: Tensor
    height: Tensor
    yaw: Tensor
    pitch: Tensor

    def place(self, right: Tensor | float, up: float | Tensor, lift: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Position of a feature of the turned head.

        Args:
            right: Where it sits on a head seen from the front, in half-widths from the centre, in (-1, 1).
            up: The same in half-heights upwards.
            lift: Distance from the head's centre over the head's radius; above 1 for what sticks out.

        Returns:
            x, y and the horizontal foreshortening, each (n, 1, 1).
        """
        azimuth = torch.as_tensor(right).asin()
        elevation = torch.as_tensor(up).asin()
        x = self.cx + lift * self.width * torch.sin(azimuth + self.yaw)
        y = self.cy - lift * self.height * torch.sin(elevation + self.pitch)
        return x, y, (torch.cos(azimuth + self.yaw) / torch.cos(azimuth)).clamp(min=0.3)


class Painter:
    """Coordinates, colours and light of one batch of portraits at one resolution, or of a window of them."""

    def __init__(self, factors: Factors, size: int) -> None:
        self.size = size
        self.x, self.y = pixel_grid(size)
        self.window: Window = (slice(0, size), slice(0, size))
        self.f = {name: value[:, None, None] for name, value in factors.items()}
        f = self.f
        self.head = Head(
            cx=0.05 * f["yaw"],
            cy=0.05 - 0.02 * f["pitch"],
            width=0.47 + 0.10 * f["face_width"],
            height=torch.full_like(f["age"], 0.67),
            yaw=MAX_YAW * f["yaw"],
            pitch=MAX_PITCH * f["pitch"],
        )
        age = factors["age"][:, None]
        skin = palette(SKIN, factors["skin"])
        self.skin = torch.lerp(skin, skin.mean(1, keepdim=True), 0.3 * age)
        self.hair = torch.lerp(palette(HAIR, factors["hair_color"]), color(GREY), ((age - 0.5) / 0.4).clamp(0, 1))
        self.eye_color = palette(EYES, factors["eye_color"])
        self.clothes = palette(CLOTHES, factors["clothes"])
        self.face_shape = self._face_shape()
        self.light = self._light()

    def _face_shape(self) -> Tensor:
        """Distance to the outline of the head, which narrows towards the chin."""
        f, head = self.f, self.head
        down = (self.y - head.cy) / head.height
        narrow = 1 - (0.27 - 0.19 * f["jaw"] - 0.05 * f["gender"]) * down.clamp(min=0).square()
        x = (self.x - head.cx - 0.05 * f["yaw"] * down) / narrow
        power = 2.1 + 0.5 * f["jaw"] + 0.25 * f["gender"]
        return superellipse(x, self.y, 0.0, head.cy, head.width, head.height, power)

    def _light(self) -> Tensor:
        """How much light falls on an ellipsoid in the place of the head, in [0, 1]."""
        across, down = (self.x - self.head.cx) / self.head.width, (self.y - self.head.cy) / self.head.height
        towards = (1 - (across.square() + down.square()) / 1.15).clamp(min=0.03).sqrt()
        lambert = (LIGHT[0] * across + LIGHT[1] * down) / 1.07 + LIGHT[2] * towards
        return ((lambert + 0.30) / 1.15).clamp(0, 1)

    def crop(self, left: float, right: float, top: float, bottom: float) -> "Painter":
        """The same portraits within a window of the whole image, for what lies in a small part of it."""
        low, high = ((max(edge, -1.0) + 1) / 2 * self.size for edge in (left, top)), (right, bottom)
        starts = [int(edge) for edge in low]
        stops = [math.ceil((min(edge, 1.0) + 1) / 2 * self.size) for edge in high]
        part = copy.copy(self)
        columns, rows = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
        part.window = (rows, columns)
        part.x, part.y = self.x[:, rows, columns], self.y[:, rows, columns]
        part.face_shape, part.light = self.face_shape[:, rows, columns], self.light[:, rows, columns]
        return part

    def halved(self) -> "Painter":
        """The same portraits at half the resolution; without shape and light of the head."""
        part = copy.copy(self)
        part.x, part.y = pixel_grid(self.size // 2)
        part.size = self.size // 2
        return part

    def paint(
        self, distance: Tensor, color: Tensor, region: str | None, opacity: Tensor | float = 1.0, softness: float = 0.0
    ) -> Layer:
        """A layer that fills a shape."""
        return Layer(coverage(distance, self.size, softness) * opacity, color, region, self.window)

    def tint(self, amount: Tensor, color: Tensor) -> Layer:
        """A layer of light or shade that belongs to no region."""
        return Layer(amount, color, None, self.window)

    def lit(self, color: Tensor, light: Tensor | None = None) -> Tensor:
        """A colour under the light of the head (or another one), warm where it is dark: (n, 3, height, width)."""
        shaded, full = (torch.tensor(tone)[None, :, None, None] for tone in (SHADED, LIT))
        return color[:, :, None, None] * torch.lerp(shaded, full, (self.light if light is None else light)[:, None])

    def eye_centres(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Side, x, y and foreshortening of the left and the right eye."""
        spacing = 0.43 + 0.07 * self.f["eye_spacing"]
        for side in (-1, 1):
            yield side, *self.head.place(side * spacing, 0.08)


def palette(colors: tuple[tuple[float, ...], ...], position: Tensor) -> Tensor:
    """Linear interpolation along a list of colours: (n,) in [0, 1] to (n, 3)."""
    table = torch.tensor(colors)
    scaled = position * (len(colors) - 1)
    index = scaled.long().clamp(max=len(colors) - 2)
    return torch.lerp(table[index], table[index + 1], (scaled - index)[:, None])


def color(rgb: tuple[float, ...]) -> Tensor:
    """A constant colour, (1, 3)."""
    return torch.tensor([rgb])
