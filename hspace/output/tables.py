"""Tables as CSV, with every digit, and as Markdown and LaTeX, for people."""

import csv
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hspace.metrics.interval import NOTHING, Interval
from hspace.system.files import write_text
from hspace.types import InputError

Cell = str | int | float | Interval | None
UNKNOWN = "n/a"
LATEX = str.maketrans(
    {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$",
     "→": r"$\to$", "\n": " "}
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A caption and rows under named columns.

    Attributes:
        columns: Names of the columns, all different.
        rows: Rows of one cell per column; None is an empty cell.
        caption: One sentence or more; the number of visible samples behind the intervals and the judge follow it.
        judge: Id of the scorer that read the numbers.
        bold: Indices (row, column) of the cells in bold: those that beat the second by a paired interval.
        counted: Name of what n counts, for the caption.

    Examples:
        >>> Table(("edit", "yaw"), (("component 3", Interval(0.42, 0.31, 0.53, 100)),), "Effects.").columns
        ('edit', 'yaw')
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    judge: str = ""
    bold: frozenset[tuple[int, int]] = frozenset()
    counted: str = "visible"

    def __post_init__(self) -> None:
        """Raises InputError if a row has not one cell per column, or two columns share a name."""
        if len(set(self.columns)) != len(self.columns):
            raise InputError(f"columns must differ, got {', '.join(self.columns)}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"a row must have {len(self.columns)} cells, got {len(row)}")

    @property
    def legend(self) -> str:
        """The caption with the judge and the range of n, the visible samples behind each interval."""
        counts = sorted({cell.n for row in self.rows for cell in row if isinstance(cell, Interval)})
        n = "" if not counts else f"n ({self.counted}) = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
        caption = self.caption.rstrip(".")
        return ". ".join(part for part in (caption, f"Judge: {self.judge}" * bool(self.judge), n) if part) + "."


def write_table(table: Table, path: str | Path) -> tuple[Path, ...]:
    """Write the table in all three formats.

    Args:
        table: Table to write.
        path: Path without a suffix.

    Returns:
        The CSV, Markdown and LaTeX files.
    """
    texts = {".csv": to_csv(table), ".md": to_markdown(table), ".tex": to_latex(table)}
    paths = tuple(Path(f"{path}{suffix}") for suffix in texts)
    for each, text in zip(paths, texts.values(), strict=True):
        write_text(each, text)
    return paths


def to_csv(table: Table) -> str:
    """The table as CSV: full precision; an interval becomes four columns, `x`, `x_low`, `x_high` and `x_n`.

    The judge, if there is one, is a last column. Text that a spreadsheet would compute gets an apostrophe before it.

    Examples:
        >>> table = Table(("edit", "yaw"), (("component 3", Interval(0.42, 0.31, 0.53, 100)),), "Effects.")
        >>> print(to_csv(table).strip())
        edit,yaw,yaw_low,yaw_high,yaw_n
        component 3,0.42,0.31,0.53,100
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    wide = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    columns = zip(table.columns, wide, strict=True)
    more = ["judge"] if table.judge else []
    names = [name for column, w in columns for name in _csv_names(column, w)]
    writer.writerow(map(_no_formula, names + more))
    for row in table.rows:
        fields = [field for cell, w in zip(row, wide, strict=True) for field in _csv_fields(cell, w)]
        writer.writerow(fields + [table.judge] * len(more))
    return text.getvalue()


def write_csv(table: Table, path: str | Path) -> Path:
    """Write the table as CSV."""
    write_text(path, to_csv(table))
    return Path(path)


def to_markdown(table: Table) -> str:
    """The table as Markdown: columns of numbers are right-aligned, with the same decimals in every row.

    Examples:
        >>> table = Table(("edit", "yaw"), (("component 3", Interval(0.42, 0.31, 0.53, 100)),), "Effects.")
        >>> print(to_markdown(table).strip())
        | edit | yaw |
        | :-- | --: |
        | component 3 | .42 ± .11 |
        <BLANKLINE>
        Effects. n (visible) = 100.
    """
    align = [":--" if text else "--:" for text in _textual(table)]
    lines = [_line([escape_markdown(column) for column in table.columns]), _line(align)]
    for i, (row, cells) in enumerate(zip(_texts(table), table.rows, strict=True)):
        texts = [
            escape_markdown(text) if isinstance(cell, str) else text for text, cell in zip(row, cells, strict=True)
        ]
        lines.append(_line([f"**{text}**" if (i, j) in table.bold else text for j, text in enumerate(texts)]))
    return "\n".join([*lines, "", escape_markdown(table.legend), ""])


def escape_markdown(text: str) -> str:
    """Text on one line that Markdown shows as it is: no HTML, no link, no emphasis, no border of a table.

    An underscore inside a word is left alone, as Markdown leaves it.
    """
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)


def read_markdown(text: str) -> str:
    """Inverse of `escape_markdown`."""
    return html.unescape(re.sub(r"\\([\\`*\[\]|~_])", r"\1", text))


def to_latex(table: Table) -> str:
    """The table as LaTeX, for the package booktabs."""
    align = "".join("l" if text else "r" for text in _textual(table))
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [_latex_line(_latex(column) for column in table.columns), r"\midrule"]
    for i, row in enumerate(_texts(table)):
        cells = enumerate(map(_latex, row))
        lines.append(_latex_line(rf"\textbf{{{cell}}}" if (i, j) in table.bold else cell for j, cell in cells))
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_latex(table.legend)}}}", r"\end{table}", ""]
    return "\n".join(lines)


def written(value: float, form: str = "+.2f") -> str:
    """A number in one of Python's forms, where what rounds to zero is never minus zero.

    Examples:
        >>> written(-0.004), written(-1.5), written(-0.0, "g")
        ('+0.00', '-1.50', '0')
    """
    # Adding zero turns minus zero into zero.
    return format(float(format(value, form)) + 0.0, form)


def format_number(value: float | int, decimals: int | None = None) -> str:
    """A number without a leading zero: .42, -1.5, 12.3; whole numbers in full; nan as n/a.

    Args:
        value: Number; sizes under NOTHING are 0.
        decimals: Number of digits after the point; None gives three significant digits.

    Examples:
        >>> format_number(0.4213), format_number(-1.5, 2), format_number(float("nan")), format_number(1234)
        ('.421', '-1.50', 'n/a', '1234')
    """
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if decimals is not None and not isinstance(value, int):
        return _bare(f"{value + 0.0 if abs(value) >= NOTHING else 0.0:.{decimals}f}")
    if abs(value) < NOTHING:
        return "0"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return _bare(f"{value:.3g}")


def _bare(text: str) -> str:
    """The number without the zero before its point, and without a sign before 0."""
    text = text.removeprefix("-") if not text.strip("-0.") else text
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _textual(table: Table) -> list[bool]:
    """Which columns hold words."""
    return [any(isinstance(row[i], str) for row in table.rows) for i in range(len(table.columns))]


def _texts(table: Table) -> list[tuple[str, ...]]:
    """All cells as text, each column in one form."""
    columns = [_column([row[i] for row in table.rows]) for i in range(len(table.columns))]
    return list(zip(*columns, strict=True))


def _column(cells: Sequence[Cell]) -> list[str]:
    """The cells of one column, with the same decimals, and intervals all as `.53 ± .04` or all as `.53 [.48, .57]`."""
    decimals = _decimals(cells)
    intervals = [cell for cell in cells if isinstance(cell, Interval) and math.isfinite(cell.low)]
    even = all(_even(cell, decimals) for cell in intervals)
    return [_text(cell, decimals, even) for cell in cells]


def _text(cell: Cell, decimals: int | None, even: bool) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if not isinstance(cell, Interval):
        return format_number(cell, decimals)
    value, low, high = (format_number(each, decimals) for each in cell[:3])
    if math.isnan(cell.value):
        return UNKNOWN
    if math.isnan(cell.low):
        return f"{value} [{UNKNOWN}]"
    return f"{value} ± {format_number((cell.high - cell.low) / 2, decimals)}" if even else f"{value} [{low}, {high}]"


def _even(cell: Interval, decimals: int | None) -> bool:
    """Whether the limits lie as far from the value on both sides, as far as the decimals tell."""
    resolution = 10.0 ** -(decimals or 0)
    return abs((cell.high - cell.value) - (cell.value - cell.low)) <= resolution


def _decimals(cells: Sequence[Cell]) -> int | None:
    """Digits after the point for a column: those of the typical error, or three of the largest number.

    None where there is no number.
    """
    intervals = [cell for cell in cells if isinstance(cell, Interval)]
    halves = sorted((cell.high - cell.low) / 2 for cell in intervals if math.isfinite(cell.low + cell.high))
    halves = [half for half in halves if half > 0]
    if halves:
        error = halves[len(halves) // 2]
        place = math.floor(math.log10(error))
        # Two digits of an error that begins with 1 or 2, else one.
        return max((1 if error / 10.0**place < 3 else 0) - place, 0)
    plain = [abs(cell) for cell in cells if isinstance(cell, int | float) and math.isfinite(cell)]
    plain += [abs(cell.value) for cell in intervals if math.isfinite(cell.value)]
    plain = [size for size in plain if size >= NOTHING]
    if not plain:
        return None
    most = max(2 - math.floor(math.log10(max(plain))), 0)
    # Round numbers, such as strengths, need no more digits than they have.
    return next((d for d in range(most) if all(abs(round(size, d) - size) < NOTHING for size in plain)), most)


def _latex(text: str) -> str:
    return text.translate(LATEX)


def _latex_line(cells) -> str:
    return f"{' & '.join(cells)} \\\\"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _csv_names(column: str, wide: bool) -> list[str]:
    return [column, f"{column}_low", f"{column}_high", f"{column}_n"] if wide else [column]


def _csv_fields(cell: Cell, wide: bool) -> list[Cell]:
    if isinstance(cell, Interval):
        return list(cell)
    cell = _no_formula(cell) if isinstance(cell, str) else cell
    return [cell, None, None, None] if wide else [cell]


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
