# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What all figures share: colours, sizes and letters, and how a figure becomes a file.

Every figure is a PNG, those of numbers a PDF and an SVG beside it too; bytes depend on nothing but what is drawn, and
they are written atomically.
"""

import io
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from hspace.output.tables import written
from hspace.system.files import write_bytes
from hspace.types import InputError

DPI = 200
INK, QUIET, BAND = "#1a1a1a", "#767676", "#ececec"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1a1a")
"""Okabe and Ito's colours, which colour-blind people tell apart."""
TITLE, LABEL, SMALL = 10.0, 8.0, 7.0
NOTE = "Description"
"""Key of the note among a PNG's texts; it is one of those that the PNG standard names."""
STRIP = "hspace-strip"
"""Key of the text in a strip's PNG that says where its tiles lie, so that a page can show them one at a time."""
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


@contextmanager
def drawing() -> Generator[None, None, None]:
    """The style of all figures; a letter that the font lacks becomes a box without a word."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def printed(value: float, form: str) -> str:
    """A number with its sign, and a minus as printers set it."""
    return written(value, form).replace("-", "\N{MINUS SIGN}")


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in pixels."""
    figure = Figure(dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    line = Text(text=text, size=size, weight=weight, figure=figure)
    return line.get_window_extent(canvas.get_renderer()).width


def save(
    figure: Figure, path: str | Path, *, vectors: bool = False, texts: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Writes a figure as PNG, and as PDF and SVG if asked, without the metadata that would change with the day.

    Args:
        figure: The figure.
        path: File to write, a `.png`.
        vectors: Whether a PDF and an SVG are written beside it.
        texts: Texts of the PNG, by key.

    Raises:
        InputError: If the path does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"a figure is written as PNG: its path must end in .png, got {path}")
    facts: dict[str, Any] = {".png": {"Software": None, **texts}}
    if vectors:
        facts |= {".pdf": {"CreationDate": None, "Creator": None, "Producer": None}, ".svg": {"Date": None}}
    for kind, metadata in facts.items():
        picture = io.BytesIO()
        figure.savefig(picture, format=kind[1:], dpi=DPI, metadata=metadata)
        write_bytes(path.with_suffix(kind), picture.getvalue())
    return path


def vector_copies(path: Path) -> list[Path]:
    """The PDF and the SVG beside a figure, where it has them."""
    return [copy for kind in VECTORS if (copy := path.with_suffix(kind)).is_file()]
