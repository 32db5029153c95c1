"""Photographs as the model sees them, and edits of that view, put back into the photograph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hspace.directions.masks import make_mask
from hspace.output.animation import Pixels
from hspace.scorers.faceapi import FaceFinder
from hspace.system.files import sha256_file
from hspace.system.pictures import read_picture
from hspace.types import Images, InputError, RegionNetwork

FEATHER = 0.03
"""Width over which an edit fades out towards the border of a mask, in parts of the frame's shorter side."""
SEARCHED = 1024
"""Longest side of an image in which faces and regions are sought; larger ones are reduced."""

Weights = Float[np.ndarray, "rows columns"]
"""Share of an edit that each pixel of a photograph takes, in [0, 1]."""
Vector = tuple[float, float]
"""X to the right and y down, in pixels of a photograph."""


@dataclass(frozen=True)
class Frame:
    """The rectangle of a photograph that the model sees, upright or turned.

    Attributes:
        centre: Its centre.
        right: From the centre to the middle of the right edge of the model's image.
        down: From the centre to the middle of the lower edge, at a right angle to `right`.
    """

    centre: Vector
    right: Vector
    down: Vector

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in whole pixels of the photograph, at least 1."""
        return max(1, round(2 * math.hypot(*self.down))), max(1, round(2 * math.hypot(*self.right)))

    def box(self, whole: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the pixels around it in a photograph of this height and width."""
        reach = [abs(self.right[i]) + abs(self.down[i]) for i in (1, 0)]
        middle = self.centre[1], self.centre[0]
        top, left = (min(max(math.floor(m - r), 0), n - 1) for m, r, n in zip(middle, reach, whole, strict=True))
        bottom, right = (min(math.ceil(m + r), n) for m, r, n in zip(middle, reach, whole, strict=True))
        return top, left, max(bottom, top + 1), max(right, left + 1)

    def places(self, box: tuple[int, int, int, int]) -> Tensor:
        """Where the pixels of a box lie in the model's image, from -1 to 1 across and down: (1, height, width, 2)."""
        top, left, bottom, right = box
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        x, y = x - self.centre[0], y - self.centre[1]
        across, along = (
            (x * axis[0] + y * axis[1]) / (axis[0] ** 2 + axis[1] ** 2) for axis in (self.right, self.down)
        )
        return torch.from_numpy(np.stack([across, along], axis=-1).astype(np.float32))[None]


@dataclass(frozen=True)
class Photo:
    """A photograph and the part of it that the model sees.

    Attributes:
        path: File of the photograph.
        sha256: Hash of the file's bytes.
        pixels: Whole photograph, upright, (height, width, 3) uint8.
        frame: Part that the model sees.
        aligned: That part at the model's size, (1, 3, height, width) in [-1, 1].
        by_face: Whether the frame was laid around a face, and not in the middle.
    """

    path: Path
    sha256: str
    pixels: Pixels
    frame: Frame
    aligned: Images
    by_face: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the pixels around the frame."""
        return self.frame.box((self.pixels.shape[0], self.pixels.shape[1]))


def open_photo(path: str | Path, size: tuple[int, int], finder: FaceFinder | None = None) -> Photo:
    """Reads a photograph and cuts out what the model sees.

    That is its likeliest face, as faces lie in CelebA-HQ and FFHQ, where there is one that the finder finds, and else
    the largest part of the model's proportions in the middle.

    Args:
        path: Image file; see `read_picture` for transparency and orientation.
        size: Height and width of the model's images.
        finder: Finder of faces; None takes the middle.

    Raises:
        InputError: If the file cannot be read as an image.
    """
    path = Path(path)
    pixels = np.array(read_picture(path, background="white"))
    points = None if finder is None else find_points(pixels, finder)
    frame = central_frame((pixels.shape[0], pixels.shape[1]), size) if points is None else face_frame(points, size)
    return Photo(path, sha256_file(path), pixels, frame, cut_out(pixels, frame, size), points is not None)


def find_points(pixels: Pixels, finder: FaceFinder) -> np.ndarray | None:
    """The 68 points of the likeliest face, (68, 2) x and y in pixels; None where there is no face."""
    scale = min(1.0, SEARCHED / max(pixels.shape[:2]))
    size = [max(1, round(scale * side)) for side in (pixels.shape[1], pixels.shape[0])]
    small = np.array(Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.LANCZOS))
    with torch.no_grad():
        faces = finder(torch.from_numpy(small).permute(2, 0, 1)[None].float())
    ratio = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    return faces.points[0].double().numpy() * ratio if bool(faces.found[0]) else None


def face_frame(points: np.ndarray, size: tuple[int, int]) -> Frame:
    """The frame of a face in which those of CelebA-HQ and FFHQ lie; its shorter side is their square's.

    Args:
        points: The 68 points of the face, (68, 2), x and y in pixels.
        size: Height and width of the model's images.

    Source: Karras et al. 2018 (arXiv 1710.10196), appendix C.
    """
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    middle, mouth = (eyes[0] + eyes[1]) / 2, (points[48] + points[54]) / 2
    across, down = eyes[1] - eyes[0], mouth - middle
    axis = across + np.array([down[1], -down[0]])
    axis *= max(2 * math.hypot(*across), 1.8 * math.hypot(*down)) / math.hypot(*axis)
    centre = middle + 0.1 * down
    wider, taller = size[1] / min(size), size[0] / min(size)
    return Frame(
        (float(centre[0]), float(centre[1])),
        (float(axis[0] * wider), float(axis[1] * wider)),
        (float(-axis[1] * taller), float(axis[0] * taller)),
    )


def central_frame(whole: tuple[int, int], size: tuple[int, int]) -> Frame:
    """The largest upright frame in the middle of a photograph of height and width `whole`, in whole pixels."""
    top, left, bottom, right = central_box(whole, size)
    return Frame(((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, 0.0), (0.0, (bottom - top) / 2))


def central_box(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest central part, (top, left, bottom, right), of `whole` (height, width) in the proportions of `size`."""
    scale = min(whole[0] / size[0], whole[1] / size[1])
    height, width = (max(1, min(round(scale * side), limit)) for side, limit in zip(size, whole, strict=True))
    top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
    return top, left, top + height, left + width


def cut_out(pixels: Pixels, frame: Frame, size: tuple[int, int]) -> Images:
    """What lies in the frame at the model's size, (1, 3, height, width) in [-1, 1]; the photograph goes on mirrored."""
    height, width = frame.sides
    reach = [abs(frame.right[i]) + abs(frame.down[i]) for i in (0, 1)]
    ends = (frame.centre[0], pixels.shape[1] - frame.centre[0]), (frame.centre[1], pixels.shape[0] - frame.centre[1])
    # One pixel more is read by the cubic filter.
    beyond = [math.ceil(max(0.0, r - min(end))) + 2 for r, end in zip(reach, ends, strict=True)]
    padded = np.pad(pixels, ((beyond[1],) * 2, (beyond[0],) * 2, (0, 0)), mode="symmetric")
    corner = [frame.centre[i] + beyond[i] - frame.right[i] - frame.down[i] for i in (0, 1)]
    affine = [(2 * frame.right[i] / width, 2 * frame.down[i] / height, corner[i]) for i in (0, 1)]
    turned = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, [*affine[0], *affine[1]], Image.Resampling.BICUBIC
    )
    resized = np.array(turned.resize((size[1], size[0]), Image.Resampling.LANCZOS))
    return torch.from_numpy(resized).permute(2, 0, 1)[None] / 127.5 - 1


def weights_of(photo: Photo, region: str | Sequence[float] | None, network: RegionNetwork | None = None) -> Weights:
    """The share of an edit that each pixel of a photo takes: 1 in the mask, fading to 0 inside it near its border.

    Args:
        photo: Photograph.
        region: Rectangle `[top, left, bottom, right]` in fractions of the photograph, path of a PNG of its proportions,
            name of a region, or None for the whole part that the model sees.
        network: Network that finds a named region in the frame.

    Raises:
        InputError: If the region is not of one of these kinds, cannot be read or found, or is empty.
    """
    height, width = photo.pixels.shape[:2]
    top, left, bottom, right = box = photo.box
    places = photo.frame.places(box)
    inside = np.zeros((height, width), dtype=bool)
    inside[top:bottom, left:right] = (places[0].abs() <= 1).all(dim=-1).numpy()
    if isinstance(region, str) and not region.lower().endswith(".png"):
        inside[top:bottom, left:right] &= _seen(photo, region, network, places)
    elif region is not None:
        inside &= make_mask(region, (height, width)).numpy()
    if not inside.any():
        raise InputError(f"mask {region} holds nothing of the part that the model sees, rows {top} to {bottom}")
    return _feathered(inside, FEATHER * min(photo.frame.sides))


def paste(photo: Photo, original: Images, edited: Images, weights: Weights) -> Pixels:
    """The photograph with the changes of the edit.

    The change of the model's image, enlarged to the photograph's pixels, is added to the photograph: its own detail,
    which the model's image lacks, is the residual that stays. Where `weights` is 0 every pixel is the photograph's.

    Args:
        photo: Photograph.
        original: Image that the inversion reconstructs without an edit, (1, channel, height, width).
        edited: Edited image of the same shape.
        weights: Weights from `weights_of`.
    """
    top, left, bottom, right = photo.box
    places = photo.frame.places(photo.box)
    change = (edited.float().clamp(-1, 1) - original.float().clamp(-1, 1)).cpu().expand(1, 3, -1, -1)
    large = F.grid_sample(change, places, "bicubic", padding_mode="border", align_corners=False)[0]
    added = np.zeros(photo.pixels.shape, dtype=np.float32)
    added[top:bottom, left:right] = 127.5 * large.permute(1, 2, 0).numpy()
    return (photo.pixels + added * weights[..., None]).round().clip(0, 255).astype(np.uint8)


def _seen(photo: Photo, region: str, network: RegionNetwork | None, places: Tensor) -> np.ndarray:
    """Which places lie in a named region, which is found in the photograph and not in the model's image of it."""
    sides = photo.frame.sides
    scale = min(1.0, SEARCHED / max(sides))
    size = max(1, round(scale * sides[0])), max(1, round(scale * sides[1]))
    mask = make_mask(region, size, image=cut_out(photo.pixels, photo.frame, size), network=network)
    return F.grid_sample(mask[None, None].float(), places, "nearest", align_corners=False)[0, 0].bool().numpy()


def _feathered(inside: np.ndarray, width: float) -> Weights:
    """The mask, blurred by boxes of about `width` pixels, and cut so that the outside stays 0."""
    radius = math.floor(width)
    # The mask is first shrunk by the reach of the blur, so that the weight at the border is 0, not one half.
    weights = _box_filter(torch.from_numpy(inside).float(), radius).numpy() if radius else inside.astype(np.float32)
    return (np.clip(2 * weights - 1, 0, 1) * inside).astype(np.float32)


def _box_filter(mask: Tensor, radius: int) -> Tensor:
    """Mean over squares of 2 radius + 1 pixels; pixels beyond the photograph count as those of its border."""
    padded = F.pad(mask[None, None], (radius,) * 4, mode="replicate")
    rows = F.avg_pool2d(padded, (2 * radius + 1, 1), stride=1)
    return F.avg_pool2d(rows, (1, 2 * radius + 1), stride=1)[0, 0]
