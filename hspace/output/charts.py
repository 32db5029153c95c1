# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Figures of numbers: heat maps of effects, maps of the image's plane, and curves."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hspace.metrics.effect import EffectMatrix
from hspace.output.drawing import (
    BAND,
    DPI,
    INK,
    LABEL,
    PALETTE,
    QUIET,
    SMALL,
    TITLE,
    drawing,
    printed,
    save,
    text_width,
)
from hspace.output.figures import Array
from hspace.types import InputError

LINES = ("o-", "o--", "s:", "^-.")
"""Marks and lines of curves, each for as many as there are colours."""
MAPS_PER_ROW = 4


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
    with drawing():
        width = max(text_width(edit, LABEL) for edit in matrix.edits) / DPI
        height = max(text_width(attribute, LABEL) for attribute in matrix.attributes) / DPI
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
        return save(figure, path, vectors=True)


def color_limit(*matrices: EffectMatrix) -> float:
    """The largest effect of several matrices, at least .5 sd."""
    return max(0.5, *(float(np.nanmax(np.abs(matrix.effect), initial=0.0)) for matrix in matrices))


def map_figure(
    maps: Array, labels: Sequence[str], path: str | Path, *, unit: str, outline: Array | None = None
) -> Path:
    """Draws maps of the image's plane in rows of four, in one scale of colours from 0 on.

    Args:
        maps: Numbers >= 0, (maps, rows, columns).
        labels: Text above each map.
        path: PNG to write.
        unit: Meaning of the numbers.
        outline: Region whose border is drawn on each map, bool (height, width), of a resolution of its own.
    """
    maps = np.asarray(maps)
    rows, columns = math.ceil(len(maps) / MAPS_PER_ROW), min(len(maps), MAPS_PER_ROW)
    with drawing():
        figure = Figure(figsize=(1.7 * columns + 0.8, 1.9 * rows + 0.3), dpi=DPI, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        drawn = panels[: len(maps)]
        pictures = [
            axes.imshow(each, cmap="viridis", vmin=0, vmax=maps.max(), extent=(0, 1, 1, 0))
            for axes, each in zip(drawn, maps, strict=True)
        ]
        for axes, label in zip(drawn, labels, strict=True):
            axes.set_title(label, size=SMALL)
            if outline is not None:
                _draw_outline(axes, np.asarray(outline))
        for axes in panels:
            axes.set_axis_off()
        bar = figure.colorbar(pictures[0], ax=list(panels), aspect=18, shrink=0.9, pad=0.02)
        bar.set_label(unit, size=SMALL)
        bar.ax.tick_params(labelsize=SMALL, length=2)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        return save(figure, path, vectors=True)


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
    with drawing():
        figure = Figure(figsize=(4.4, 3.0), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=BAND, linewidth=0.8, zorder=0)
        for i, (label, curve) in enumerate(curves.items()):
            _draw_curve(axes, label, curve, i)
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
        return save(figure, path, vectors=True)


def curve_grid(
    grid: Mapping[str, Mapping[str, Mapping[str, Sequence[Sequence[float]]]]],
    path: str | Path,
    *,
    x_label: str,
    whole: bool = True,
) -> Path:
    """Draws curves in rows of panels of one y axis each, with a legend for all.

    Args:
        grid: Curves by label, as in `curve_figure`, by the title of their column, by the name of y with its unit.
        path: PNG to write.
        x_label: Name of x, with its unit.
        whole: Whether x is labelled at whole numbers only.

    Raises:
        InputError: If there is no panel, or a curve is not two or four sequences of one length.
    """
    titles = list(dict.fromkeys(title for row in grid.values() for title in row))
    if not titles:
        raise InputError("a grid of curves needs at least one panel, got none")
    labels = list(dict.fromkeys(label for row in grid.values() for curves in row.values() for label in curves))
    with drawing():
        figure = Figure(figsize=(1.9 * len(titles) + 1.6, 1.6 * len(grid) + 0.5), dpi=DPI, layout="constrained")
        panels = figure.subplots(len(grid), len(titles), sharex=True, sharey="row", squeeze=False)
        for row, (y_label, columns) in zip(panels, grid.items(), strict=True):
            row[0].set_ylabel(y_label)
            for axes, title in zip(row, titles, strict=True):
                _draw_panel(axes, columns.get(title, {}), labels, whole)
        for axes, title in zip(panels[0], titles, strict=True):
            axes.set_title(title, size=LABEL, loc="left")
        for axes in panels[-1]:
            axes.set_xlabel(x_label)
        found = (axes.get_legend_handles_labels() for axes in panels.flat)
        lines = {label: line for handles, names in found for line, label in zip(handles, names, strict=True)}
        figure.legend(
            [lines[label] for label in labels], labels, frameon=False, fontsize=SMALL, loc="outside lower left",
            ncols=len(titles),
        )  # fmt: skip
        return save(figure, path, vectors=True)


def _draw_panel(
    axes: Axes, curves: Mapping[str, Sequence[Sequence[float]]], labels: Sequence[str], whole: bool
) -> None:
    axes.axhline(0, color=BAND, linewidth=0.8, zorder=0)
    for label, curve in curves.items():
        _draw_curve(axes, label, curve, labels.index(label))
    axes.tick_params(labelsize=SMALL, length=2.5)
    axes.xaxis.set_major_locator(MaxNLocator("auto" if whole else 4, integer=whole))


def _draw_curve(axes: Axes, label: str, curve: Sequence[Sequence[float]], i: int) -> None:
    """Draws the curve number i, whose colour and line tell it from the others."""
    if len(curve) not in (2, 4) or len({len(values) for values in curve}) != 1:
        raise InputError(f"curve {label!r} must be x, mean, low and high of one length, or x and mean")
    color, line = PALETTE[i % len(PALETTE)], LINES[i // len(PALETTE) % len(LINES)]
    x, mean, *limits = (np.asarray(values, dtype=np.float64) for values in curve)
    if limits:
        axes.fill_between(x, limits[0], limits[1], color=color, alpha=0.15, linewidth=0)
    axes.plot(x, mean, line, color=color, linewidth=1.4, markersize=3, label=label)


def _draw_outline(axes: Axes, region: np.ndarray) -> None:
    """The border of a region, between its pixels and the others."""
    height, width = region.shape
    rows, columns = (np.arange(-0.5, length + 1) / length for length in (height, width))
    axes.contour(columns, rows, np.pad(region, 1), levels=[0.5], colors="white", linewidths=1.0)
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)


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
        axes.text(column, row, printed(effect, "+.2f"), size=SMALL, color=color, ha="center", va="center")
