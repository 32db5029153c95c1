"""Hair behind the head, around the face, and on the chin."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.worlds.layers import Layer
from hspace.worlds.portraits.painter import Painter
from hspace.worlds.sdf import blob, both, box, coverage, ellipse

CUTS = (
    # part, hairline in the middle, its fall to the sides, curl
    (-0.50, 0.80, 0.30, 0.0),
    (0.0, 0.80, 0.55, 0.0),
    (0.10, 0.58, 0.06, 0.25),
    (0.15, 0.74, 0.20, 1.0),
    (0.45, 0.80, 0.30, 0.1),
)
"""Side parting, middle parting, fringe, curls, parting on the other side."""


@dataclass(frozen=True)
class Cut:
    """How the hair is cut; each (n, 1, 1)."""

    part: Tensor
    hairline: Tensor
    fall: Tensor
    curl: Tensor

    @classmethod
    def of(cls, p: Painter) -> "Cut":
        """The cut that each factor stands for."""
        index = (p.f["hair_cut"] * len(CUTS)).long().clamp(max=len(CUTS) - 1)
        return cls(*torch.tensor(CUTS)[index].unbind(-1))


class Hair:
    """The hair of a batch of portraits: behind the head, in front of it, and its shadow on the forehead."""

    def __init__(self, p: Painter) -> None:
        self.p: Painter = p
        self.cut: Cut = Cut.of(p)
        self.strands: Tensor
        self.distance: Tensor
        self.strands, self.distance = self._strands()

    def _strands(self) -> tuple[Tensor, Tensor]:
        """Strands that fall from the parting, in [-1, 1], and the distance from it."""
        p, cut = self.p, self.cut
        x, y = p.x - p.head.cx - 0.5 * cut.part * p.head.width, p.y - (p.head.cy - 1.12 * p.head.height)
        distance = (x.square() + y.square()).sqrt()
        angle = torch.atan2(x, y) + 0.16 * cut.curl * torch.sin(17 * distance)
        phase = 6 * p.f["face_width"]
        return 0.6 * torch.sin(31 * angle + phase) + 0.4 * torch.sin(67 * angle - 2 * phase + 3 * distance), distance

    def _colored(self, tone: float) -> Tensor:
        """The colour of hair with its strands and the sheen on them."""
        p = self.p
        sheen = torch.exp(-((self.distance - 0.44 - 0.03 * self.strands) / 0.085).square())
        left = (0.75 - 0.9 * (p.x - p.head.cx)).clamp(0, 1)
        light = (p.light + 0.14 * self.strands + sheen * left * (0.55 + 0.2 * self.strands)).clamp(0, 1.6)
        return p.lit(p.hair * tone, light)

    def back(self) -> Iterator[Layer]:
        """Hair behind the head; it reaches from the ears over the shoulders."""
        p, cut = self.p, self.cut
        length, head = p.f["hair_length"], p.head
        top, bottom = head.cy - 0.60, torch.lerp(torch.tensor(-0.02), torch.tensor(1.0), length)
        waves = 0.022 * (cut.curl + 0.35) * torch.sin(16 * p.y + 4 * p.f["face_width"])
        tips = 0.03 * torch.sin(21 * p.x + 5 * p.f["nose"])
        width = head.width + 0.035 + 0.11 * length + 0.05 * cut.curl + waves
        fall = box(p.x, p.y + tips, head.cx * 0.7, (top + bottom) / 2, width, (bottom - top) / 2, 0.22)
        dome = ellipse(p.x, torch.minimum(p.y, head.cy), head.cx, head.cy, width + 0.01, head.height + 0.02)
        shape = both(fall, dome)
        inner = blob(p.x, p.y, head.cx + 0.03, head.cy + 0.62, 0.85 * head.width, 0.30)
        yield p.paint(shape, self._colored(0.74) * (1 - 0.45 * inner[:, None]), "hair")

    def shadow(self) -> Iterator[Layer]:
        """What the hair takes of the light on the forehead."""
        p = self.p.crop(-0.75, 0.75, -0.75, 0.2)
        below = p.y - self._line(p) - 0.05
        yield p.tint(coverage(both(p.face_shape, below), p.size, 0.11) * 0.5, p.skin * 0.55)

    def front(self) -> Iterator[Layer]:
        """The hair around the forehead and beside the face."""
        p, cut = self.p, self.cut
        length, head = p.f["hair_length"], p.head
        cap = ellipse(p.x, p.y, head.cx, head.cy - 0.045, head.width + 0.045 + 0.03 * length, head.height + 0.055)
        around = torch.atan2(p.x - head.cx, p.y - head.cy)
        cap = cap - cut.curl * (0.022 + 0.022 * torch.sin(15 * around + 6 * p.f["nose"]))
        fx, fy, _ = head.place(0.0, -0.20)
        opening = ellipse(p.x, p.y, 0.6 * fx + 0.4 * head.cx, fy + 0.10, head.width * 0.955, 0.86)
        edge = torch.minimum(p.y - self._line(p), -opening)
        taper = 0.9 * (1 - length) * (head.width - (p.x - head.cx).abs()).clamp(min=0)
        bottom = torch.lerp(torch.tensor(-0.08), torch.tensor(0.9), length) - taper
        yield p.paint(both(cap, edge, p.y - bottom), self._colored(1.0), "hair")

    def _line(self, p: Painter) -> Tensor:
        """Height of the edge of the hair over the forehead."""
        middle, top, _ = p.head.place(0.0, self.cut.hairline)
        across = (p.x - middle) / p.head.width
        aside = across - self.cut.part
        bent = aside.abs() * aside.abs().sqrt() * torch.where(aside * self.cut.part > 0, 1.6, 1.0)
        jagged = 0.018 * torch.sin(24 * across + 6 * p.f["face_width"]) * (0.6 + self.cut.curl)
        return top + self.cut.fall * p.head.height * bent + jagged


def beard(p: Painter) -> Iterator[Layer]:
    """A beard around the mouth, with a moustache."""
    p = p.crop(-0.8, 0.8, -0.1, 1)
    x, y, squeeze = p.head.place(0.0, -0.36)
    cheeks = ellipse(p.x, p.y, x, y - 0.24, 0.43 * squeeze + 0.05, 0.31)
    inner = coverage(both(-cheeks, y - 0.20 - p.y), p.size, 0.05)
    moustache = ellipse(p.x, p.y + 0.5 * (p.x - x).square(), x, y - 0.015, 0.25 * squeeze, 0.06)
    strands = 0.09 * torch.sin(52 * (p.x - x) * (1 - 0.5 * (p.y - y)) + 2.5 * torch.sin(13 * p.y))
    coat = p.lit(p.hair * 0.66, (0.85 * p.light + 0.08 + strands).clamp(0, 1))
    yield p.paint(p.face_shape - 0.012, coat, "face", 0.97 * p.f["beard"] * inner)
    yield p.paint(moustache, coat * 0.93, "face", p.f["beard"], 0.03)
