"""Scorers of photographs of faces that need no download: small networks of face-api, whose weights lie in this package.

A face is found, its 68 points are found in its box, and the other networks read the box of its points. As in the
original, but for its boxes of whole pixels: these here move with the face, and everything can be differentiated.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull
from torch import Tensor, nn

from hspace.scorers import facenets
from hspace.scorers.facefiles import embedded
from hspace.scorers.facenets import EXPRESSIONS, SIZES, views
from hspace.scorers.networks import log_odds, unit_norm
from hspace.types import Features, Images, Scores

BINARY = ("face", *("smile" if name == "happy" else name for name in EXPRESSIONS))
"""Probabilities: that there is a face, and of each of seven expressions."""
ATTRIBUTES = (*BINARY, "age", "yaw", "pitch", "roll", "mouth", "eyes")
"""All that `FaceScorer` reads: `BINARY`, years, and what `pose` and `openings` read off the points."""
REGIONS = {
    "face": [(0, 27)],
    "brows": [(17, 22), (22, 27)],
    "nose": [(27, 36)],
    "eyes": [(36, 42), (42, 48)],
    "mouth": [(48, 68)],
}
"""Ranges of points, by region, whose convex hulls it consists of."""

Points = Float[Tensor, "batch 68 2"]
"""Points of faces, x and y in pixels: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67."""


@dataclass(frozen=True)
class Faces:
    """The likeliest face of each image.

    Attributes:
        logits: Log-odds that it is a face, (batch,).
        points: Its points; those of an image without a face mean nothing.
    """

    logits: Float[Tensor, " batch"]
    points: Points

    @property
    def found(self) -> Bool[Tensor, " batch"]:
        """Which images show a face: those where one is likelier than not."""
        return self.logits > 0


class Network(nn.Module):
    """Weights of one network under the names of the original."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_buffer(name, tensor)

    @property
    def weights(self) -> facenets.Weights:
        """The tensors by name."""
        return dict(self.named_buffers())


class FaceFinder(nn.Module):
    """Finds the likeliest face of each image and its 68 points."""

    def __init__(self) -> None:
        super().__init__()
        self.detector: Network = Network(embedded("detector"))
        self.landmarks: Network = Network(embedded("landmarks"))

    def forward(self, pixels: Tensor) -> Faces:
        """Faces of images in [0, 255], (batch, 3, height, width); where there is none, the whole image is taken."""
        height, width = pixels.shape[-2:]
        whole = pixels.new_tensor([0, 0, width, height]).repeat(len(pixels), 1)
        squares = views(pixels, whole, SIZES["detector"], centre=False)
        logits, boxes = facenets.detect(squares, self.detector.weights)
        best, rows = logits.argmax(dim=1), torch.arange(len(pixels))
        found = logits[rows, best]
        box = inside(boxes[rows, best] * max(height, width), height, width)
        box = torch.where(found[:, None] > 0, box, whole)
        points = facenets.landmarks(views(pixels, box, SIZES["landmarks"]), self.landmarks.weights)
        side = (box[:, 2:] - box[:, :2]).max(dim=1).values[:, None, None]
        middle = (box[:, :2] + box[:, 2:])[:, None] / 2
        return Faces(found, middle + (points - 0.5) * side)


class FaceScorer(nn.Module):
    """Expressions, age, pose and openings of the likeliest face of a photograph.

    The original's output for gender is left out: on two crops of one face it gave .21 and .89.
    """

    id: str = "faceapi"

    def __init__(self) -> None:
        super().__init__()
        self.attributes: tuple[str, ...] = ATTRIBUTES
        self.binary: tuple[bool, ...] = (True,) * len(BINARY) + (False,) * (len(ATTRIBUTES) - len(BINARY))
        self.finder: FaceFinder = FaceFinder()
        self.expressions: Network = Network(embedded("expressions"))
        self.age: Network = Network(embedded("age"))
        self.eval()

    def forward(self, images: Images) -> Scores:
        """Probabilities, years and measures of images in [-1, 1], (batch, attributes)."""
        logits = self.logits(images)
        return torch.cat([logits[:, : len(BINARY)].sigmoid(), logits[:, len(BINARY) :]], dim=1)

    def logits(self, images: Images) -> Scores:
        """Log-odds of the probabilities, and the other scores as they are, (batch, attributes)."""
        pixels = to_pixels(images)
        faces = self.finder(pixels)
        faces_alone = views(pixels, box_of_points(faces.points, *pixels.shape[-2:]), SIZES["expressions"])
        expressions = log_odds(facenets.expressions(faces_alone, self.expressions.weights))
        age = facenets.age(faces_alone, self.age.weights)
        measures = torch.stack([age, *pose(faces.points), *openings(faces.points)], dim=1)
        return torch.cat([faces.logits[:, None], expressions, measures], dim=1)

    def visible(self, scores: Scores) -> Tensor:
        """Everything of images that show a face, and of the others only that they do not."""
        seen = (scores[:, :1] > 0.5).repeat(1, scores.shape[1])
        seen[:, 0] = True
        return seen


class FaceIdentity(nn.Module):
    """Descriptors of faces as an identity encoder, scaled to length 1.

    It is dlib's network, trained so that descriptors of one person are within .6 of each other, a cosine of about .91.
    """

    id: str = "faceapi"
    dim: int = 128

    def __init__(self) -> None:
        super().__init__()
        self.finder: FaceFinder = FaceFinder()
        self.network: Network = Network(embedded("identity"))
        self.eval()

    def forward(self, images: Images) -> Features:
        """Unit-norm descriptors of images in [-1, 1], (batch, 128)."""
        pixels = to_pixels(images)
        boxes = box_of_eyes_and_mouth(self.finder(pixels).points, *pixels.shape[-2:])
        return unit_norm(facenets.identity(views(pixels, boxes, SIZES["identity"]), self.network.weights))


class FaceRegions(nn.Module):
    """Regions of the likeliest face of a photograph: convex hulls of its points; empty where there is no face."""

    id: str = "faceapi"
    regions: tuple[str, ...] = tuple(REGIONS)

    def __init__(self) -> None:
        super().__init__()
        self.finder: FaceFinder = FaceFinder()
        self.eval()

    @torch.no_grad()
    def forward(self, images: Images) -> dict[str, Tensor]:
        """By region: (batch, height, width) bool, of images in [-1, 1]."""
        faces = self.finder(to_pixels(images))
        masks = {name: torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool) for name in REGIONS}
        for row in faces.found.nonzero()[:, 0].tolist():
            for name, ranges in REGIONS.items():
                for first, last in ranges:
                    masks[name][row] |= _hull(faces.points[row, first:last].double().numpy(), *images.shape[-2:])
        return masks


def scorer() -> FaceScorer:
    """Face-api's networks, which lie in this package: expressions, age, pose, and openings of mouth and eyes."""
    return FaceScorer()


def identity() -> FaceIdentity:
    """Face-api's identity network, which lies in this package."""
    return FaceIdentity()


def regions() -> FaceRegions:
    """Face, brows, nose, eyes and mouth between the points that face-api finds."""
    return FaceRegions()


def pose(points: Points) -> tuple[Tensor, Tensor, Tensor]:
    """Yaw, pitch and roll of faces, each (batch,).

    Yaw and pitch are the way of the tip of the nose from the middle between both sides of the jaw, to the right of the
    image and up along the face's own axes, in halves of the face's width: they grow with the angle and depend on the
    person too. Roll is the angle of the line through the eyes in degrees, clockwise in the image.
    """
    across, down = axes(points)
    left, right, nose = points[:, 2], points[:, 14], points[:, 30]
    half = (right - left).norm(dim=1) / 2
    way = nose - (left + right) / 2
    roll = torch.atan2(across[:, 1], across[:, 0]) * (180 / math.pi)
    return (way * across).sum(1) / half, -(way * down).sum(1) / half, roll


def openings(points: Points) -> tuple[Tensor, Tensor]:
    """How far mouth and eyes are open, each (batch,): mean height between the lips or lids over the width."""
    mouth = _opening(points, 60, 64, ((61, 67), (62, 66), (63, 65)))
    eyes = [_opening(points, i, i + 3, ((i + 1, i + 5), (i + 2, i + 4))) for i in (36, 42)]
    return mouth, (eyes[0] + eyes[1]) / 2


def axes(points: Points) -> tuple[Tensor, Tensor]:
    """Unit vectors of faces, (batch, 2) each: from the eye on the left to the other, and down from that line."""
    across = unit_norm(points[:, 42:48].mean(1) - points[:, 36:42].mean(1))
    return across, torch.stack([-across[:, 1], across[:, 0]], dim=1)


def box_of_points(points: Points, height: int, width: int) -> Tensor:
    """The box of each face's points, a tenth wider on each side: left, top, right, bottom, (batch, 4)."""
    low, high = points.min(dim=1).values, points.max(dim=1).values
    border = 0.1 * (high - low)
    return inside(torch.cat([low - border, high + border], dim=1), height, width)


def box_of_eyes_and_mouth(points: Points, height: int, width: int) -> Tensor:
    """The squares by which the identity network's faces were cut out: left, top, right, bottom, (batch, 4)."""
    eyes = torch.stack([points[:, 36:42].mean(1), points[:, 42:48].mean(1)], dim=1)
    mouth = points[:, 48:].mean(1, keepdim=True)
    side = (mouth - eyes).norm(dim=2).mean(1, keepdim=True) / 0.45
    corner = torch.cat([eyes, mouth], dim=1).mean(1) - side * points.new_tensor([0.5, 0.43])
    return inside(torch.cat([corner, corner + side], dim=1), height, width)


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """The part of each box, (batch, 4), inside an image; at least one pixel each way."""
    most = boxes.new_tensor([width, height])
    low = torch.minimum(boxes[:, :2].clamp(min=0), most - 1)
    return torch.cat([low, torch.maximum(torch.minimum(boxes[:, 2:], most), low + 1)], dim=1)


def to_pixels(images: Images) -> Tensor:
    """Images in [-1, 1] in the range of the networks, [0, 255]; grey ones get three channels."""
    return (images.clamp(-1, 1) + 1).expand(-1, 3, -1, -1) * 127.5


def _opening(points: Tensor, left: int, right: int, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    heights = [(points[:, below] - points[:, above]).norm(dim=1) for above, below in pairs]
    return torch.stack(heights).mean(0) / (points[:, right] - points[:, left]).norm(dim=1).clamp(min=1e-6)


def _hull(points: np.ndarray, height: int, width: int) -> Tensor:
    """The pixels whose middles lie in the convex hull of points, (height, width) bool."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    normals = ConvexHull(points).equations
    inside = normals[:, 0, None, None] * x + normals[:, 1, None, None] * y + normals[:, 2, None, None] <= 0
    return torch.from_numpy(inside.all(axis=0))
