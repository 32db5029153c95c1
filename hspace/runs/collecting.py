"""One table of many finished runs, from what each run recorded."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hspace.output.tables import Cell, Table
from hspace.system.files import read_json
from hspace.types import InputError

UNTOLD = ("output_dir", "cache_dir", "tracking", "artifacts", "inputs", "name", "study")
"""Parts of a configuration that say nothing about results, or, of an experiment of the paper, too much."""
RECORD = "run.json"
"""What every finished run leaves."""


@dataclass(frozen=True)
class Record:
    """What is kept of a finished run.

    Attributes:
        name: Of its folder or W&B run.
        config: The configuration, as JSON values.
        results: Figures by key; those of single directions end on `/direction_<j>`.
    """

    name: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]


def read_folders(folders: Iterable[Path]) -> list[Record]:
    """The finished runs in folders and everywhere below them, in the order of the folders.

    Raises:
        InputError: If a record is not one of ours, or there is none.
    """
    folders = list(folders)
    paths = dict.fromkeys(
        path for folder in folders for path in sorted(folder.rglob(RECORD)) if _is_record(path.relative_to(folder))
    )
    if not paths:
        raise InputError(f"no finished run ({RECORD}) in {', '.join(map(str, folders)) or 'no folder'}")
    return [_read(path) for path in paths]


def _is_record(path: Path) -> bool:
    """Whether it is the run's own, and not a copy that W&B keeps for the upload."""
    return "wandb" not in path.parts


def _read(path: Path) -> Record:
    try:
        record = read_json(path)
        return Record(path.parent.name, dict(record["config"]), dict(record["findings"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the record of a run: {error!r}") from error


def collected_table(records: Sequence[Record]) -> Table:
    """A row per run: the settings in which the runs differ, and their figures, but for those of single directions."""
    settings = [_flat({key: value for key, value in run.config.items() if key not in UNTOLD}) for run in records]
    keys = dict.fromkeys(key for run in settings for key in run)
    differing = [key for key in keys if len({json.dumps(run.get(key)) for run in settings}) > 1]
    results = [
        {key: value for key, value in run.results.items() if "/direction_" not in key and _is_number(value)}
        for run in records
    ]
    figures = list(dict.fromkeys(key for run in results for key in run))
    rows = tuple(
        (run.name, *(_cell(chosen.get(key)) for key in differing), *(result.get(key) for key in figures))
        for run, chosen, result in zip(records, settings, results, strict=True)
    )
    return Table(("run", *differing, *figures), rows, f"{len(records)} runs, and the settings in which they differ.")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys, without sections."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, str) or _is_number(value) else json.dumps(value)


def _is_number(value: Any) -> bool:
    """Whether it is a number that a table can show; JSON has integers beyond any float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > 1e300
