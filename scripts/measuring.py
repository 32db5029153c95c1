"""Measurements side by side, their file and their table in the docs."""

import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hspace.output.tables import Table, format_number, to_markdown
from hspace.system.files import write_json, write_text
from hspace.types import InputError

SHORT_PAIRS, LONG_PAIRS = 20, 5
"""Pairs that take less than a second each, and longer ones."""
LONGEST = 60.0
"""Seconds that the pairs of a row may take; fewer are run where LONG_PAIRS would take longer."""
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: The row.
        ours_s: Median seconds of ours.
        other_s: Median seconds of the other, or the seconds that are allowed.
        ratio: Median of ours / other over the pairs.
        repetitions: Number of pairs.
        limit: The ratio to reach.
        note: What was compared, the spread, and how exact either was.
    """

    name: str
    ours_s: float
    other_s: float
    ratio: float
    repetitions: int
    limit: float
    note: str


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of `clock` that `work` takes, on a GPU until it is done."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    start = clock()
    work()
    synchronize()
    return clock() - start


def compare(name: str, ours: Callable[[], Any], other: Callable[[], Any], limit: float, note: str) -> Row:
    """Time both in turns, after one run of ours and, but for pairs that are too long for two, one pair to warm up."""
    ours()
    pairs = in_turns(ours, other, 1)
    count = _repetitions(sum(pairs[0]))
    if count > 1:
        pairs = in_turns(ours, other, count)
    ratios = sorted(a / b for a, b in pairs)
    ours_s, other_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(name, ours_s, other_s, statistics.median(ratios), count, limit, note + _spread("ratios", ratios))


def _repetitions(seconds: float) -> int:
    """How often to run what takes so long."""
    return SHORT_PAIRS if seconds < 1 else max(1, min(LONG_PAIRS, int(LONGEST / seconds)))


def _spread(what: str, values: Sequence[float]) -> str:
    few = ", few for their length" if len(values) < LONG_PAIRS else ""
    return f"; {what} {min(values):.3g} to {max(values):.3g}{few}" if len(values) > 1 else "; once, for its length"


def in_turns(ours: Callable[[], Any], other: Callable[[], Any], count: int) -> list[tuple[float, float]]:
    """Seconds of both, `count` times, each first in every second pair."""
    return [_pair(ours, other, swapped=i % 2 == 1) for i in range(count)]


def _pair(ours: Callable[[], Any], other: Callable[[], Any], swapped: bool) -> tuple[float, float]:
    if swapped:
        other_s = timed(other)
        return timed(ours), other_s
    return timed(ours), timed(other)


def within(name: str, ours: Callable[[], Any], allowed_s: float, note: str) -> Row:
    """Time ours alone, against an allowed number of seconds."""
    ours()
    seconds = [timed(ours)]
    seconds += [timed(ours) for _ in range(_repetitions(seconds[0]) - 1)]
    median = statistics.median(seconds)
    return Row(name, median, allowed_s, median / allowed_s, len(seconds), 1.0, note + _spread("seconds", seconds))


def machine() -> str:
    """What it ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The commit of this checkout, with a plus sign if it was changed since; a copy without git does not know it."""
    if shutil.which("git") is None:
        return "unknown"
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return described.stdout.strip() or "unknown"


def write(rows: Sequence[Row], output: Path) -> None:
    """The file and its table."""
    versions = {name: version(name) for name in ("torch", "diffusers", "scipy", "scikit-learn")}
    facts = {"machine": machine(), "versions": {"python": platform.python_version()} | versions, "commit": commit()}
    write_json(output / "benchmark.json", facts | {"rows": [asdict(row) for row in rows]})
    write_text(output / "benchmark.md", to_markdown(_table(rows)))


def _table(rows: Sequence[Row]) -> Table:
    columns = ("row", "ours (s)", "other (s)", "ratio", "limit", "met", "pairs", "what, and the spread")
    missed = {i for i, row in enumerate(rows) if row.ratio > row.limit}
    cells = tuple(
        # In three digits each: rows are of milliseconds and of minutes.
        (r.name, *map(format_number, (r.ours_s, r.other_s, r.ratio, r.limit)), "no" if i in missed else "yes",
         r.repetitions, r.note)
        for i, r in enumerate(rows)
    )  # fmt: skip
    caption = f"{machine()}; torch {torch.__version__}; commit {commit()}. Ratio is ours / other, "
    caption += "the median over pairs of runs; times are the medians of each side."
    return Table(columns, cells, caption, bold=frozenset((i, columns.index("met")) for i in missed))


def refresh(page: Path, rows: Sequence[Row]) -> None:
    """Put the table between the two marks of a page.

    Raises:
        InputError: If the page does not have the marks, once each and in order.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise InputError(f"{page} must have {BEGIN} and then {END}, once each")
    write_text(page, f"{before}{BEGIN}\n\n{to_markdown(_table(rows))}\n{END}{after}")
