"""What lights a room: the sky and the sun or moon through the window, and the lamp."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.worlds.attributes import Factors
from hspace.worlds.rooms.geometry import DEEP, Surface, between, rectangle
from hspace.worlds.sdf import Scalar, both

SILL, LINTEL, MIDDLE = 0.98, 2.18, 1.12
"""Lower and upper end of the window, and its middle to the right."""
BAR, CROSSBAR = 0.028, 1.62
"""Half of the width of the bars across the window, and how high the level one is."""
DAY, NIGHT = (0.56, 0.57, 0.60), (0.18, 0.20, 0.30)
SKY, MOONLIT = (0.62, 0.66, 0.72), (0.07, 0.09, 0.17)
SUN, MOON = (0.92, 0.78, 0.52), (0.13, 0.18, 0.32)
LAMP = (1.25, 0.86, 0.46)
RISE = 0.72
"""Of the sunlight per metre towards the window."""


def opening(x: Tensor, y: Tensor, half: Scalar) -> Tensor:
    """Distance to the opening of the window, at metres to the right of its middle and up from the floor."""
    return rectangle(x, y, -half, half, SILL, LINTEL)


def cross(x: Tensor, y: Tensor) -> Tensor:
    """Distance to the endless bars across the window."""
    return torch.minimum(x.abs(), (y - CROSSBAR).abs()) - BAR


@dataclass(frozen=True)
class Light:
    """The light of a batch of rooms.

    Attributes:
        night: 0 by day, 1 at night, (n, 1, 1).
        lamp: Whether it is on, (n, 1, 1).
        place: Of the lamp's bulb, three of (n, 1, 1) or numbers.
        slope: Of the sunlight to the right per metre towards the window, (n, 1, 1).
        half: Half of the window's width, (n, 1, 1).
    """

    night: Tensor
    lamp: Tensor
    place: tuple[Tensor, float, float]
    slope: Tensor
    half: Tensor

    @classmethod
    def of(cls, f: Factors, lamp_at: tuple[Tensor, float, float], half: Tensor) -> "Light":
        """The light of factors, each (n, 1, 1)."""
        return cls(f["night"], f["lamp"], lamp_at, 0.20 + 0.52 * f["sun"], half)

    def lit(self, p: Surface, albedo: Tensor, shade: Tensor | float = 1.0) -> Tensor:
        """A colour of a surface under all lights, (n, 3, height, width).

        Args:
            p: The surface.
            albedo: (n, 3) or (n, 3, height, width).
            shade: Share of the room's and the sky's light that reaches it.
        """
        colors = torch.stack([self._between(*pair) for pair in ((DAY, NIGHT), (SKY, MOONLIT), (SUN, MOON))], dim=2)
        colors = torch.cat([colors, torch.tensor(LAMP)[None, :, None] * self.lamp], dim=2)
        amounts = [shade + torch.zeros_like(p.depth), self._sky(p) * shade, self._sun(p), self._lamp(p)]
        if p.normal[1] <= 0 and p.normal[2] < 0:  # faces away from the window
            amounts.pop(2)
            colors = colors[:, :, [0, 1, 3]]
        shape = torch.broadcast_shapes(*(amount.shape for amount in amounts))
        maps = torch.stack([amount.expand(shape) for amount in amounts], dim=1).flatten(2)
        if albedo.ndim == 2:
            return (colors * albedo[:, :, None] @ maps).unflatten(2, shape[1:])
        return (colors @ maps).unflatten(2, shape[1:]) * albedo

    def _between(self, day: tuple[float, ...], night: tuple[float, ...]) -> Tensor:
        """A colour by day and another at night, (n, 3)."""
        return between(torch.tensor([day]), torch.tensor([night]), self.night[:, 0])

    def _sky(self, p: Surface) -> Tensor:
        """Light of the sky, which falls off away from the window."""
        right, up, ahead = MIDDLE - p.x, 1.5 - p.y, DEEP - p.z
        distance = right.square() + up.square() + ahead.square() + 0.3
        facing = (p.normal[0] * right + p.normal[1] * up + p.normal[2] * ahead) / distance.sqrt()
        return 0.9 * (0.35 + 0.65 * facing.clamp(min=0)) * (0.5 + self.half) / (0.6 + 0.35 * distance)

    def _sun(self, p: Surface) -> Tensor:
        """Light that has come straight through the panes, 0 on surfaces that face away from it."""
        facing = p.normal[0] * self.slope + p.normal[1] * RISE + p.normal[2]
        ahead = DEEP - p.z
        x, y = p.x + self.slope * ahead - MIDDLE, p.y + RISE * ahead
        inside = both(opening(x, y, self.half), -cross(x, y))
        soft = 0.03 + 0.02 * ahead
        return (0.5 - inside / soft).clamp(0, 1) * facing.clamp(min=0) * (ahead > 0.05)

    def _lamp(self, p: Surface) -> Tensor:
        """Light of the lamp, which falls off with the square of the distance."""
        right, up, ahead = self.place[0] - p.x, self.place[1] - p.y, self.place[2] - p.z
        distance = right.square() + up.square() + ahead.square()
        facing = (p.normal[0] * right + p.normal[1] * up + p.normal[2] * ahead) / (distance + 0.02).sqrt()
        return (0.25 + 0.75 * facing.clamp(min=0)) / (0.55 + 1.1 * distance)
