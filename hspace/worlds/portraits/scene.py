"""What is around the face: the background and the body."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.worlds.layers import Layer, color
from hspace.worlds.portraits.painter import WHITE, Painter
from hspace.worlds.sdf import blob, both, box, coverage, ellipse

LIGHTS = ((0.0, 0.24, 1), (1.1, 0.17, -1), (2.3, 0.28, 1), (3.5, 0.14, -1), (4.4, 0.22, 1), (5.5, 0.18, -1))
"""Lights out of focus: place on their way around the image, radius, and which way they go around."""


def background(p: Painter) -> Iterator[Layer]:
    """A gradient of neighbouring hues, a soft texture, and lights out of focus; painted at half the resolution."""
    p, fine = p.halved(), p
    f, angle = p.f, 2 * math.pi * p.f["backdrop"]
    along = (p.x * torch.cos(angle) + p.y * torch.sin(angle)) / 1.41
    near, far = (_hue(f["background"] + shift)[:, :, None, None] for shift in (-0.03, 0.03))
    waves = torch.sin(7 * (p.x * torch.sin(angle) - p.y * torch.cos(angle)) + 2 * torch.sin(4 * along))
    vignette = 1.04 - 0.10 * (p.x.square() + p.y.square())
    shade = vignette * (1 + 0.17 * along) + 0.035 * (1 - f["bokeh"]) * waves
    image = torch.lerp(near, far, along[:, None] / 2 + 0.5) * shade[:, None]
    image = torch.lerp(image, color(WHITE)[:, :, None, None], _lights(p)[:, None])
    yield Layer(torch.ones_like(f["age"] + fine.x), F.interpolate(image, scale_factor=2.0), "other", fine.window)


def _hue(position: Tensor) -> Tensor:
    """A soft colour of a hue in turns, (n, 1, 1) to (n, 3)."""
    hue = position[:, :, 0] + torch.tensor([[0.0, 1 / 3, 2 / 3]])
    return 0.66 + 0.16 * torch.cos(2 * math.pi * hue)


def _lights(p: Painter) -> Tensor:
    amount = torch.zeros_like(p.f["bokeh"]) + 0 * p.x
    for place, radius, way in LIGHTS:
        angle = place + way * 2 * math.pi * p.f["scatter"]
        disc = ellipse(p.x, p.y, 0.86 * torch.sin(angle), 0.80 * torch.cos(angle) - 0.1, radius, radius)
        amount = torch.maximum(amount, coverage(disc, p.size, 0.05))
    return 0.30 * p.f["bokeh"] * amount


def body(p: Painter) -> Iterator[Layer]:
    """Shoulders with a collar; the neck is painted over the hair that falls on them."""
    p = p.crop(-1, 1, 0.5, 1)
    broad = 0.74 + 0.14 * p.f["gender"]
    shoulders = ellipse(p.x, p.y, 0.0, 1.24, broad, 0.46)
    light = (0.62 - 0.42 * p.x - 0.25 * (p.y - 0.8)).clamp(0, 1)
    folds = 0.05 * torch.sin(9 * p.x + 3 * p.y) * p.x.abs()
    yield p.paint(shoulders, p.lit(p.clothes, (light + folds).clamp(0, 1)), "other")


def neck(p: Painter) -> Iterator[Layer]:
    """The neck in the shadow of the chin, and the edge of the collar around it."""
    whole, p = p, p.crop(-0.6, 0.6, 0.35, 1)
    x, width = 0.5 * p.head.cx, 0.20 + 0.08 * p.f["gender"]
    column = box(p.x, p.y, x, 0.70, width, 0.26, 0.06)
    skin = torch.minimum(column, ellipse(p.x, p.y, x, 0.88, width + 0.05, 0.09))
    yield p.paint(both(skin - 0.035, 0.83 - p.y), p.lit(p.clothes * 0.80, 0.75 - 0.4 * (p.x - x)), "other")
    yield p.paint(skin, p.lit(p.skin * 0.97, (0.62 - 1.4 * (p.x - x)).clamp(0, 1)), "other")
    chin = p.head.cy + p.head.height
    shadow = blob(p.x, p.y, p.head.cx + 0.06, chin - 0.10, 0.9 * p.head.width, 0.15)
    yield p.tint(coverage(skin, p.size) * 0.75 * shadow, p.skin * 0.42)
    yield from _ears(whole.crop(-0.85, 0.85, -0.35, 0.4))


def _ears(p: Painter) -> Iterator[Layer]:
    for side in (-1, 1):
        x = p.head.cx + side * (p.head.width - 0.015) - 0.07 * p.f["yaw"]
        y = p.head.cy - 0.02 - 0.10 * p.f["pitch"]
        ear = ellipse(p.x, p.y, x, y, 0.085, 0.135)
        yield p.paint(ear, p.skin * (0.98 if side < 0 else 0.72), "other")
        inner = both(ellipse(p.x, p.y, x + 0.015 * side, y, 0.045, 0.085), ear + 0.01)
        yield p.paint(inner, p.skin * 0.66, None, 0.7, 0.03)


def hat(p: Painter) -> Iterator[Layer]:
    """Its shadow on the face, crown, band and brim."""
    worn, head, yaw = p.f["hat"], p.head, p.f["yaw"]
    p = p.crop(-1, 1, -1, 0.15)
    line = head.cy - 0.42 - 0.04 * p.f["pitch"]
    bend = 0.10 * (p.x - head.cx).square()
    shadow = both(p.face_shape, p.y - bend - line - 0.13)
    yield p.tint(coverage(shadow, p.size, 0.10) * 0.50 * worn, p.skin * 0.40)
    across = (p.x - head.cx) / (head.width + 0.07)
    light = (0.72 - 0.5 * across - 0.3 * across.square()).clamp(0, 1)
    felt = 0.05 * torch.sin(23 * p.x + 5 * p.y)
    body_color = p.lit(p.clothes, (light + felt).clamp(0, 1))
    dent = 0.045 * blob(p.x, p.y, head.cx + 0.05 + 0.08 * yaw, line - 0.45, 0.13, 1.0)
    crown = both(_crown(p, line, dent), p.y - bend - line)
    yield p.paint(crown, body_color, "hat", worn)
    band = both(crown, line - 0.13 - (p.y - bend))
    yield p.paint(band, p.lit(p.clothes * 0.42, light), "hat", worn)
    brim = box(p.x, p.y - bend, head.cx + 0.06 * yaw, line, head.width + 0.22, 0.05, 0.045)
    yield p.paint(brim, body_color * 0.86, "hat", worn)
    edge = both(brim, line + 0.012 - (p.y - bend))
    yield p.paint(edge, p.lit(p.clothes * 0.55, light), "hat", worn)


def _crown(p: Painter, line: Tensor, dent: Tensor) -> Tensor:
    narrowing = 0.10 * (line - p.y)
    return box(p.x, p.y - dent, p.head.cx, line - 0.02, p.head.width + 0.05 - narrowing, 0.46, 0.22)
