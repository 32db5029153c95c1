"""How a portrait is painted: a sequence of layers from the background to the hat; the face is painted here."""

from collections.abc import Iterator
from itertools import chain

import torch

from hspace.worlds.attributes import Factors
from hspace.worlds.layers import Layer, color
from hspace.worlds.portraits.hair import Hair, beard
from hspace.worlds.portraits.painter import BLACK, WHITE, Painter
from hspace.worlds.portraits.scene import background, body, hat, neck
from hspace.worlds.sdf import blob, both, box, coverage, ellipse, outline

LIPS, MOUTH, TONGUE = (0.78, 0.20, 0.27), (0.27, 0.05, 0.07), (0.78, 0.33, 0.33)
EYESHADOW, BLUSH, RIM = (0.50, 0.33, 0.60), (0.95, 0.42, 0.38), (0.10, 0.08, 0.09)
FRECKLES = tuple((0.16 * (i % 5 - 2) + 0.05 * ((i * 7) % 3 - 1), -0.06 - 0.075 * (i // 5)) for i in range(15))


def layers(factors: Factors, size: int) -> Iterator[Layer]:
    """All layers of the portraits, from the background to the hat.

    Args:
        factors: Each (n,).
        size: Height and width in pixels.
    """
    p = Painter(factors, size)
    hair = Hair(p)
    yield from chain(background(p), body(p), hair.back(), neck(p), face(p), freckles(p), hair.shadow(), beard(p))
    yield from chain(wrinkles(p), eyes(p), brows(p), nose(p), mouth(p), hair.front(), glasses(p), hat(p))


def face(p: Painter) -> Iterator[Layer]:
    """The head under the light, hollows of the eyes, highlights, and the blush of the young."""
    p = p.crop(-0.75, 0.75, -0.75, 0.85)
    yield p.paint(p.face_shape, p.lit(p.skin), "face")
    for side, x, y, squeeze in p.eye_centres():
        hollow = blob(p.x, p.y, x - 0.02 * side, y - 0.015, 0.125 * squeeze, 0.075)
        yield _on_face(p, hollow * (0.20 + 0.16 * p.f["age"]), p.skin * 0.50)
    for right, up, wide, high, strength in ((-0.22, 0.62, 0.17, 0.10, 0.34), (-0.52, -0.14, 0.09, 0.07, 0.32)):
        x, y, squeeze = p.head.place(right, up)
        yield _on_face(p, strength * blob(p.x, p.y, x, y, wide * squeeze, high), 0.45 * p.skin + 0.55)
    for side in (-1, 1):
        x, y, squeeze = p.head.place(side * 0.55, -0.24)
        blush = blob(p.x, p.y, x, y, 0.095 * squeeze, 0.075)
        yield _on_face(p, blush * 0.55 * (1 - p.f["age"]), color(BLUSH) * p.skin.amax(1, keepdim=True))


def _on_face(p: Painter, amount: torch.Tensor, color: torch.Tensor) -> Layer:
    return p.tint(amount * coverage(p.face_shape, p.size), color)


def freckles(p: Painter) -> Iterator[Layer]:
    """Spots on cheeks and nose, on half of the people."""
    p = p.crop(-0.7, 0.7, -0.35, 0.6)
    spots = torch.full_like(p.face_shape, 1.0)
    for right, up in FRECKLES:
        x, y, _ = p.head.place(right * 1.2 + 0.03 * p.f["nose"], up + 0.03 * p.f["jaw"])
        spots = torch.minimum(spots, (p.x - x).square() + (p.y - y).square())
    amount = (2 * p.f["freckles"] - 1).clamp(min=0)
    yield p.paint(
        both(spots.sqrt() - 0.017, p.face_shape), p.skin * torch.tensor([[0.72, 0.55, 0.45]]), None, 0.75 * amount
    )


def wrinkles(p: Painter) -> Iterator[Layer]:
    """Lines on the forehead, around the eyes and beside the mouth, the deeper the older."""
    shade, deep = p.skin * 0.52, 0.85 * p.f["age"]
    forehead = p.crop(-0.6, 0.6, -0.75, -0.1)
    middle, _, _ = p.head.place(0.0, 0.0)
    for up, wide in ((0.50, 0.20), (0.60, 0.24)):
        _, y, _ = p.head.place(0.0, up)
        line = box(forehead.x, forehead.y + 0.25 * (forehead.x - middle).square(), middle, y, wide, 0.010, 0.008)
        yield forehead.paint(line, shade, None, deep, 0.028)
    for side, x, y, squeeze in p.eye_centres():
        part = _half(p, side, -0.35, 0.40)
        bag = outline(ellipse(part.x, part.y, x, y + 0.055, 0.145 * squeeze, 0.10), 0.012)
        yield part.paint(both(bag, y + 0.10 - part.y), shade, None, deep, 0.026)
        out = side * (part.x - x) - 0.155 * squeeze
        crow = ((part.y - y).abs() - 0.5 * out.clamp(0, 0.08)).abs() - 0.008
        yield part.paint(both(crow, -out, out - 0.075), shade, None, 0.6 * deep, 0.022)
        part = _half(p, side, -0.10, 0.75)
        yield part.paint(_fold(part, side), p.skin * 0.42, None, deep, 0.028)


def _fold(p: Painter, side: int) -> torch.Tensor:
    """Distance to the line from a wing of the nose to beside the corner of the mouth."""
    top_x, top_y, _ = p.head.place(side * 0.24, -0.22)
    bottom_x, bottom_y, _ = p.head.place(side * 0.50, -0.58)
    along = (p.y - top_y) / (bottom_y - top_y)
    line = torch.lerp(top_x + 0 * along, bottom_x + 0 * along, along) + 0.06 * side * along * (1 - along)
    return both((p.x - line).abs() - 0.010, ((along - 0.5).abs() - 0.5) * 0.2)


def eyes(p: Painter) -> Iterator[Layer]:
    """Eyeshadow, white in the shade of the lid, iris, pupil, light in it, lids and lashes."""
    for side, x, y, squeeze in p.eye_centres():
        yield from _eye(_half(p, side, -0.45, 0.40), side, x, y, squeeze)


def _half(p: Painter, side: int, top: float, bottom: float) -> Painter:
    """The side of the image that one half of the turned head can reach."""
    return p.crop(-0.75, 0.35, top, bottom) if side < 0 else p.crop(-0.35, 0.75, top, bottom)


def _eye(p: Painter, side: int, x: torch.Tensor, y: torch.Tensor, squeeze: torch.Tensor) -> Iterator[Layer]:
    feminine, opening, wide = 1 - p.f["gender"], 0.022 + 0.080 * p.f["eyes"], 0.145 * squeeze
    along = (p.x - x) / wide
    middle = y - 0.012 * side * along
    arch = (1 - along.square()).clamp(min=0)
    upper, lower = middle - 1.15 * opening * arch, middle + 0.85 * opening * arch.sqrt()
    white = both(upper - p.y, p.y - lower, (along.abs() - 1) * wide)
    shadow = both(ellipse(p.x, p.y, x, y - 0.01, 0.165 * squeeze, opening + 0.075), p.y - y)
    yield p.paint(shadow, color(EYESHADOW), "eyes", 0.60 * feminine, 0.04)
    below_lid = ((p.y - upper) / 0.07).clamp(0, 1)[:, None]
    yield p.paint(white, color(WHITE)[:, :, None, None] * (0.72 + 0.28 * below_lid), "eyes")
    gaze_x, gaze_y = x + 0.03 * p.f["yaw"], y - 0.015 * p.f["pitch"]
    around = ((p.x - gaze_x).square() + (p.y - gaze_y).square()).sqrt()
    iris_light = 0.75 + 5.0 * (p.y - gaze_y) - 6.5 * (around - 0.045).clamp(min=0)
    iris = p.eye_color[:, :, None, None] * (1.25 * iris_light.clamp(0.3, 1.4))[:, None]
    yield p.paint(both(around - 0.075, white), iris.clamp(max=1), "eyes")
    yield p.paint(both(around - 0.034, white), color(BLACK), "eyes")
    yield p.paint(both(ellipse(p.x, p.y, gaze_x - 0.028, gaze_y - 0.028, 0.021, 0.021), white), color(WHITE), "eyes")
    lashes = 0.013 + 0.010 * feminine
    lid = both((p.y - upper).abs() - lashes * (0.75 + 0.35 * side * along), along.abs() * wide - wide - 0.006)
    yield p.paint(lid, color(BLACK), "eyes")
    flick = both(
        (p.y - y + 0.55 * (side * (p.x - x) - wide)).abs() - 0.013, (side * (p.x - x) - wide - 0.022).abs() - 0.038
    )
    yield p.paint(flick, color(BLACK), "eyes", feminine)
    under = both((p.y - lower).abs() - 0.007, along.abs() * wide - 0.92 * wide)
    yield p.paint(under, p.skin * 0.40, "eyes", 0.6)
    crease = both((p.y - upper + 0.035).abs() - 0.008, along.abs() * wide - 0.85 * wide)
    yield p.paint(crease, p.skin * 0.45, None, 0.55)


def brows(p: Painter) -> Iterator[Layer]:
    """Two arched brows that thin out; heavier with a masculine presentation."""
    p = p.crop(-0.75, 0.75, -0.75, 0.1)
    for side, x, y, squeeze in p.at_eyes(0.33 + 0.11 * p.f["brow"]):
        out = side * (p.x - x) / (0.165 * squeeze)
        arch = 0.030 * (out + 0.15).square() + 0.012 * out
        thick = (0.020 + 0.016 * p.f["gender"]) * (1.15 - 0.55 * out.clamp(-1, 1))
        shape = both((p.y - y - arch).abs() - thick, 0.165 * (out.abs() - 1) * squeeze)
        yield p.paint(shape, p.hair * 0.48, "brows")


def nose(p: Painter) -> Iterator[Layer]:
    """Ridge with its lit and its dark side, wings, nostrils, and the shadow below."""
    p = p.crop(-0.55, 0.55, -0.45, 0.65)
    length = 0.13 + 0.12 * p.f["nose"]
    x, y, _ = p.head.place(0.0, -length, lift=1.12)
    bridge_x, bridge_y, _ = p.head.place(0.0, 0.10)
    along = ((p.y - bridge_y) / (y - bridge_y)).clamp(0, 1)
    ridge = torch.lerp(bridge_x + 0 * along, x + 0 * along, along)
    side = (p.x - ridge) / (0.028 + 0.055 * along)
    yield p.tint(blob(p.x, p.y, x + 0.035, y + 0.05, 0.10, 0.035) * 0.45, p.skin * 0.42)
    shape = torch.minimum(
        both((side.abs() - 1) * 0.05, bridge_y - p.y, p.y - y), ellipse(p.x, p.y, x, y - 0.015, 0.098, 0.058)
    )
    light = (0.80 - 0.30 * side - 0.10 * side.square() + 0.1 * (along - 0.5)).clamp(0, 1)
    yield p.paint(shape, p.lit(p.skin, torch.lerp(p.light, light, 0.85 * along.sqrt())), "nose", softness=0.03)
    for way in (-1, 1):
        yield p.paint(ellipse(p.x, p.y, x + 0.046 * way, y + 0.022, 0.026, 0.015), p.skin * 0.30, "nose", 0.9, 0.02)
    wing = both(outline(ellipse(p.x, p.y, x, y - 0.015, 0.098, 0.058), 0.009), 0.035 - (p.x - x).abs(), y - 0.035 - p.y)
    yield p.paint(wing, p.skin * 0.52, "nose", 0.7)
    yield p.tint(blob(p.x, p.y, x - 0.022, y - 0.028, 0.026, 0.024) * 0.65, 0.4 * p.skin + 0.6)
    yield p.tint(blob(p.x, p.y, ridge - 0.012, (y + bridge_y) / 2, 0.016, 0.09) * 0.30, 0.4 * p.skin + 0.6)


def mouth(p: Painter) -> Iterator[Layer]:
    """Lips, the dark of an open mouth, teeth and tongue, and the shadow under the lip."""
    p = p.crop(-0.65, 0.65, -0.05, 0.85)
    smile, opening, feminine = p.f["smile"], p.f["mouth"], 1 - p.f["gender"]
    x, y, squeeze = p.head.place(0.0, -0.52)
    width = (0.205 + 0.045 * smile) * squeeze
    along = (p.x - x) / width
    middle = y + 0.125 * smile * (0.5 - along.square())
    profile = (1 - along.square()).clamp(min=0).sqrt()
    gap = 0.095 * opening * profile
    bow = 1 - 0.25 * blob(along, along, 0.0, 0.0, 0.22, 0.22)
    plump = 0.024 + 0.020 * feminine
    lip = torch.lerp(
        torch.lerp(p.skin * torch.tensor([[0.80, 0.60, 0.58]]), color(LIPS), 0.15),
        color(LIPS),
        0.85 * feminine[:, :, 0],
    )
    thickness = plump * (0.35 + 0.65 * profile)
    ends = (along.abs() - 1.06) * width
    yield p.tint(blob(p.x, p.y, x + 0.02, middle + gap + 0.085, 0.70 * width, 0.022) * 0.28, p.skin * 0.45)
    upper = both(middle - gap - 1.15 * bow * thickness - p.y, p.y - middle - 0.004, ends)
    lower = both(p.y - middle - gap - 1.35 * thickness, middle - 0.004 - p.y, ends)
    yield p.paint(lower, lip, "mouth")
    yield p.paint(upper, lip * 0.80, "mouth")
    shine = blob(p.x, p.y, x - 0.04, middle + gap + 0.65 * thickness, 0.07, 0.012)
    yield p.tint(shine * (0.20 + 0.25 * feminine), color(WHITE))
    line = both((p.y - middle).abs() - 0.008, ends)
    yield p.paint(line, lip * 0.42, "mouth", 0.85)
    inner = both((p.y - middle).abs() - gap, (along.abs() - 0.96) * width)
    shown = (opening * 12).clamp(max=1)
    yield p.paint(inner, color(MOUTH), "mouth", shown)
    tongue = both(inner + 0.008, middle + 0.035 + 0.02 * along.square() - p.y)
    yield p.paint(tongue, color(TONGUE), "mouth", shown)
    teeth = both(inner + 0.006, p.y - middle + 0.025 * opening)
    yield p.paint(teeth, color(WHITE), "mouth", shown)
    for way in (-1, 1):
        corner = blob(p.x, p.y, x + way * 1.10 * width, middle, 0.020, 0.024)
        yield p.tint(corner * 0.32, p.skin * 0.45)


def glasses(p: Painter) -> Iterator[Layer]:
    """Bridge, lenses that reflect a window, rims that catch light, and temples."""
    worn, frame = p.f["glasses"], color(RIM)
    p = p.crop(-0.9, 0.9, -0.5, 0.45)
    bridge_x, bridge_y, _ = p.head.place(0.0, 0.10, lift=1.06)
    arch = 0.9 * (p.x - bridge_x).square()
    yield p.paint(box(p.x, p.y - arch, bridge_x, bridge_y, 0.07, 0.018), frame, "glasses", worn)
    for side, x, y, squeeze in p.eye_centres():
        wide = 0.195 * squeeze
        lens = box(p.x, p.y, x, y + 0.012, wide, 0.155, 0.10)
        yield p.tint(coverage(lens, p.size) * 0.10 * worn, color(WHITE))
        slant = (p.x - x) + 0.7 * (p.y - y)
        gleam = both(lens + 0.03, torch.minimum((slant + 0.10).abs() - 0.030, (slant + 0.02).abs() - 0.012))
        yield p.paint(gleam, color(WHITE), None, 0.38 * worn)
        yield p.paint(outline(lens, 0.024), frame, "glasses", worn)
        glint = both(outline(lens + 0.004, 0.007), p.y - y + 0.05, p.x - x + 0.02)
        yield p.paint(glint, color(WHITE), "glasses", 0.55 * worn)
        hinge, ear = x + side * wide, p.head.cx + side * p.head.width
        temple = box(p.x, p.y, (hinge + ear) / 2, y - 0.03, ((ear - hinge) * side).clamp(min=0) / 2, 0.020)
        yield p.paint(temple, frame, "glasses", worn)
