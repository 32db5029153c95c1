"""Painting in layers: what a layer is, the canvas it is painted with, and the picture that layers give.

Coordinates run over [-1, 1], x right and y down. Factors are (n, 1, 1) there, so that everything is (n, height, width).
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.worlds.attributes import Factors
from hspace.worlds.sdf import coverage, pixel_grid

Drawn = TypeVar("Drawn", bound="Canvas")
Window = tuple[slice, slice]
SUPERSAMPLING = 2
CHUNK, GPU_CHUNK = 8, 256
"""Pictures painted at a time: on a CPU their layers fit its cache."""


@dataclass(frozen=True)
class Layer:
    """One coat of paint.

    Attributes:
        coverage: (n, height, width) of the window, in [0, 1].
        color: (n, 3) or (n, 3, height, width), in [0, 1].
        region: The region that it belongs to, "other" for what merely hides one, None for shading that leaves the
            region under it as it is.
        window: Rows and columns of the image that it covers.
    """

    coverage: Tensor
    color: Tensor
    region: str | None
    window: Window


class Canvas:
    """Coordinates and factors of one batch of pictures at one resolution, or of a window of them.

    Attributes:
        maps: Names of the (n, height, width) attributes that a window cuts.
    """

    maps: tuple[str, ...] = ("x", "y")

    def __init__(self, factors: Factors, size: int) -> None:
        self.size: int = size
        self.x: Tensor
        self.y: Tensor
        self.x, self.y = pixel_grid(size)
        self.window: Window = (slice(0, size), slice(0, size))
        self.f: Factors = {name: value[:, None, None] for name, value in factors.items()}

    def crop(self: Drawn, left: float, right: float, top: float, bottom: float) -> Drawn:
        """The same pictures within a window of the whole image, for what lies in a small part of it."""
        low, high = ((max(edge, -1.0) + 1) / 2 * self.size for edge in (left, top)), (right, bottom)
        starts = [int(edge) for edge in low]
        stops = [math.ceil((min(edge, 1.0) + 1) / 2 * self.size) for edge in high]
        part = copy.copy(self)
        columns, rows = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
        part.window = (rows, columns)
        for name in self.maps:
            setattr(part, name, getattr(self, name)[:, rows, columns])
        return part

    def halved(self: Drawn) -> Drawn:
        """The same pictures at half the resolution; only their coordinates."""
        part = copy.copy(self)
        part.x, part.y = pixel_grid(self.size // 2)
        part.size = self.size // 2
        return part

    def paint(
        self, distance: Tensor, color: Tensor, region: str | None, opacity: Tensor | float = 1.0, softness: float = 0.0
    ) -> Layer:
        """A layer that fills a shape."""
        return Layer(coverage(distance, self.size, softness) * opacity, color, region, self.window)

    def tint(self, amount: Tensor, color: Tensor) -> Layer:
        """A layer of light or shade that belongs to no region."""
        return Layer(amount, color, None, self.window)


def palette(colors: tuple[tuple[float, ...], ...], position: Tensor) -> Tensor:
    """Linear interpolation along a list of colours: (n,) in [0, 1] to (n, 3)."""
    table = torch.tensor(colors)
    scaled = position * (len(colors) - 1)
    index = scaled.long().clamp(max=len(colors) - 2)
    return torch.lerp(table[index], table[index + 1], (scaled - index)[:, None])


def color(rgb: tuple[float, ...]) -> Tensor:
    """A constant colour, (1, 3)."""
    return torch.tensor([rgb])


Painting = Callable[[Factors, int], Iterable[Layer]]
"""Gives the layers of a batch at a resolution, from the background to the front."""


def picture(factors: Factors, size: int, painting: Painting, *, chunk: int = CHUNK) -> Tensor:
    """Paints, anti-aliased, on the device of the factors.

    Args:
        factors: Each (n,).
        size: Height and width in pixels; any.
        painting: Gives the layers.
        chunk: Pictures painted at a time on a CPU.

    Returns:
        (n, 3, size, size) float32 in [-1, 1].
    """
    with _on(_device(factors)):
        return torch.cat([_picture(part, size, painting) for part in _chunks(factors, chunk)])


def region_shares(
    factors: Factors, size: int, painting: Painting, regions: tuple[str, ...], *, chunk: int = CHUNK
) -> Tensor:
    """Share of each pixel that a region has, (n, regions, size, size); arguments as of `picture`."""
    with _on(_device(factors)):
        return torch.cat([_region_shares(part, size, painting, regions) for part in _chunks(factors, chunk)])


def _device(factors: Factors) -> torch.device:
    return next(iter(factors.values())).device


def _on(device: torch.device) -> AbstractContextManager[object]:
    """New tensors are made on the device; the CPU needs no help, which would slow every operation down."""
    return nullcontext() if device.type == "cpu" else device


def _chunks(factors: Factors, chunk: int) -> Iterator[Factors]:
    step = chunk if _device(factors).type == "cpu" else GPU_CHUNK
    for start in range(0, _count(factors), step):
        yield {name: value[start : start + step] for name, value in factors.items()}


def _count(factors: Factors) -> int:
    return len(next(iter(factors.values())))


def _picture(factors: Factors, size: int, painting: Painting) -> Tensor:
    canvas = torch.zeros(_count(factors), 3, size * SUPERSAMPLING, size * SUPERSAMPLING)
    for layer in painting(factors, size * SUPERSAMPLING):
        color = layer.color if layer.color.ndim == 4 else layer.color[:, :, None, None]
        part = canvas[(..., *layer.window)]
        part.lerp_(color.expand_as(part), layer.coverage[:, None])
    return F.avg_pool2d(canvas, SUPERSAMPLING).clamp(0, 1) * 2 - 1


def _region_shares(factors: Factors, size: int, painting: Painting, regions: tuple[str, ...]) -> Tensor:
    canvas = torch.zeros(_count(factors), len(regions), size * SUPERSAMPLING, size * SUPERSAMPLING)
    for layer in painting(factors, size * SUPERSAMPLING):
        if layer.region is not None:
            part = canvas[(..., *layer.window)]
            part.mul_(1 - layer.coverage[:, None])
            if layer.region in regions:
                part[:, regions.index(layer.region)] += layer.coverage
    return F.avg_pool2d(canvas, SUPERSAMPLING)
