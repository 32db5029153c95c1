"""What stands in the room: bed, bedside table with the lamp, and the plant."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hspace.worlds.layers import Layer, color
from hspace.worlds.rooms.geometry import Box, Surface, rectangle, smooth, stripes
from hspace.worlds.rooms.painter import (
    BED_FAR,
    BED_LEFT,
    BED_NEAR,
    BED_TOP,
    BULB,
    LAMP_Z,
    LINEN,
    STAND_TOP,
    STAND_WIDE,
    WOOD,
    Room,
)
from hspace.worlds.sdf import both, coverage, ellipse

HEADBOARD = 1.12
FOLD, PILLOWS = 2.95, 3.42
"""Where the blanket ends and where the pillows lie, in z."""
POT, LEAF, SHADE, GLOW = (0.80, 0.47, 0.34), (0.26, 0.50, 0.28), (0.90, 0.84, 0.72), (1.0, 0.90, 0.62)
PLANT_X, PLANT_Z = 1.62, 3.05
LEAVES = ((-0.95, 0.78), (-0.62, 1.0), (-0.28, 0.92), (0.05, 1.12), (0.36, 0.95), (0.68, 1.04), (1.0, 0.80))
"""Lean and length of a leaf."""
PLANT_ENDS = [(side, up, ahead) for side in (-1, 1) for up in (0.0, 1.4) for ahead in (-0.35, 0.35)]


def bed(r: Room) -> Iterator[Layer]:
    """Headboard, frame, mattress, blanket with its pattern, and pillows."""
    right = r.bed_right
    yield from r.box(Box(BED_LEFT - 0.05, right + 0.05, 0.0, HEADBOARD, BED_FAR, BED_FAR + 0.1), color(WOOD))
    yield from r.box(Box(BED_LEFT, right, 0.10, 0.28, BED_NEAR, BED_FAR), color(WOOD), 0.8)
    yield from mattress(r)
    yield from pillows(r)


def mattress(r: Room) -> Iterator[Layer]:
    """The mattress in linen, and over it the blanket, which hangs down in front and at the sides."""
    right = r.bed_right
    whole = Box(BED_LEFT, right, 0.28, BED_TOP, FOLD - 0.1, BED_FAR)
    yield from r.box(whole, color(LINEN))
    hanging = Box(BED_LEFT - 0.03, right + 0.03, 0.16, BED_TOP + 0.02, BED_NEAR - 0.03, FOLD)
    part, p = r.right_of(hanging)
    side = both(rectangle(p.z, p.y, hanging.near, FOLD, 0.16, hanging.top), _hem(p.z) - p.y)
    shown = (r.camera.x > hanging.right).float()
    yield part.face(p, side, _woven(part, p.z, p.y), shown, 0.8 * _folds(p.z, p.y))
    part, p = r.front_of(hanging)
    front = both(rectangle(p.x, p.y, hanging.left, hanging.right, 0.16, hanging.top), _hem(p.x) - p.y)
    yield part.face(p, front, _woven(part, p.x, p.y), 1.0, 0.92 * _folds(p.x, p.y))
    part, p = r.top_of(hanging)
    top = rectangle(p.x, p.z, hanging.left, hanging.right, hanging.near, FOLD)
    puff = 0.94 + 0.06 * torch.sin(5.3 * p.x + 1.3 * torch.sin(3.7 * p.z)) * torch.sin(4.1 * p.z + 0.8)
    yield part.face(p, top, _woven(part, p.x, p.z), 1.0, puff)
    turned = rectangle(p.x, p.z, hanging.left, hanging.right, FOLD - 0.24, FOLD)
    yield part.face(p, turned, color(LINEN), 1.0, 0.9 + 0.1 * smooth(p.z - FOLD + 0.24, 0.0, 0.1))


def _hem(along: Tensor) -> Tensor:
    return 0.19 + 0.02 * torch.sin(11 * along)


def _folds(along: Tensor, y: Tensor) -> Tensor:
    """Shade in the folds of a hanging blanket, deeper towards its hem."""
    deep = ((BED_TOP - y) / 0.4).clamp(0, 1)
    return (1 - 0.10 * deep) * (1 - 0.18 * deep * stripes(along + 0.03 * torch.sin(5 * along), 0.075))


def _woven(r: Room, u: Tensor, v: Tensor) -> Tensor:
    """The blanket's colour with its pattern of light bands or checks, (n, 3, height, width)."""
    width = 0.24
    bands, checks = smooth(stripes(v, width), 0.68, 0.80), smooth(stripes(u, width), 0.68, 0.80)
    light = 0.5 * (bands + checks * smooth(r.f["pattern"], 0.45, 0.55)) * smooth(r.f["pattern"], 0.15, 0.25)
    base = r.blanket[:, :, None, None]
    return torch.lerp(base, 0.45 * base + 0.5, light[:, None])


def pillows(r: Room) -> Iterator[Layer]:
    """One pillow on a narrow bed, two on a wide one."""
    middle, wide = (BED_LEFT + r.bed_right) / 2, (r.bed_right - BED_LEFT) / 2
    two = smooth(r.f["bed"], 0.42, 0.48)
    for side in (-1.0, 1.0):
        half = torch.lerp(torch.full_like(wide, 0.36), 0.46 * wide, two)
        x = middle + side * two * 0.5 * wide
        yield from _pillow(r, x, half, torch.ones_like(two) if side > 0 else two)


def _pillow(r: Room, x: Tensor, half: Tensor, shown: Tensor) -> Iterator[Layer]:
    bottom = BED_TOP - 0.03
    part = r.near((x + side * half, bottom + up, PILLOWS) for side in (-1.2, 1.2) for up in (-0.1, 0.5))
    right, up, scale = part.billboard(x, bottom + 0.19, PILLOWS)
    flat = torch.full_like(half, 0.20)
    shape = ((right / half).abs() ** 3.2 + (up / flat).abs() ** 2.6 + 1e-6) ** 0.35 - 1
    light = part.light_at(x, bottom + 0.3, PILLOWS - 0.15)
    yield part.spot((shape - 0.16) * 0.2, scale, color((0.25, 0.22, 0.25)), light, 0.35 * shown)
    body = 1.02 + 0.22 * up / flat - 0.10 * right / half - 0.10 * shape.clamp(min=-1)
    albedo = color(LINEN)[:, :, None, None] * body.clamp(0.6, 1.3)[:, None]
    yield part.spot(shape * 0.2, scale, albedo, light, shown)


def stand(r: Room) -> Iterator[Layer]:
    """The bedside table with a drawer."""
    left = r.lamp_x - STAND_WIDE / 2
    box = Box(left, left + STAND_WIDE, 0.06, STAND_TOP, 3.40, 3.84)
    yield from r.box(box, color((0.70, 0.53, 0.38)))
    part, p = r.front_of(box)
    line = rectangle(p.x, p.y, left + 0.04, left + STAND_WIDE - 0.04, 0.30, 0.47)
    yield part.face(p, line.abs() - 0.012, color((0.36, 0.25, 0.18)))
    yield part.face(p, ellipse(p.x, p.y, r.lamp_x, 0.385, 0.025, 0.025), color((0.30, 0.22, 0.16)))


def lamp(r: Room) -> Iterator[Layer]:
    """Foot and shade, which shines when the lamp is on, and the glow around it."""
    on, x = r.f["lamp"], r.lamp_x
    part = r.near([(x + side * 0.75, BULB + up, LAMP_Z) for side in (-1, 1) for up in (-0.65, 0.75)])
    right, up, scale = part.billboard(x, STAND_TOP, LAMP_Z)
    light = part.light_at(x, STAND_TOP + 0.2, LAMP_Z)
    foot = torch.minimum(ellipse(right, up, 0.0, 0.12, 0.085, 0.11), rectangle(right, up, -0.015, 0.015, 0.2, 0.34))
    foot = torch.minimum(foot, ellipse(right, up, 0.0, 0.015, 0.10, 0.025))
    body = color((0.42, 0.56, 0.58))[:, :, None, None] * (1 - 3 * right).clamp(0.6, 1.25)[:, None]
    yield part.spot(foot, scale, body, light)
    middle, high = 0.46, 0.17
    lean = 0.19 - 0.28 * (up - middle)
    shape = both((right.abs() - lean) * 0.95, (up - middle).abs() - high)
    pleats = 0.94 + 0.06 * stripes(right / lean, 0.16)
    off = color(SHADE)[:, :, None, None] * (pleats * (1 - 1.2 * right))[:, None] * light
    inner = (1.08 - 1.6 * (right / 0.19).square() * 0.12 - 0.9 * (up - middle).abs()) * pleats
    lit = color(GLOW)[:, :, None, None] * inner[:, None]
    yield Layer(coverage(shape * scale, part.size), torch.lerp(off, lit, on[:, None]), part.region, part.window)
    around = (right.square() + (up - middle).square()).sqrt()
    glow = 0.42 * on * torch.exp(-(around / 0.30).square() * 1.2)
    yield part.tint(glow * smooth(0.72 - around, 0.0, 0.25), color((1.0, 0.80, 0.48)))


def plant(r: Room) -> Iterator[Layer]:
    """A pot with leaves in the corner, its shadow on the floor."""
    shown = r.f["plant"]
    part = r.near((PLANT_X + side * 0.8, up, PLANT_Z + ahead) for side, up, ahead in PLANT_ENDS)
    ground: Surface = part.plane(1, 0.0, (0.0, 1.0, 0.0))
    spot = ellipse(ground.x, ground.z, PLANT_X, PLANT_Z, 0.24, 0.20)
    yield Layer((0.5 - spot / 0.22).clamp(0, 1) * 0.5 * shown, part.floor * 0.18, None, part.window)
    right, up, scale = part.billboard(PLANT_X, 0.0, PLANT_Z)
    light = part.light_at(PLANT_X, 0.7, PLANT_Z)
    for i, (lean, length) in enumerate(LEAVES):
        lean, shine = lean + 0.25 * (part.f["leaf"] - 0.5), light * (0.8 + 0.4 * (i % 2))
        yield from _leaf(part, right, up, scale, lean, length, shine)
    pot = both((right.abs() - 0.15 - 0.16 * (up - 0.18)) * 0.97, (up - 0.18).abs() - 0.18)
    clay = color(POT)[:, :, None, None] * (1.0 - 1.6 * right).clamp(0.6, 1.3)[:, None]
    yield part.spot(pot, scale, clay, light, shown)
    rim = rectangle(right, up, -0.20, 0.20, 0.31, 0.37)
    yield part.spot(rim, scale, 1.1 * clay, light, shown)


def _leaf(
    r: Room, right: Tensor, up: Tensor, scale: Tensor, lean: Tensor, length: float, light: Tensor
) -> Iterator[Layer]:
    """A long leaf that bends outwards."""
    along = ((up - 0.34) / (length - 0.18)).clamp(-0.2, 1.2)
    middle = lean * 0.46 * along.clamp(min=0).square() + 0.10 * lean * along
    wide = 0.085 * (math.pi * along.clamp(0, 1)).sin() + 0.012
    shape = both((right - middle).abs() - wide, ((along - 0.5).abs() - 0.5) * 0.5)
    vein = 1 + 0.25 * torch.tanh(30 * (right - middle)) + 0.25 * along
    yield r.spot(shape, scale, color(LEAF)[:, :, None, None] * vein[:, None], light, r.f["plant"])
