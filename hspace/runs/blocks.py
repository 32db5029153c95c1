"""The log of evaluation blocks that were read for publication: docs/results/readings.csv.

A block is read under one state of weights, methods and metrics only, so that published results were never tuned on the
samples that they report. Block 0 is for everyday runs.
"""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from hspace.diffusion.sampler import BLOCKS
from hspace.runs.keys import VERSIONS
from hspace.runs.report import VERSION
from hspace.system.files import package_path, sha256_file, write_text
from hspace.types import InputError

COLUMNS: tuple[str, ...] = ("date", "commit", "block", "experiment", "state")
PACKAGE = Path(__file__).parents[1]
ROOMS = ("metrics", "diffusion", "worlds", "scorers", "directions", "edits", "evaluation", "runs", "experiments")
"""Rooms of the package whose code decides on numbers."""


def state(overrides: Sequence[str]) -> str:
    """Tells apart weights, methods, metrics and settings: twelve digits of a hash of all of them."""
    parts = {room: _content(PACKAGE / room, "*.py") for room in ROOMS}
    parts |= {"weights": _content(package_path("weights"), "*.*"), "conf": _content(package_path("conf"), "*.yaml")}
    facts = [parts, VERSIONS, VERSION, sorted(overrides)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of the log; there are none without a file.

    Raises:
        InputError: If the file is not such a log.
    """
    if not path.exists():
        return []
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    if any(tuple(row) != COLUMNS or not row["block"].isdecimal() for row in rows):
        raise InputError(f"{path} must have the columns {', '.join(COLUMNS)}, with a number as the block")
    return rows


def block_for(rows: Sequence[dict[str, str]], state: str) -> int:
    """The block of a state that was read before, or else the next unread block.

    Raises:
        InputError: If all blocks are read.
    """
    known = {row["state"]: int(row["block"]) for row in rows}
    block = known.get(state, max(known.values(), default=0) + 1)
    if block >= BLOCKS:
        raise InputError(f"all {BLOCKS - 1} evaluation blocks have been read")
    return block


def log_reading(path: Path, commit: str | None, block: int, experiment: str, state: str) -> None:
    """Adds a row, unless this experiment was read under this state before.

    Raises:
        InputError: If the block is 0, or was read under another state.
    """
    rows = read_log(path)
    if block == 0 or any(int(row["block"]) == block and row["state"] != state for row in rows):
        reason = "is for everyday runs" if block == 0 else "was read under other weights, methods or metrics"
        raise InputError(f"evaluation block {block} {reason} and is never published")
    if not any((row["experiment"], row["state"]) == (experiment, state) for row in rows):
        new = (date.today().isoformat(), commit or "unknown", str(block), experiment, state)
        rows.append(dict(zip(COLUMNS, new, strict=True)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _content(folder: Path, pattern: str) -> dict[str, str]:
    """The hash of each file below a folder, but for what Python compiled."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
