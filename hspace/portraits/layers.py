"""How a portrait is painted: a sequence of layers, each a coverage, a colour and the region it belongs to.

The head is an ellipsoid seen from the front. A feature sits at an azimuth and an elevation on it, so turning the head
moves and foreshortens every feature consistently. Coordinates run over [-1, 1], x right and y down.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.portraits.sdf import both, box, coverage, ellipse, outline, pixel_grid, superellipse

Factors = dict[str, Tensor]

REGIONS = ("eyes", "brows", "mouth", "nose", "hair", "hat", "glasses", "face")

SKIN = ((0.99, 0.87, 0.77), (0.93, 0.75, 0.60), (0.80, 0.59, 0.43), (0.62, 0.43, 0.31), (0.47, 0.32, 0.23))
HAIR = ((0.10, 0.08, 0.08), (0.32, 0.18, 0.10), (0.56, 0.32, 0.14), (0.76, 0.46, 0.18), (0.94, 0.80, 0.45))
EYES = ((0.25, 0.14, 0.07), (0.18, 0.42, 0.20), (0.15, 0.40, 0.78))
CLOTHES = ((0.16, 0.28, 0.62), (0.52, 0.18, 0.48), (0.72, 0.17, 0.19), (0.82, 0.60, 0.16), (0.14, 0.48, 0.32))
GREY, LIPS, MOUTH, BLACK, WHITE = (0.78,) * 3, (0.80, 0.13, 0.24), (0.30, 0.04, 0.07), (0.06,) * 3, (0.98,) * 3
EYESHADOW, BLUSH = (0.50, 0.32, 0.62), (0.95, 0.45, 0.42)

MAX_YAW, MAX_PITCH = math.radians(24), math.radians(13)


@dataclass(frozen=True)
class Layer:
    """One coat of paint.

    Attributes:
        coverage: (n, size, size) in [0, 1].
        color: (n, 3) or (n, 3, size, size) in [0, 1].
        region: The region of `REGIONS` that it belongs to, "other" for what merely hides one, None for shading that
            leaves the region under it as it is.
    """

    coverage: Tensor
    color: Tensor
    region: str | None


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
            right: Place on a head seen from the front, in half-widths from the centre, in (-1, 1).
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
    """Coverage and colours of one batch of portraits at one resolution."""

    x: Tensor
    y: Tensor
    f: dict[str, Tensor]
    head: Head
    skin: Tensor
    hair: Tensor
    eye_color: Tensor
    clothes: Tensor
    background: Tensor
    face_shape: Tensor

    def __init__(self, factors: Factors, size: int) -> None:
        self.size = size
        self.x, self.y = pixel_grid(size)
        self.f = {name: value[:, None, None] for name, value in factors.items()}
        f = self.f
        self.head = Head(
            cx=0.05 * f["yaw"],
            cy=0.07 - 0.02 * f["pitch"],
            width=0.54 + 0.11 * f["face_width"],
            height=torch.full_like(f["age"], 0.76),
            yaw=MAX_YAW * f["yaw"],
            pitch=MAX_PITCH * f["pitch"],
        )
        age = factors["age"][:, None]
        skin = palette(SKIN, factors["skin"])
        self.skin = torch.lerp(skin, skin.mean(1, keepdim=True), 0.3 * age)
        self.hair = torch.lerp(palette(HAIR, factors["hair_color"]), color(GREY), ((age - 0.5) / 0.4).clamp(0, 1))
        self.eye_color = palette(EYES, factors["eye_color"])
        self.clothes = palette(CLOTHES, factors["clothes"])
        hue = factors["background"][:, None] + torch.tensor([[0.0, 1 / 3, 2 / 3]])
        self.background = 0.68 + 0.15 * torch.cos(2 * math.pi * hue)
        self.face_shape = superellipse(
            self.x, self.y, self.head.cx, self.head.cy, self.head.width, self.head.height,
            2.0 + 0.5 * f["jaw"] + 0.4 * f["gender"],
        )  # fmt: skip

    def paint(self, distance: Tensor, color: Tensor, region: str | None, opacity: Tensor | float = 1.0) -> Layer:
        """A layer that fills a shape."""
        return Layer(coverage(distance, self.size) * opacity, color, region)

    def eye_centres(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """x, y and foreshortening of the left and the right eye."""
        spacing = 0.43 + 0.07 * self.f["eye_spacing"]
        for side in (-1, 1):
            yield self.head.place(side * spacing, 0.10)


def palette(colors: tuple[tuple[float, ...], ...], position: Tensor) -> Tensor:
    """Linear interpolation along a list of colours: (n,) in [0, 1] to (n, 3)."""
    table = torch.tensor(colors)
    scaled = position.clamp(0, 1) * (len(colors) - 1)
    index = scaled.long().clamp(max=len(colors) - 2)
    return torch.lerp(table[index], table[index + 1], (scaled - index)[:, None])


def color(rgb: tuple[float, ...]) -> Tensor:
    """A constant colour, (1, 3)."""
    return torch.tensor([rgb])


def layers(factors: Factors, size: int) -> Iterator[Layer]:
    """All layers of the portraits, from the background to the hat.

    Args:
        factors: Each (n,).
        size: Height and width in pixels.
    """
    painter = Painter(factors, size)
    for part in (background, back_hair, body, face, beard, wrinkles, eyes, brows, nose, mouth, hair, glasses, hat):
        yield from part(painter)


def background(p: Painter) -> Iterator[Layer]:
    """A vertical gradient."""
    shade = 1.08 - 0.16 * (p.y[:, None] + 1) / 2
    yield Layer(torch.ones_like(p.f["age"]).expand(-1, p.size, p.size), p.background[:, :, None, None] * shade, "other")


def back_hair(p: Painter) -> Iterator[Layer]:
    """Hair behind the head; it reaches from the ears to the shoulders."""
    length = p.f["hair_length"]
    top, bottom = p.head.cy - 0.62, torch.lerp(torch.tensor(-0.05), torch.tensor(1.0), length)
    shape = box(
        p.x, p.y, p.head.cx * 0.6, (top + bottom) / 2, p.head.width + 0.06 + 0.12 * length, (bottom - top) / 2, 0.28
    )
    yield p.paint(shape, p.hair * 0.78, "hair")


def body(p: Painter) -> Iterator[Layer]:
    """Shoulders, neck and ears."""
    yield p.paint(ellipse(p.x, p.y, 0.0, 1.16, 0.95, 0.30), p.clothes, "other")
    yield p.paint(box(p.x, p.y, p.head.cx * 0.5, 0.80, 0.22 + 0.10 * p.f["gender"], 0.16, 0.05), p.skin * 0.80, "other")
    for side in (-1, 1):
        x = p.head.cx + side * p.head.width - 0.06 * p.f["yaw"]
        yield p.paint(ellipse(p.x, p.y, x, p.head.cy + 0.02, 0.09, 0.15), p.skin * 0.88, "other")


def face(p: Painter) -> Iterator[Layer]:
    """The head, lit from the upper left, and the blush of the young."""
    light = ((p.x - p.head.cx + 0.15).square() + (p.y - p.head.cy + 0.2).square()).clamp(max=1.0)
    yield p.paint(p.face_shape, p.skin[:, :, None, None] * (1.03 - 0.20 * light[:, None]), "face")
    for side in (-1, 1):
        x, y, squeeze = p.head.place(side * 0.55, -0.25)
        blush = coverage(ellipse(p.x, p.y, x, y, 0.16 * squeeze, 0.12), p.size) * 0.45 * (1 - p.f["age"])
        yield Layer(blush, color(BLUSH) * p.skin.amax(1, keepdim=True), None)


def beard(p: Painter) -> Iterator[Layer]:
    """A beard around the mouth and a moustache."""
    x, y, squeeze = p.head.place(0.0, -0.36)
    cheeks = ellipse(p.x, p.y, x, y - 0.26, 0.50 * squeeze + 0.06, 0.34)
    chin = both(p.face_shape - 0.01, -cheeks, y - 0.22 - p.y)
    moustache = ellipse(p.x, p.y, x, y - 0.03, 0.30 * squeeze, 0.07)
    for shape in (chin, moustache):
        yield p.paint(shape, p.hair * 0.62, "face", p.f["beard"])


def wrinkles(p: Painter) -> Iterator[Layer]:
    """Lines on the forehead, under the eyes and beside the mouth, the deeper the older."""
    shade, age = p.skin * 0.55, p.f["age"]
    fx, _, _ = p.head.place(0.0, 0.0)
    for up in (0.50, 0.62):
        _, y, _ = p.head.place(0.0, up)
        line = box(p.x, p.y + 0.25 * (p.x - fx).square(), fx, y, 0.24, 0.014, 0.01)
        yield p.paint(line, shade, None, 0.85 * age)
    for x, y, squeeze in p.eye_centres():
        bag = both(outline(ellipse(p.x, p.y, x, y + 0.07, 0.17 * squeeze, 0.11), 0.016), y + 0.12 - p.y)
        yield p.paint(bag, shade, None, 0.85 * age)
    for side in (-1, 1):
        x, y, squeeze = p.head.place(side * 0.2, -0.38)
        fold = outline(ellipse(p.x, p.y, x, y, 0.27 * squeeze, 0.26), 0.016)
        yield p.paint(both(fold, (p.y - y - 0.05).abs() - 0.16, side * (x - p.x) + 0.1), shade, None, 0.85 * age)


def eyes(p: Painter) -> Iterator[Layer]:
    """Eyeshadow, white, iris, pupil and upper lid."""
    opening, feminine = 0.03 + 0.085 * p.f["eyes"], 1 - p.f["gender"]
    for x, y, squeeze in p.eye_centres():
        shadow = both(ellipse(p.x, p.y, x, y, 0.18 * squeeze, opening + 0.07), p.y - y)
        yield p.paint(shadow, color(EYESHADOW), "eyes", 0.75 * feminine)
        white = ellipse(p.x, p.y, x, y, 0.155 * squeeze, opening)
        yield p.paint(white, color(WHITE), "eyes")
        gaze_x, gaze_y = x + 0.03 * p.f["yaw"], y - 0.015 * p.f["pitch"]
        iris = ellipse(p.x, p.y, gaze_x, gaze_y, 0.078, 0.078)
        yield p.paint(both(iris, white), p.eye_color, "eyes")
        yield p.paint(both(ellipse(p.x, p.y, gaze_x, gaze_y, 0.036, 0.036), white), color(BLACK), "eyes")
        lid = both(outline(white, 0.012 + 0.014 * feminine), p.y - y)
        yield p.paint(lid, color(BLACK), "eyes")


def brows(p: Painter) -> Iterator[Layer]:
    """Two arched brows; heavier with a masculine presentation."""
    spacing = 0.43 + 0.07 * p.f["eye_spacing"]
    for side in (-1, 1):
        x, y, squeeze = p.head.place(side * spacing, 0.36 + 0.10 * p.f["brow"])
        arch = 0.8 * (p.x - x).square()
        shape = box(p.x, p.y - arch, x, y, 0.17 * squeeze, 0.026 + 0.022 * p.f["gender"], 0.02)
        yield p.paint(shape, p.hair * 0.45, "brows")


def nose(p: Painter) -> Iterator[Layer]:
    """Ridge, nostrils and tip, which stands out of the head."""
    length = 0.13 + 0.12 * p.f["nose"]
    x, y, _ = p.head.place(0.0, -length, lift=1.12)
    bridge_x, bridge_y, _ = p.head.place(0.0, 0.08)
    along = ((p.y - bridge_y) / (y - bridge_y)).clamp(0, 1)
    ridge = both(
        (p.x - torch.lerp(bridge_x + 0 * along, x + 0 * along, along)).abs() - 0.03 - 0.05 * along,
        bridge_y - p.y,
        p.y - y,
    )
    yield p.paint(ridge, p.skin * 0.88, "nose")
    yield p.paint(ellipse(p.x, p.y, x, y, 0.10, 0.045), p.skin * 0.70, "nose")
    yield p.paint(ellipse(p.x, p.y, x, y - 0.03, 0.085, 0.045), p.skin * 0.98, "nose")


def mouth(p: Painter) -> Iterator[Layer]:
    """Lips, the dark of an open mouth, and teeth."""
    smile, opening, feminine = p.f["smile"], p.f["mouth"], 1 - p.f["gender"]
    x, y, squeeze = p.head.place(0.0, -0.50)
    width = (0.25 + 0.05 * smile) * squeeze
    along = (p.x - x) / width
    middle = y + 0.14 * smile * (0.5 - along.square())
    profile = (1 - along.square()).clamp(min=0).sqrt()
    inner = both((p.y - middle).abs() - 0.115 * opening * profile, (along.abs() - 1) * width)
    lip = torch.lerp(torch.lerp(p.skin * 0.72, color(LIPS), 0.25), color(LIPS), feminine[:, :, 0])
    lips = both(
        (p.y - middle).abs() - 0.115 * opening * profile - (0.030 + 0.018 * feminine), (along.abs() - 1.08) * width
    )
    yield p.paint(lips, lip, "mouth")
    shown = (opening * 12).clamp(max=1)
    yield p.paint(inner, color(MOUTH), "mouth", shown)
    teeth = both(inner + 0.006, p.y - middle + 0.03 * opening)
    yield p.paint(teeth, color(WHITE), "mouth", shown)


def hair(p: Painter) -> Iterator[Layer]:
    """The hair around the forehead and beside the face."""
    length, head = p.f["hair_length"], p.head
    cap = ellipse(p.x, p.y, head.cx, head.cy - 0.05, head.width + 0.06, head.height + 0.05)
    fx, fy, _ = head.place(0.0, -0.20)
    opening = ellipse(p.x, p.y, 0.6 * fx + 0.4 * head.cx, fy + 0.02, head.width * 0.93, 0.70)
    bottom = torch.lerp(torch.tensor(-0.16), torch.tensor(0.9), length)
    yield p.paint(both(cap, -opening, p.y - bottom), p.hair, "hair")


def glasses(p: Painter) -> Iterator[Layer]:
    """Bridge, tinted lenses, rims and temples."""
    worn, frame = p.f["glasses"], color(BLACK)
    bridge_x, bridge_y, _ = p.head.place(0.0, 0.10, lift=1.06)
    yield p.paint(box(p.x, p.y, bridge_x, bridge_y, 0.09, 0.028), frame, "glasses", worn)
    for side, (x, y, squeeze) in zip((-1, 1), p.eye_centres(), strict=True):
        lens = box(p.x, p.y, x, y + 0.01, 0.215 * squeeze, 0.175, 0.09)
        yield p.paint(lens, color(WHITE), None, 0.22 * worn)
        yield p.paint(outline(lens, 0.034), frame, "glasses", worn)
        hinge, ear = x + side * 0.215 * squeeze, p.head.cx + side * p.head.width
        temple = box(p.x, p.y, (hinge + ear) / 2, y - 0.03, ((ear - hinge) * side).clamp(min=0) / 2, 0.022)
        yield p.paint(temple, frame, "glasses", worn)


def hat(p: Painter) -> Iterator[Layer]:
    """Crown, band and brim."""
    worn, head = p.f["hat"], p.head
    line = head.cy - 0.50 - 0.03 * p.f["pitch"]
    crown = both(superellipse(p.x, p.y, head.cx, line, head.width + 0.04, 0.50, 2.8), p.y - line)
    yield p.paint(crown, p.clothes, "hat", worn)
    band = both(crown, line - 0.17 - p.y)
    yield p.paint(band, p.clothes * 0.45, "hat", worn)
    brim = box(p.x, p.y, head.cx + 0.06 * p.f["yaw"], line, head.width + 0.24, 0.055, 0.05)
    yield p.paint(brim, p.clothes * 0.75, "hat", worn)
