"""What all parts of a room are painted with: camera, light, colours, and faces of furniture."""

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from hspace.worlds.attributes import Factors
from hspace.worlds.layers import Canvas, Layer, palette
from hspace.worlds.rooms.geometry import Box, Camera, Surface, rectangle
from hspace.worlds.rooms.light import Light
from hspace.worlds.sdf import Scalar, coverage

WALL = ((0.90, 0.83, 0.70), (0.86, 0.66, 0.58), (0.62, 0.70, 0.62), (0.50, 0.66, 0.76), (0.36, 0.42, 0.62))
BLANKET = ((0.74, 0.20, 0.20), (0.88, 0.58, 0.22), (0.48, 0.62, 0.32), (0.20, 0.48, 0.62), (0.40, 0.26, 0.54))
FLOOR = ((0.78, 0.60, 0.40), (0.60, 0.42, 0.27), (0.42, 0.29, 0.21))
WOOD, LINEN, WHITE = (0.58, 0.40, 0.26), (0.93, 0.91, 0.87), (0.96, 0.95, 0.92)
RUG = ((0.80, 0.74, 0.62), (0.66, 0.42, 0.38), (0.46, 0.54, 0.60))

BED_LEFT, BED_NEAR, BED_FAR, BED_TOP = -1.62, 1.72, 3.86, 0.56
STAND_TOP, STAND_WIDE = 0.52, 0.46
LAMP_Z, BULB = 3.62, 0.98
MARGIN = 0.02

Point = tuple[Scalar, Scalar, Scalar]
Amount = Tensor | float


class Room(Canvas):
    """One batch of rooms at one resolution, or a window of them, or a part of the furniture.

    Attributes:
        region: What of the room is painted.
    """

    region: str | None = None

    def __init__(self, factors: Factors, size: int) -> None:
        super().__init__(factors, size)
        f = self.f
        self.camera: Camera = Camera.of(f["yaw"], f["height"])
        self.bed_right: Tensor = BED_LEFT + 0.98 + 0.85 * f["bed"]
        self.window_half: Tensor = 0.34 + 0.42 * f["window"]
        self.lamp_x: Tensor = self.bed_right + 0.05 + STAND_WIDE / 2
        self.light: Light = Light.of(f, (self.lamp_x, BULB, LAMP_Z - 0.15), self.window_half)
        self.wall: Tensor = palette(WALL, factors["wall"])
        self.blanket: Tensor = palette(BLANKET, factors["blanket"])
        self.floor: Tensor = palette(FLOOR, factors["floor"])
        self.rug: Tensor = palette(RUG, factors["rug"])

    def part(self, region: str) -> "Room":
        """The same rooms, of which a region is painted."""
        same = copy.copy(self)
        same.region = region
        return same

    def plane(self, axis: int, at: Scalar, normal: tuple[float, float, float]) -> Surface:
        """Where rays meet the plane on which one of x, y and z (0, 1, 2) has a value."""
        camera = self.camera
        rays = camera.rays(self.x[:, :1], self.y[:, :, :1])
        start = (camera.x, camera.y, camera.z)
        depth = (at - start[axis]) / (rays[axis] + 1e-7)
        x, y, z = (origin + depth * ray for origin, ray in zip(start, rays, strict=True))
        return Surface(x, y, z, torch.where(depth > 0, depth, torch.inf), normal)

    def near(self, corners: Iterable[Point], *, towards: tuple[float, float] | None = None) -> "Room":
        """The window of the image in which all corners are seen, for all rooms of the batch.

        Args:
            corners: Points in the room.
            towards: Side of the image that the window reaches to from there over the whole other dimension, such as
                (-1, 0) for the left; None for a window around the corners.
        """
        seen = [self.camera.project(*corner)[:2] for corner in corners]
        xs, ys = (torch.stack([point[i].flatten() for point in seen]) for i in (0, 1))
        left, right, top, bottom = torch.stack([xs.min(), xs.max(), ys.min(), ys.max()]).cpu().tolist()
        if towards is not None:
            sides = ((left, 1.0) if towards[0] > 0 else (-1.0, right)) if towards[0] else (-1.0, 1.0)
            ends = ((top, 1.0) if towards[1] > 0 else (-1.0, bottom)) if towards[1] else (-1.0, 1.0)
            (left, right), (top, bottom) = sides, ends
        margin = MARGIN + 2 / self.size
        edges = (left - margin, right + margin, top - margin, bottom + margin)
        return self.crop(*(min(max(edge, -1.0), 1.0) for edge in edges))

    def face(self, p: Surface, distance: Tensor, albedo: Tensor, shown: Amount = 1.0, shade: Amount = 1.0) -> Layer:
        """A lit shape on a plane.

        Args:
            p: The plane.
            distance: To the shape, on the plane.
            albedo: (n, 3) or (n, 3, height, width).
            shown: Opacity.
            shade: Share of the room's light that reaches it.
        """
        covered = coverage(p.seen(distance), self.size) * (p.depth < torch.inf) * shown
        return Layer(covered, self.light.lit(p, albedo, shade), self.region, self.window)

    def box(self, box: Box, albedo: Tensor, shade: float = 1.0) -> Iterator[Layer]:
        """The right side, the front and the top of a box of one colour; no camera sees more."""
        part, p = self.right_of(box)
        side = rectangle(p.z, p.y, box.near, box.far, box.bottom, box.top)
        shown = (self.camera.x > box.right).float()
        yield part.face(p, side, albedo, shown, shade * contact(p, box.bottom))
        part, p = self.front_of(box)
        front = rectangle(p.x, p.y, box.left, box.right, box.bottom, box.top)
        yield part.face(p, front, albedo, 1.0, 0.92 * shade * contact(p, box.bottom))
        part, p = self.top_of(box)
        yield part.face(p, rectangle(p.x, p.z, box.left, box.right, box.near, box.far), albedo, 1.0, shade)

    def right_of(self, box: Box) -> tuple["Room", Surface]:
        """The window and the plane of the right side of a box."""
        part = self.near((box.right, y, z) for y in (box.bottom, box.top) for z in (box.near, box.far))
        return part, part.plane(0, box.right, (1.0, 0.0, 0.0))

    def front_of(self, box: Box) -> tuple["Room", Surface]:
        """The window and the plane of the front of a box."""
        part = self.near((x, y, box.near) for x in (box.left, box.right) for y in (box.bottom, box.top))
        return part, part.plane(2, box.near, (0.0, 0.0, -1.0))

    def top_of(self, box: Box) -> tuple["Room", Surface]:
        """The window and the plane of the top of a box; a camera is always above it."""
        part = self.near((x, box.top, z) for x in (box.left, box.right) for z in (box.near, box.far))
        return part, part.plane(1, box.top, (0.0, 1.0, 0.0))

    def spot(self, distance: Tensor, scale: Tensor, albedo: Tensor, light: Tensor, shown: Amount = 1.0) -> Layer:
        """A shape that faces the camera, under one light.

        Args:
            distance: In metres where it stands.
            scale: Length of a metre in the image.
            albedo: (n, 3) or (n, 3, height, width).
            light: (n, 3, 1, 1).
            shown: Opacity.
        """
        albedo = albedo[:, :, None, None] if albedo.ndim == 2 else albedo
        return Layer(coverage(distance * scale, self.size) * shown, albedo * light, self.region, self.window)

    def light_at(self, x: Scalar, y: Scalar, z: Scalar) -> Tensor:
        """Light that something small gets on the side that faces the camera, (n, 3, 1, 1)."""
        point = [torch.zeros_like(self.camera.x) + value for value in (x, y, z)]
        p = Surface(*point, depth=torch.ones_like(self.camera.x), normal=(0.0, 0.4, -0.8))
        return self.light.lit(p, torch.ones(1, 3))

    def billboard(self, x: Scalar, y: Scalar, z: Scalar) -> tuple[Tensor, Tensor, Tensor]:
        """Metres to the right and up of a point, on a plane that faces the camera, and the length of a metre."""
        at_x, at_y, scale = self.camera.project(x, y, z)
        return (self.x - at_x) / scale, (at_y - self.y) / scale, scale


def contact(p: Surface, bottom: Scalar) -> Tensor:
    """Less light near the floor."""
    return 0.72 + 0.28 * ((p.y - bottom) / 0.25).clamp(0, 1)
