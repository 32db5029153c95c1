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
from hspace.system.files import sha256_file
from hspace.system.pictures import read_picture
from hspace.types import Images, InputError, RegionNetwork

FEATHER = 0.03
"""Width over which an edit fades out towards the border of a mask, in parts of the crop's shorter side."""

Weights = Float[np.ndarray, "rows columns"]
"""Share of an edit that each pixel of a photograph takes, in [0, 1]."""


@dataclass(frozen=True)
class Photo:
    """A photograph and the part of it that the model sees.

    Attributes:
        path: File of the photograph.
        sha256: Hash of the file's bytes.
        pixels: Whole photograph, upright, (height, width, 3) uint8.
        box: Part that the model sees: top, left, bottom, right in pixels.
        aligned: That part at the model's size, (1, 3, height, width) in [-1, 1].
    """

    path: Path
    sha256: str
    pixels: Pixels
    box: tuple[int, int, int, int]
    aligned: Images


def open_photo(path: str | Path, size: tuple[int, int]) -> Photo:
    """Reads a photograph and cuts the largest part of the model's proportions out of its middle.

    Args:
        path: Image file; see `read_picture` for transparency and orientation.
        size: Height and width of the model's images.

    Raises:
        InputError: If the file cannot be read as an image.
    """
    path = Path(path)
    pixels = np.array(read_picture(path, background="white"))
    top, left, bottom, right = box = central_box((pixels.shape[0], pixels.shape[1]), size)
    crop = Image.fromarray(pixels[top:bottom, left:right])
    resized = np.array(crop.resize((size[1], size[0]), Image.Resampling.LANCZOS))
    aligned = torch.from_numpy(resized).permute(2, 0, 1)[None] / 127.5 - 1
    return Photo(path, sha256_file(path), pixels, box, aligned)


def central_box(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest central part, (top, left, bottom, right), of `whole` (height, width) in the proportions of `size`."""
    scale = min(whole[0] / size[0], whole[1] / size[1])
    height, width = (max(1, min(round(scale * side), limit)) for side, limit in zip(size, whole, strict=True))
    top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
    return top, left, top + height, left + width


def weights_of(photo: Photo, region: str | Sequence[float] | None, network: RegionNetwork | None = None) -> Weights:
    """The share of an edit that each pixel of a photo takes: 1 in the mask, fading to 0 inside it near its border.

    Args:
        photo: Photograph.
        region: Rectangle `[top, left, bottom, right]` in fractions of the photograph, path of a PNG of its proportions,
            name of a region, or None for the whole part that the model sees.
        network: Network that finds a named region in the aligned part.

    Raises:
        InputError: If the region is not of one of these kinds, cannot be read or found, or is empty.
    """
    height, width = photo.pixels.shape[:2]
    top, left, bottom, right = photo.box
    inside = np.zeros((height, width), dtype=bool)
    if isinstance(region, str) and not region.lower().endswith(".png"):
        seen = make_mask(region, (bottom - top, right - left), image=photo.aligned, network=network)
        inside[top:bottom, left:right] = seen.numpy()
    else:
        inside[top:bottom, left:right] = True
        if region is not None:
            inside &= make_mask(region, (height, width)).numpy()
    if not inside.any():
        raise InputError(f"mask {region} holds nothing of the part that the model sees, rows {top} to {bottom}")
    return _feathered(inside, FEATHER * min(bottom - top, right - left))


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
    change = (edited.float().clamp(-1, 1) - original.float().clamp(-1, 1)).cpu().expand(1, 3, -1, -1)
    large = F.interpolate(change, size=(bottom - top, right - left), mode="bicubic", align_corners=False)[0]
    added = np.zeros(photo.pixels.shape, dtype=np.float32)
    added[top:bottom, left:right] = 127.5 * large.permute(1, 2, 0).numpy()
    return (photo.pixels + added * weights[..., None]).round().clip(0, 255).astype(np.uint8)


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
