"""The empty room: walls, ceiling, floor and rug, the window with what is outside, and the picture on the wall."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hspace.worlds.layers import Layer, color
from hspace.worlds.rooms.geometry import DEEP, HIGH, WIDE, Surface, between, rectangle, smooth, stripes
from hspace.worlds.rooms.light import LINTEL, MIDDLE, SILL, cross, opening
from hspace.worlds.rooms.painter import BED_FAR, BED_LEFT, BED_NEAR, WHITE, WOOD, Room
from hspace.worlds.sdf import blob, both, coverage, ellipse, outline

CEILING = (0.93, 0.91, 0.87)
DAY_SKY, NIGHT_SKY = ((0.42, 0.68, 0.95), (0.86, 0.93, 0.97)), ((0.04, 0.06, 0.17), (0.15, 0.19, 0.38))
HILLS = ((0.42, 0.60, 0.36), (0.06, 0.09, 0.13))
STARS = ((-0.8, 0.85), (-0.45, 0.62), (-0.15, 0.9), (0.15, 0.55), (0.85, 0.88), (-0.75, 0.35), (0.4, 0.35))
CURTAIN, CURTAIN_END = (0.93, 0.89, 0.80), 0.66
PICTURE_X, PICTURE_Y, PICTURE_WIDE, PICTURE_HIGH = -0.98, 1.72, 0.42, 0.32
MOTIFS = ((0.85, 0.45, 0.30), (0.93, 0.76, 0.42), (0.45, 0.62, 0.55), (0.35, 0.42, 0.62))
INK = (0.16, 0.14, 0.16)


def walls(r: Room) -> Iterator[Layer]:
    """Back wall, side walls, ceiling and floor."""
    wall = r.part("wall")
    part = wall.near([(side * WIDE, y, DEEP) for side in (-1, 1) for y in (0.0, HIGH)])
    p = part.plane(2, DEEP, (0.0, 0.0, -1.0))
    yield part.face(p, p.x.abs() - 9, papered(part, p.x, p.y), 1.0, edges(p.y, WIDE - p.x.abs()))
    for side in (-1.0, 1.0):
        part = wall.near([(side * WIDE, y, DEEP) for y in (0.0, HIGH)], towards=(side, 0))
        p = part.plane(0, side * WIDE, (-side, 0.0, 0.0))
        yield part.face(p, p.z - DEEP, papered(part, p.z, p.y), 1.0, edges(p.y, DEEP - p.z))
    part = r.part("ceiling").near([(side * WIDE, HIGH, DEEP) for side in (-1, 1)], towards=(0, -1))
    p = part.plane(1, HIGH, (0.0, -1.0, 0.0))
    corner = torch.minimum(WIDE - p.x.abs(), DEEP - p.z)
    yield part.face(p, -corner, color(CEILING), 1.0, 1.12 - 0.25 * torch.exp(-corner.clamp(min=0) / 0.3))
    yield floor(r.part("floor").near([(side * WIDE, 0.0, DEEP) for side in (-1, 1)], towards=(0, 1)))


def papered(r: Room, across: Tensor, y: Tensor) -> Tensor:
    """Wallpaper of soft stripes above a white skirting board, (n, 3, height, width)."""
    pattern = 1 - 0.06 * r.f["paper"] * smooth(stripes(across, 0.11), 0.35, 0.65)
    paper = r.wall[:, :, None, None] * pattern[:, None]
    board = smooth(0.13 - y, 0.0, 0.03)[:, None]
    return torch.lerp(paper, color(WHITE)[:, :, None, None], board * 0.85)


def edges(y: Tensor, corner: Tensor) -> Tensor:
    """Share of the light that reaches a wall: less near floor, ceiling and the next wall."""
    dark = 0.22 * torch.exp(-corner.clamp(min=0) / 0.22) + 0.16 * torch.exp(-y.clamp(min=0) / 0.30)
    return 1 - dark - 0.16 * torch.exp(-(HIGH - y).clamp(min=0) / 0.25)


def floor(r: Room) -> Layer:
    """Boards along the room, a rug, and the shadow under the bed."""
    p = r.plane(1, 0.0, (0.0, 1.0, 0.0))
    corner = torch.minimum(WIDE - p.x.abs(), DEEP - p.z)
    board = p.x / 0.24
    seam = (board - board.round()).abs()
    grain = 0.07 * torch.sin(5.1 * board.round() + 1.7) + 0.03 * torch.sin(3 * p.z + 2.2 * board.round())
    wood = r.floor[:, :, None, None] * (1 + grain - 0.22 * smooth(0.07 - seam, 0.0, 0.05))[:, None]
    oval = ellipse(p.x, p.z, r.bed_right + 0.62, 1.95, 0.62, 0.95)
    ring = 1 - 0.20 * smooth(0.06 - outline(oval, 0.0).sub(0.12).abs(), 0.0, 0.03)
    rug = coverage(p.seen(oval), r.size)[:, None]
    albedo = torch.lerp(wood, r.rug[:, :, None, None] * ring[:, None], rug)
    bed = rectangle(p.x, p.z, BED_LEFT, r.bed_right, BED_NEAR, BED_FAR)
    shade = (1 - 0.5 * torch.exp(-bed.clamp(min=0) / 0.16)) * (1 - 0.25 * torch.exp(-corner.clamp(min=0) / 0.25))
    return r.face(p, -corner, albedo, 1.0, shade)


def window(r: Room) -> Iterator[Layer]:
    """Sky, hills, panes, frame, sill and curtains."""
    half = r.window_half
    ends = MIDDLE - half - 0.36, MIDDLE + half + 0.36
    r = r.near((x, y, DEEP) for x in ends for y in (CURTAIN_END, LINTEL + 0.2))
    p = r.plane(2, DEEP - 0.02, (0.0, 0.0, -1.0))
    x, y = p.x - MIDDLE, p.y
    panes = opening(x, y, half)
    yield _flat(r, p, panes, outside(r, p))
    yield r.face(p, both(panes, cross(x, y)), color(WHITE), 1.0, 0.8)
    yield r.face(p, both(panes - 0.06, -panes), color(WHITE), 1.0, 1.0)
    yield r.face(p, rectangle(x, y, -half - 0.12, half + 0.12, SILL - 0.07, SILL), color(WHITE), 1.0, 1.1)
    for side in (-1, 1):
        swing = side * (x - side * (half + 0.10))
        gather = 0.16 + 0.05 * smooth(LINTEL - y, 0.2, 1.2)
        cloth = both(swing.abs() - gather, y - LINTEL - 0.12, CURTAIN_END - y)
        folds = 0.86 + 0.14 * stripes(swing + 0.02 * torch.sin(4 * y), 0.055)
        yield r.face(p, cloth, color(CURTAIN)[:, :, None, None] * folds[:, None], 1.0, 0.95)
    rod = rectangle(x, y, -half - 0.32, half + 0.32, LINTEL + 0.10, LINTEL + 0.15)
    yield r.face(p, rod, color(WOOD), 1.0, 0.8)


def outside(r: Room, p: Surface) -> Tensor:
    """Sky with clouds or stars over hills, (n, 3, height, width); it shifts a little against the frame."""
    half, night = r.window_half, r.f["night"]
    x = (p.x - MIDDLE) + 0.18 * r.f["yaw"]
    up = (p.y - SILL) / (LINTEL - SILL) + 0.12 * (r.f["height"] - 0.5)
    share = up.clamp(0, 1)[:, None]
    day, dark = (between(_tone(low), _tone(high), share) for high, low in (DAY_SKY, NIGHT_SKY))
    puffs = [blob(x, up, 1.6 * (r.f["clouds"] - 0.5) + dx, 0.66 + dy, wide, 0.055) for dx, dy, wide in CLOUDS]
    cloud = (1.3 * torch.stack(puffs).sum(0)).clamp(max=0.9)
    day = torch.lerp(day, torch.ones(1, 3, 1, 1), cloud[:, None])
    glow = [blob(x, up, side * half * 0.95, height, 0.022, 0.018) for side, height in STARS]
    moon = ellipse(x, up * 1.2, 1.0 * (r.f["clouds"] - 0.5) * half, 0.98, 0.11, 0.11)
    bright = torch.maximum((1.2 * torch.stack(glow).amax(0)).clamp(max=1), (0.5 - moon / 0.03).clamp(0, 1))
    dark = torch.lerp(dark, torch.tensor((0.98, 0.96, 0.86))[None, :, None, None], bright[:, None])
    sky = torch.lerp(day, dark, night[:, None])
    ridge = 0.20 + 0.05 * torch.sin(2.6 * x + 6 * r.f["clouds"]) + 0.03 * torch.sin(6.1 * x)
    land = between(_tone(HILLS[0]), _tone(HILLS[1]), night[:, None])
    return torch.lerp(sky, land, smooth(ridge - up, -0.015, 0.015)[:, None])


CLOUDS = ((0.0, 0.0, 0.16), (0.17, 0.05, 0.12), (-0.16, -0.02, 0.10), (0.62, 0.17, 0.13), (-0.6, 0.14, 0.12))
"""Puffs of a cloud: right, up, width."""


def _tone(rgb: tuple[float, ...]) -> Tensor:
    return color(rgb)[:, :, None, None]


def _flat(r: Room, p: Surface, distance: Tensor, shown: Tensor) -> Layer:
    """A shape that shines by itself."""
    return Layer(coverage(p.seen(distance), r.size), shown, r.region, r.window)


def picture(r: Room) -> Iterator[Layer]:
    """A framed landscape over the bed, with its shadow on the wall."""
    ends = [(PICTURE_X + side * 0.55, PICTURE_Y + up * 0.45, DEEP) for side in (-1, 1) for up in (-1, 1)]
    shown, r = r.f["picture"], r.near(ends)
    p = r.plane(2, DEEP - 0.03, (0.0, 0.0, -1.0))
    x, y = p.x - PICTURE_X, p.y - PICTURE_Y
    shadow = _frame(x - 0.03, y + 0.05, 0.02)
    yield Layer((0.5 - shadow / 0.09).clamp(0, 1) * 0.35 * shown, r.wall * 0.3, None, r.window)
    yield r.face(p, _frame(x, y, 0.0), color(INK), shown)
    yield r.face(p, _frame(x, y, -0.045), color(WHITE), shown)
    art = _frame(x, y, -0.11)
    yield r.face(p, art, motif(r, x, y), shown)


def _frame(x: Tensor, y: Tensor, more: float) -> Tensor:
    wide, high = PICTURE_WIDE + more, PICTURE_HIGH + more
    return rectangle(x, y, -wide, wide, -high, high)


def motif(r: Room, x: Tensor, y: Tensor) -> Tensor:
    """A sun over two ridges in the colours of the motif, (n, 3, height, width)."""
    position = r.f["motif"]
    sky, sun, near = (_ring(position + shift) for shift in (0.0, 0.30, 0.62))
    disc = ellipse(x, y, 0.16 * torch.cos(2 * math.pi * position), 0.05, 0.085, 0.085)
    image = torch.lerp(sky, sun, (0.5 - disc / 0.02).clamp(0, 1)[:, None])
    ridge = -0.04 + 0.07 * torch.sin(9 * x + 6 * position)
    image = torch.lerp(image, near, smooth(ridge - y, -0.01, 0.01)[:, None])
    return torch.lerp(image, 0.6 * near, smooth(-0.10 - 0.03 * torch.sin(13 * x) - y, -0.01, 0.01)[:, None])


def _ring(position: Tensor) -> Tensor:
    """A colour of the motifs, around and around: (n, 1, 1) to (n, 3, 1, 1)."""
    table = torch.tensor((*MOTIFS, MOTIFS[0]))
    scaled = position.flatten() % 1 * len(MOTIFS)
    index = scaled.long().clamp(max=len(MOTIFS) - 1)
    return torch.lerp(table[index], table[index + 1], (scaled - index)[:, None])[:, :, None, None]
