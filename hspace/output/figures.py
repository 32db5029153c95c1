# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Figures from images and saved records: strips of edits, effects, grids, dose-response curves.

Every figure is a PNG, those of numbers a PDF and an SVG beside it too; bytes depend on nothing but what is drawn, and
they are written atomically.
"""

import io
import textwrap
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from torch import Tensor
from torch.nn import functional

from hspace.metrics.effect import EffectMatrix
from hspace.system.files import write_bytes
from hspace.types import InputError

DPI = 200
TILE = 192
"""Smallest side in pixels, to which images are enlarged by a whole factor."""
GAP, MARGIN = 10.0, 36.0
INK, QUIET, BAND = "#1a1a1a", "#767676", "#ececec"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1a1a")
"""Okabe and Ito's colours, which colour-blind people tell apart."""
TITLE, LABEL, SMALL = 10.0, 8.0, 7.0
VECTORS = (".pdf", ".svg")
"""What figures of numbers are written as too; strips and grids are pixels."""
STYLE: dict[Any, Any] = {
    # Names of an SVG's parts would be drawn at random.
    "svg.hashsalt": "hspace",
    "font.family": "DejaVu Sans",
    "font.size": LABEL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",
    # Names are data: a dollar sign in one begins no formula.
    "text.parse_math": False,
}

Array = Tensor | np.ndarray


def strip_figure(
    images: Array, row_labels: Sequence[str], strengths: Sequence[float], title: str, path: str | Path
) -> Path:
    """Draws edits as rows and strengths as columns, with the unedited column marked.

    Args:
        images: Images, (rows, strengths, C, H, W) in [-1, 1], C 1 or 3.
        row_labels: Labels, one per row, such as "component 3: yaw"; lines after the first are drawn smaller.
        strengths: Strengths, one per column, in the directions' unit.
        title: Text above the strip.
        path: PNG to write.

    Raises:
        InputError: If labels and images do not agree or the images are not finite.
    """
    tiles = _tiles(images, ndim=5)
    if tiles.shape[:2] != (len(row_labels), len(strengths)):
        raise InputError(f"images must be {len(row_labels)} rows of {len(strengths)}, got {tiles.shape[:2]}")
    labels = [_wrapped(label) for label in row_labels]
    with _drawing():
        left = MARGIN + max(_width(line, LABEL) for label in labels for line in label.split("\n")) + 2 * GAP
        title = _fitted(title, left + len(strengths) * (tiles.shape[3] + GAP) - MARGIN)
        header = MARGIN + (title.count("\n") + 1) * _line(TITLE) + 2 * _line(LABEL)
        figure, corners = _page(tiles.shape[:2], tiles.shape[2:4], left, header)
        _text(figure, MARGIN, MARGIN, title, size=TITLE, weight="bold", va="top", linespacing=1.4)
        x, y = corners[0, 0]
        _text(figure, x - 2 * GAP, y - GAP, "strength", size=SMALL, color=QUIET, ha="right", va="bottom")
        for column, strength in enumerate(strengths):
            _draw_strength(figure, corners[:, column], tiles.shape[2:4], strength)
        for row, label in enumerate(labels):
            _draw_row_label(figure, corners[row, 0], tiles.shape[2], label)
        _draw_tiles(figure, corners, tiles)
        return _save(figure, path)


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

    Example:
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
    with _drawing():
        figure, corners = _page((rows, min(columns, len(tiles))), tiles.shape[1:3], MARGIN, MARGIN, above)
        corners = corners.reshape(-1, 2)[: len(tiles)]
        for (x, y), text in zip(corners, titles or [], strict=False):
            _text(figure, x + tiles.shape[2] / 2, y - GAP, text, size=SMALL, ha="center", va="bottom")
        _draw_tiles(figure, corners, tiles)
        return _save(figure, path)


def effect_heatmap(matrix: EffectMatrix, path: str | Path, limit: float | None = None) -> Path:
    """Draws effects of edits (rows) on attributes (columns); numbers whose interval holds zero are grey.

    Args:
        matrix: Effects in standard deviations of the unedited samples; nan cells are left empty.
        path: PNG to write.
        limit: Effect at which the colour is full; None takes the largest. Heat maps that are compared share one, such
            as `color_limit` of all of them.
    """
    rows, columns = matrix.effect.shape
    limit = color_limit(matrix) if limit is None else limit
    with _drawing():
        width = max(_width(edit, LABEL) for edit in matrix.edits) / DPI
        height = max(_width(attribute, LABEL) for attribute in matrix.attributes) / DPI
        figure = Figure(
            figsize=(width + 0.5 * columns + 1.3, height + 0.34 * rows + 0.8), dpi=DPI, layout="constrained"
        )
        axes = figure.add_subplot()
        picture = axes.imshow(matrix.effect, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        axes.set_xticks(range(columns), matrix.attributes, rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(rows), matrix.edits)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
        axes.spines[:].set_visible(False)
        _draw_cell_borders(axes, rows, columns)
        _draw_cell_numbers(axes, matrix, limit)
        bar = figure.colorbar(picture, ax=axes, aspect=18, shrink=0.9, pad=0.02)
        bar.set_label("effect (sd)", size=SMALL)
        bar.ax.tick_params(labelsize=SMALL, length=2)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        note = "sd of the unedited samples\ngrey: the 95% interval holds zero"
        axes.set_xlabel(note, size=SMALL, color=QUIET, labelpad=6)
        return _save(figure, path, vectors=True)


def color_limit(*matrices: EffectMatrix) -> float:
    """The largest effect of several matrices, at least .5 sd."""
    return max(0.5, *(float(np.nanmax(np.abs(matrix.effect), initial=0.0)) for matrix in matrices))


def curve_figure(
    curves: Mapping[str, Sequence[Sequence[float]]],
    path: str | Path,
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log_x: bool = False,
) -> Path:
    """Draws dose-response curves with their intervals.

    Args:
        curves: Curves by label: x, mean, low and high, four sequences of one length; or x and mean alone.
        path: PNG to write.
        x_label: Name of x, with its unit.
        y_label: Name of y, with its unit.
        title: Text above the curves.
        log_x: Whether x is drawn in orders of magnitude, with a label at each value.

    Raises:
        InputError: If there is no curve, or one is not two or four sequences of one length.
    """
    if not curves:
        raise InputError("a curve figure needs at least one curve, got none")
    with _drawing():
        figure = Figure(figsize=(4.4, 3.0), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=BAND, linewidth=0.8, zorder=0)
        for i, (label, curve) in enumerate(curves.items()):
            _draw_curve(axes, label, curve, PALETTE[i % len(PALETTE)], solid=i < len(PALETTE))
        if log_x:
            ticks = sorted({x for curve in curves.values() for x in curve[0]})
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title, size=TITLE, weight="bold", loc="left")
        axes.tick_params(labelsize=SMALL, length=2.5)
        if len(curves) > 1:
            figure.legend(frameon=False, fontsize=SMALL, loc="outside right upper")
        return _save(figure, path, vectors=True)


@contextmanager
def _drawing() -> Generator[None, None, None]:
    """The style of all figures; a letter that the font lacks becomes a box without a word."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _draw_curve(axes: Axes, label: str, curve: Sequence[Sequence[float]], color: str, solid: bool) -> None:
    if len(curve) not in (2, 4) or len({len(values) for values in curve}) != 1:
        raise InputError(f"curve {label!r} must be x, mean, low and high of one length, or x and mean")
    x, mean, *limits = (np.asarray(values, dtype=np.float64) for values in curve)
    if limits:
        axes.fill_between(x, limits[0], limits[1], color=color, alpha=0.15, linewidth=0)
    axes.plot(x, mean, "o-" if solid else "o--", color=color, linewidth=1.4, markersize=3, label=label)


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
    grid: tuple[int, ...], tile: tuple[int, ...], left: float, top: float, above: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """A figure for a grid of tiles, and each tile's top left corner (rows, columns, 2) as x, y from the top left."""
    (rows, columns), (height, width) = grid, tile
    corners = np.empty((rows, columns, 2))
    corners[..., 0] = round(left) + np.arange(columns) * (width + GAP)
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


def _draw_strength(figure: Figure, corners: np.ndarray, tile: tuple[int, ...], strength: float) -> None:
    """The strength above a column; behind the unedited column, a band."""
    x, y = corners[0]
    unedited = strength == 0
    if unedited:
        _band(figure, x - GAP, y - 2 * GAP - _line(LABEL), tile[1] + 2 * GAP, corners[-1, 1] + tile[0] + GAP)
    text = "unedited" if unedited else _signed(strength, "+g")
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


def _draw_cell_borders(axes: Axes, rows: int, columns: int) -> None:
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0, top=False, left=False)


def _draw_cell_numbers(axes: Axes, matrix: EffectMatrix, limit: float) -> None:
    holds_zero = (matrix.low <= 0) & (matrix.high >= 0)
    for (row, column), effect in np.ndenumerate(matrix.effect):
        if np.isnan(effect):
            continue
        color = QUIET if holds_zero[row, column] else "white" if abs(effect) > 0.6 * limit else INK
        axes.text(column, row, _signed(effect, "+.2f"), size=SMALL, color=color, ha="center", va="center")


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text at x, y pixels from the top left."""
    width, height = figure.get_size_inches() * DPI
    figure.text(x / width, 1 - y / height, text, **style)


def _signed(value: float, form: str) -> str:
    # Adding zero turns what was rounded to minus zero into zero.
    return format(float(format(value, form)) + 0.0, form).replace("-", "\N{MINUS SIGN}")


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in pixels."""
    figure = Figure(dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    line = Text(text=text, size=size, weight=weight, figure=figure)
    return line.get_window_extent(canvas.get_renderer()).width


def _line(size: float) -> float:
    """Height of a line of text in pixels."""
    return 1.4 * size * DPI / 72


def _wrapped(label: str) -> str:
    return "\n".join(part for line in label.split("\n") for part in textwrap.wrap(line, 32) or [""])


def _fitted(title: str, width: float) -> str:
    """The title in lines of at most about `width` pixels."""
    per_character = _width(title, TITLE, "bold") / max(len(title), 1)
    return textwrap.fill(title, max(int(width / max(per_character, 1)), 10))


def vector_copies(path: Path) -> list[Path]:
    """The PDF and the SVG beside a figure, where it has them."""
    return [copy for kind in VECTORS if (copy := path.with_suffix(kind)).is_file()]


def _save(figure: Figure, path: str | Path, *, vectors: bool = False) -> Path:
    """The figure as PNG, and as PDF and SVG where asked to, without the metadata that would change with the day."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"a figure is written as PNG: its path must end in .png, got {path}")
    facts: dict[str, Any] = {".png": {"Software": None}}
    if vectors:
        facts |= {".pdf": {"CreationDate": None, "Creator": None, "Producer": None}, ".svg": {"Date": None}}
    for kind, metadata in facts.items():
        picture = io.BytesIO()
        figure.savefig(picture, format=kind[1:], dpi=DPI, metadata=metadata)
        write_bytes(path.with_suffix(kind), picture.getvalue())
    return path
