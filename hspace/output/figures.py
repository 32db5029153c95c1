# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Figures of images: strips of edits, and grids."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional

from hspace.output.drawing import BAND, DPI, LABEL, NOTE, QUIET, SMALL, STRIP, TITLE, drawing, printed, save, text_width
from hspace.output.tables import written
from hspace.types import InputError

TILE = 192
"""Smallest side in pixels, to which images are enlarged by a whole factor."""
GAP, MARGIN = 10.0, 36.0
LABEL_WIDTH = 40
"""Most characters of a line of a row's label."""
Array = Tensor | np.ndarray


def strip_figure(
    images: Array,
    row_labels: Sequence[str],
    strengths: Sequence[float | str],
    title: str,
    path: str | Path,
    tile: int = TILE,
    note: str = "",
) -> Path:
    """Draws edits as rows and strengths as columns, with the unedited column marked.

    Args:
        images: Images, (rows, strengths, C, H, W) in [-1, 1], C 1 or 3; or of several samples side by side, (rows,
            samples, strengths, C, H, W).
        row_labels: Labels, one per row, such as "component 3: yaw"; lines after the first are drawn smaller.
        strengths: Strengths, one per column, in the directions' unit, or words, where those of the rows differ; 0 is
            the unedited one.
        title: Text above the strip.
        path: PNG to write.
        tile: Smallest side in pixels, to which images are enlarged by a whole factor.
        note: Text of the PNG's `Description`, such as that the images were edited.

    Raises:
        InputError: If labels and images do not agree or the images are not finite.
    """
    samples = images[:, None] if images.ndim == 5 else images
    tiles = _tiles(samples, ndim=6, size=tile)
    if (tiles.shape[0], tiles.shape[2]) != (len(row_labels), len(strengths)):
        raise InputError(
            f"images must be {len(row_labels)} rows of {len(strengths)}, got {(tiles.shape[0], tiles.shape[2])}"
        )
    groups, tiles = tiles.shape[1], tiles.reshape(len(tiles), -1, *tiles.shape[3:])
    labels = [_wrapped(label) for label in row_labels]
    with drawing():
        left = MARGIN + max(text_width(line, LABEL) for label in labels for line in label.split("\n")) + 2 * GAP
        title = _fitted(title, left + tiles.shape[1] * (tiles.shape[3] + GAP) - MARGIN)
        header = MARGIN + (title.count("\n") + 1) * _line(TITLE) + 2 * _line(LABEL)
        figure, corners = _page(tiles.shape[:2], tiles.shape[2:4], left, header, groups=groups)
        _text(figure, MARGIN, MARGIN, title, size=TITLE, weight="bold", va="top", linespacing=1.4)
        x, y = corners[0, 0]
        if not any(isinstance(each, str) for each in strengths):
            _text(figure, x - 2 * GAP, y - GAP, "strength", size=SMALL, color=QUIET, ha="right", va="bottom")
        for column, strength in enumerate([*strengths] * groups):
            _draw_strength(figure, corners[:, column], tiles.shape[2:4], strength)
        for row, label in enumerate(labels):
            _draw_row_label(figure, corners[row, 0], tiles.shape[2], label)
        _draw_tiles(figure, corners, tiles)
        texts = {STRIP: _places(corners, tiles.shape[2:4], labels, strengths)} | ({NOTE: note} if note else {})
        return save(figure, path, texts=texts)


def grid_figure(
    images: Array, columns: int, path: str | Path, titles: Sequence[str] | None = None, tile: int = TILE
) -> Path:
    """Draws images in reading order.

    Args:
        images: Images, (n, C, H, W) in [-1, 1], C 1 or 3.
        columns: Number of images per row, at least 1.
        path: PNG to write.
        titles: Short texts, one per image, drawn above it.
        tile: Smallest side in pixels, to which images are enlarged by a whole factor.

    Raises:
        InputError: If the number of columns or titles is wrong, or the images are not finite.

    Examples:
        >>> grid_figure(torch.rand(6, 3, 32, 32) * 2 - 1, columns=3, path="grid.png").name
        'grid.png'
    """
    tiles = _tiles(images, ndim=4, size=tile)
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    if titles is not None and len(titles) != len(tiles):
        raise InputError(f"titles must be {len(tiles)}, one per image, got {len(titles)}")
    rows = -(-len(tiles) // columns)
    above = _line(SMALL) + GAP if titles is not None else 0.0
    with drawing():
        figure, corners = _page((rows, min(columns, len(tiles))), tiles.shape[1:3], MARGIN, MARGIN, above)
        corners = corners.reshape(-1, 2)[: len(tiles)]
        for (x, y), text in zip(corners, titles or [], strict=False):
            _text(figure, x + tiles.shape[2] / 2, y - GAP, text, size=SMALL, ha="center", va="bottom")
        _draw_tiles(figure, corners, tiles)
        return save(figure, path)


def _tiles(images: Array, ndim: int, size: int = TILE) -> np.ndarray:
    """Images as RGB uint8 (..., H, W, 3), bicubically enlarged by a whole factor to at least `size` pixels a side."""
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    tensor = tensor.detach().float().cpu()
    if tensor.ndim != ndim or tensor.shape[-3] not in (1, 3) or 0 in tensor.shape:
        raise InputError(f"images must have {ndim} axes with 1 or 3 channels, got {tuple(tensor.shape)}")
    if not bool(tensor.isfinite().all()):
        raise InputError("images must be finite, got nan or inf")
    factor = -(-size // min(tensor.shape[-2:]))
    large = functional.interpolate(tensor.clamp(-1, 1).flatten(0, -4), scale_factor=factor, mode="bicubic")
    pixels = ((large.clamp(-1, 1) + 1) * 127.5).round().byte().expand(-1, 3, -1, -1).movedim(1, -1)
    return pixels.unflatten(0, tensor.shape[:-3]).numpy()


def _page(
    grid: tuple[int, ...], tile: tuple[int, ...], left: float, top: float, above: float = 0.0, groups: int = 1
) -> tuple[Figure, np.ndarray]:
    """A figure for a grid of tiles, and each tile's top left corner (rows, columns, 2) as x, y from the top left.

    The columns are those of one or more groups, which stand apart.
    """
    (rows, columns), (height, width) = grid, tile
    corners = np.empty((rows, columns, 2))
    apart = np.arange(columns) // (columns // groups) * MARGIN
    corners[..., 0] = round(left) + np.arange(columns) * (width + GAP) + apart
    corners[..., 1] = round(top + above) + np.arange(rows)[:, None] * (height + GAP + round(above))
    size = corners[-1, -1] + [width + MARGIN, height + MARGIN]
    figure = Figure(figsize=tuple(size / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure, corners


def _draw_tiles(figure: Figure, corners: np.ndarray, tiles: np.ndarray) -> None:
    """Pixel for pixel, at whole-pixel places."""
    height = round(figure.get_figheight() * DPI)
    for (x, y), tile in zip(corners.reshape(-1, 2), tiles.reshape(-1, *tiles.shape[-3:]), strict=True):
        figure.figimage(tile, xo=int(x), yo=int(height - y - len(tile)), zorder=3)


def _places(corners: np.ndarray, tile: tuple[int, ...], labels: Sequence[str], strengths: Sequence[float | str]) -> str:
    """Where the tiles lie, as JSON: size of a tile, labels of the rows, words of the columns, x by sample, and y."""
    columns = [
        "unedited" if each == 0 else each if isinstance(each, str) else written(each, "+g") for each in strengths
    ]
    x = corners[0, :, 0].astype(int).reshape(-1, len(columns)).tolist()
    facts = {"tile": tile[::-1], "rows": labels, "columns": columns, "x": x, "y": corners[:, 0, 1].astype(int).tolist()}
    return json.dumps(facts)


def _draw_strength(figure: Figure, corners: np.ndarray, tile: tuple[int, ...], strength: float | str) -> None:
    """The strength above a column; behind the unedited column, a band."""
    x, y = corners[0]
    unedited = strength == 0
    if unedited:
        _band(figure, x - GAP, y - 2 * GAP - _line(LABEL), tile[1] + 2 * GAP, corners[-1, 1] + tile[0] + GAP)
    text = "unedited" if unedited else strength if isinstance(strength, str) else printed(strength, "+.4g")
    weight = "bold" if unedited else "normal"
    _text(figure, x + tile[1] / 2, y - GAP, text, size=LABEL, weight=weight, ha="center", va="bottom")


def _draw_row_label(figure: Figure, corner: np.ndarray, height: int, label: str) -> None:
    """First line in ink, the rest smaller and grey, centred on the row as one block."""
    first, *rest = label.split("\n")
    x, y = corner[0] - 2 * GAP, corner[1] + height / 2 - len(rest) * _line(SMALL) / 2
    _text(figure, x, y, first, size=LABEL, ha="right", va="center")
    for i, line in enumerate(rest, start=1):
        _text(figure, x, y + i * _line(SMALL), line, size=SMALL, color=QUIET, ha="right", va="center")


def _band(figure: Figure, x: float, top: float, width: float, bottom: float) -> None:
    total_width, total_height = figure.get_size_inches() * DPI
    figure.add_artist(
        Rectangle(
            (x / total_width, 1 - bottom / total_height), width / total_width, (bottom - top) / total_height,
            color=BAND, linewidth=0, zorder=0, transform=figure.transFigure,
        )
    )  # fmt: skip


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text at x, y pixels from the top left."""
    width, height = figure.get_size_inches() * DPI
    figure.text(x / width, 1 - y / height, text, **style)


def _line(size: float) -> float:
    """Height of a line of text in pixels."""
    return 1.4 * size * DPI / 72


def _wrapped(label: str) -> str:
    return "\n".join(part for line in label.split("\n") for part in textwrap.wrap(line, LABEL_WIDTH) or [""])


def _fitted(title: str, width: float) -> str:
    """The title in lines of at most about `width` pixels."""
    per_character = text_width(title, TITLE, "bold") / max(len(title), 1)
    return textwrap.fill(title, max(int(width / max(per_character, 1)), 10))
