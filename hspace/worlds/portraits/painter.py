"""What all parts of a portrait are painted with: the turned head, its light, its colours and the layers.

The head is an ellipsoid seen from the front. A feature sits at an azimuth and an elevation on it, so turning the head
moves and foreshortens every feature consistently. The light comes from the upper left and does not turn with the head.
Coordinates run over [-1, 1], x right and y down.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.worlds.attributes import Factors
from hspace.worlds.layers import Canvas, color, palette
from hspace.worlds.sdf import superellipse

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


class Painter(Canvas):
    """Coordinates, colours and light of one batch of portraits at one resolution, or of a window of them."""

    maps: tuple[str, ...] = ("x", "y", "face_shape", "light")

    def __init__(self, factors: Factors, size: int) -> None:
        super().__init__(factors, size)
        f = self.f
        self.head: Head = Head(
            cx=0.05 * f["yaw"],
            cy=0.05 - 0.02 * f["pitch"],
            width=0.47 + 0.10 * f["face_width"],
            height=torch.full_like(f["age"], 0.67),
            yaw=MAX_YAW * f["yaw"],
            pitch=MAX_PITCH * f["pitch"],
        )
        age = factors["age"][:, None]
        skin = palette(SKIN, factors["skin"])
        self.skin: Tensor = torch.lerp(skin, skin.mean(1, keepdim=True), 0.3 * age)
        grey = ((age - 0.5) / 0.4).clamp(0, 1)
        self.hair: Tensor = torch.lerp(palette(HAIR, factors["hair_color"]), color(GREY), grey)
        self.eye_color: Tensor = palette(EYES, factors["eye_color"])
        self.clothes: Tensor = palette(CLOTHES, factors["clothes"])
        self.face_shape: Tensor = self._face_shape()
        self.light: Tensor = self._light()

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

    def lit(self, color: Tensor, light: Tensor | None = None) -> Tensor:
        """A colour under the light of the head (or another one), warm where it is dark: (n, 3, height, width)."""
        shaded, full = (torch.tensor(tone)[None, :, None, None] for tone in (SHADED, LIT))
        return color[:, :, None, None] * torch.lerp(shaded, full, (self.light if light is None else light)[:, None])

    def eye_centres(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Side, x, y and foreshortening of the left and the right eye."""
        return self.at_eyes(0.08)

    def at_eyes(self, up: Tensor | float) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Side, x, y and foreshortening at a height of the head, of what is in line with the left and the right eye."""
        spacing = 0.43 + 0.07 * self.f["eye_spacing"]
        for side in (-1, 1):
            yield side, *self.head.place(side * spacing, up)
