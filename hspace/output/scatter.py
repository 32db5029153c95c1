# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Panels of named points with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hspace.metrics.interval import Interval
from hspace.output.drawing import DPI, INK, LABEL, PALETTE, QUIET, SMALL, drawing, save, text_width
from hspace.types import InputError

HEIGHT = 4.2
"""Of a panel, in inches."""
LINE = 0.14
"""Least distance of two names, in inches."""


@dataclass(frozen=True)
class Point:
    """One point.

    Attributes:
        name: Name beside the panel.
        x: Value across, with its interval.
        y: Value upwards, with its interval.
        quiet: Whether it is drawn in grey, as one that is not compared with the others.
    """

    name: str
    x: Interval
    y: Interval
    quiet: bool = False


def scatter_figure(panels: Mapping[str, Sequence[Point]], path: str | Path, *, x_label: str, y_label: str) -> Path:
    """Draws points with crosses as long as their intervals; every name stands at the right, in the order of y.

    Args:
        panels: Points by the title of their panel.
        path: PNG to write.
        x_label: Name of x, with its unit.
        y_label: Name of y, with its unit.

    Raises:
        InputError: If there is no point.
    """
    names = [point.name for points in panels.values() for point in points]
    if not names:
        raise InputError("a figure of points needs at least one, got none")
    with drawing():
        room = max(text_width(name, SMALL) for name in names) / DPI + 0.35
        figure = Figure(figsize=(len(panels) * (2.9 + room) + 0.4, HEIGHT), dpi=DPI, layout="constrained")
        found = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, points) in zip(found, panels.items(), strict=True):
            axes.set_title(title, size=LABEL, loc="left")
            axes.set_xlabel(x_label)
            axes.tick_params(labelsize=SMALL, length=2.5)
            for point in points:
                _draw_point(axes, point, QUIET if point.quiet else PALETTE[0])
        found[0].set_ylabel(y_label)
        # Names are placed when the scale is settled.
        for axes, points in zip(found, panels.values(), strict=True):
            _draw_names(axes, points)
        return save(figure, path, vectors=True)


def _draw_point(axes: Axes, point: Point, color: str) -> None:
    x, y = point.x, point.y
    strength = 0.35 if point.quiet else 0.8
    axes.plot([x.low, x.high], [y.value, y.value], color=color, linewidth=0.9, alpha=strength)
    axes.plot([x.value, x.value], [y.low, y.high], color=color, linewidth=0.9, alpha=strength)
    axes.plot([x.value], [y.value], "o", color=color, markersize=3.5, alpha=1.0 if not point.quiet else 0.6)


def _draw_names(axes: Axes, points: Sequence[Point]) -> None:
    """Each name at the right of the panel, with a thin line to its point."""
    low, high = axes.get_ylim()
    shown = sorted((point for point in points if np.isfinite([point.x.value, point.y.value]).all()),
                   key=lambda point: point.y.value)  # fmt: skip
    wanted = [(point.y.value - low) / (high - low) for point in shown]
    for point, place in zip(shown, apart(wanted, LINE / (0.8 * HEIGHT)), strict=True):
        axes.annotate(
            point.name, (point.x.value, point.y.value), (1.04, place), textcoords="axes fraction", size=SMALL,
            color=QUIET if point.quiet else INK, va="center",
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.35, "alpha": 0.6, "shrinkA": 1, "shrinkB": 2,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def apart(places: Sequence[float], least: float) -> list[float]:
    """Places near to wanted ones, in the same order, that keep a distance and stay in [0, 1] if there is room.

    Args:
        places: Wanted places, ascending.
        least: Least distance.

    Examples:
        >>> [round(place, 2) for place in apart([0.2, 0.21, 1.0, 1.0], 0.1)]
        [0.16, 0.26, 0.9, 1.0]
    """
    groups: list[tuple[float, int]] = []  # wanted middle, and number of places

    def kept(middle: float, count: int) -> float:
        half = least * (count - 1) / 2
        return min(max(middle, half), max(1 - half, half))

    for place in places:
        middle, count = place, 1
        while groups and kept(middle, count) - kept(*groups[-1]) < least * (count + groups[-1][1]) / 2:
            other, size = groups.pop()
            middle, count = (middle * count + other * size) / (count + size), count + size
        groups.append((middle, count))
    return [kept(*group) + least * (i - (group[1] - 1) / 2) for group in groups for i in range(group[1])]
