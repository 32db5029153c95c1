"""Tables as CSV, with every digit, and as Markdown, for people."""

import csv
import html
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hspace.metrics.interval import Interval
from hspace.system.files import write_text
from hspace.types import InputError

Cell = str | int | float | Interval | None
NOTHING = 1e-6
"""What is smaller is rounding: no measured quantity of ours reaches it."""


@dataclass(frozen=True)
class Table:
    """A caption and rows under named columns.

    Attributes:
        columns: Names, each once.
        rows: One cell per column; None where there is nothing to say.
        caption: One sentence.

    Example:
        >>> Table(("edit", "yaw"), (("component 3", Interval(0.42, 0.31, 0.53)),), "Effects.").columns
        ('edit', 'yaw')
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str

    def __post_init__(self) -> None:
        """Raises InputError if a row has not one cell per column, or two columns share a name."""
        if len(set(self.columns)) != len(self.columns):
            raise InputError(f"columns must differ, got {', '.join(self.columns)}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"a row must have {len(self.columns)} cells, got {len(row)}")


def write_csv(table: Table, path: str | Path) -> Path:
    """Write the table as CSV: full precision; an interval becomes three columns, `x`, `x_low` and `x_high`.

    Text that a spreadsheet would compute gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    wide = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    names = [name for column, w in zip(table.columns, wide, strict=True) for name in _csv_names(column, w)]
    writer.writerow(map(_no_formula, names))
    for row in table.rows:
        writer.writerow([field for cell, w in zip(row, wide, strict=True) for field in _csv_fields(cell, w)])
    write_text(path, text.getvalue())
    return Path(path)


def write_markdown(table: Table, path: str | Path) -> Path:
    """Write the table as Markdown: three significant digits, intervals as `.42 [.31, .53]`."""
    write_text(path, to_markdown(table))
    return Path(path)


def to_markdown(table: Table) -> str:
    """The table as Markdown; columns of numbers are right-aligned."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    align = [":--" if any(isinstance(cell, str) for cell in column) else "--:" for column in columns]
    lines = [_line(map(escape_markdown, table.columns)), _line(align)]
    lines += [_line(_markdown_cell(cell) for cell in row) for row in table.rows]
    return "\n".join([*lines, "", escape_markdown(table.caption), ""])


def escape_markdown(text: str) -> str:
    """Text on one line that Markdown shows as it is: no HTML, no link, no emphasis, no border of a table.

    An underscore inside a word is left alone, as Markdown leaves it.
    """
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)


def read_markdown(text: str) -> str:
    """Inverse of `escape_markdown`."""
    return html.unescape(re.sub(r"\\([\\`*\[\]|~_])", r"\1", text))


def format_number(value: float | int) -> str:
    """Three significant digits without a leading zero: .42, -1.5, 12.3; whole numbers in full; nan as n/a.

    Sizes under NOTHING are 0.
    """
    if math.isnan(value):
        return "n/a"
    if abs(value) < NOTHING:
        return "0"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _markdown_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return escape_markdown(cell)
    if isinstance(cell, Interval):
        value, low, high = map(format_number, cell)
        return value if value == "n/a" else f"{value} [{low}, {high}]"
    return format_number(cell)


def _line(cells: Iterator[str] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _csv_names(column: str, wide: bool) -> list[str]:
    return [column, f"{column}_low", f"{column}_high"] if wide else [column]


def _csv_fields(cell: Cell, wide: bool) -> list[Cell]:
    if isinstance(cell, Interval):
        return list(cell)
    cell = _no_formula(cell) if isinstance(cell, str) else cell
    return [cell, None, None] if wide else [cell]


def _no_formula(text: str) -> str:
    """The text, with an apostrophe first where a spreadsheet would compute it.

    Source: OWASP, "CSV injection".
    """
    computed = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(text)
    # The csv module leaves a lone carriage return as it is, which readers take for the end of the row.
    return "'" * computed + text.replace("\r\n", "\n").replace("\r", "\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
