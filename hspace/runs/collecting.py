"""One table of many finished runs, from their records."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hspace.output.tables import Cell, Table
from hspace.system.files import read_json
from hspace.types import InputError

UNTOLD = ("output_dir", "cache_dir", "tracking", "artifacts", "inputs", "name", "study.title", "study.expect")
"""Parts of a configuration that say nothing about results."""
RECORD = "run.json"
"""File that every finished run leaves."""


@dataclass(frozen=True)
class Record:
    """The record of a finished run.

    Attributes:
        name: Name of its folder or W&B run.
        config: Configuration, as JSON values.
        results: Figures by key; keys of single directions end in `/direction_<j>`.
    """

    name: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]


def read_folders(folders: Iterable[Path]) -> list[Record]:
    """The finished runs in folders and everywhere below them, in the order of the folders.

    Raises:
        InputError: If a record was not written by hspace, or there is none.
    """
    folders = list(folders)
    paths = dict.fromkeys(
        path for folder in folders for path in sorted(folder.rglob(RECORD)) if _is_record(path.relative_to(folder))
    )
    if not paths:
        raise InputError(f"no finished run ({RECORD}) in {', '.join(map(str, folders)) or 'no folder'}")
    return [_read(path) for path in paths]


def _is_record(path: Path) -> bool:
    """Whether the file is the run's own record, and not a copy that W&B keeps for the upload."""
    return "wandb" not in path.parts


def _read(path: Path) -> Record:
    try:
        record = read_json(path)
        return Record(path.parent.name, dict(record["config"]), dict(record["findings"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the record of a run: {error!r}") from error


def collected_tables(records: Sequence[Record]) -> dict[str, Table]:
    """`collected_table` as `collected`, and `seeds_table` as `collected_seeds` where there is one."""
    seeds = seeds_table(records)
    return {"collected": collected_table(records)} | ({} if seeds is None else {"collected_seeds": seeds})


def seeds_table(records: Sequence[Record]) -> Table | None:
    """A row per setting of runs that differ in their seed only: n, and mean and sd of each figure over seeds.

    Of several runs of one setting and seed the first counts. A figure that some run of a setting lacks has no mean.

    Returns:
        The table, whose sd has n - 1 and is empty where n is 1; None where no setting has several seeds.
    """
    table = collected_table(records)
    if "seed" not in table.columns:
        return None
    figures = [i for i, name in enumerate(table.columns) if name in _figures(records)]
    settings = [i for i, name in enumerate(table.columns) if i not in figures and name not in ("run", "seed")]
    groups: dict[str, dict[str, tuple[Cell, ...]]] = {}
    for run, row in zip(records, table.rows, strict=True):
        told = _told(run)
        seed = json.dumps(told.pop("seed", None))
        groups.setdefault(json.dumps(told, sort_keys=True), {}).setdefault(seed, row)
    of_setting = [list(by_seed.values()) for by_seed in groups.values()]
    if max(map(len, of_setting)) < 2:
        return None
    columns = [f"{table.columns[i]}{suffix}" for i in figures for suffix in ("", " sd")]
    rows = [
        (*(rows[0][i] for i in settings), len(rows), *(cell for i in figures for cell in _mean(rows, i)))
        for rows in of_setting
    ]
    caption = "Mean and standard deviation over seeds, whose discovery samples are disjoint."
    return Table((*(table.columns[i] for i in settings), "n", *columns), tuple(rows), caption)


def _mean(rows: Sequence[Sequence[Cell]], i: int) -> tuple[float | None, float | None]:
    """Mean and sd of a column; empty where a run has no such figure."""
    values = [float(value) for row in rows if isinstance(value := row[i], int | float)]
    if len(values) < len(rows):
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def collected_table(records: Sequence[Record]) -> Table:
    """A row per run: the settings in which the runs differ, and their figures except those of single directions.

    What an experiment is about (`study`) is told apart among runs of one procedure alone: of others it is different.
    """
    settings = [_told(run) for run in records]
    keys = dict.fromkeys(key for run in settings for key in run)
    differing = [key for key in keys if _differs(key, settings)]
    results = [{key: value for key, value in run.results.items() if _is_number(value)} for run in records]
    figures = _figures(records)
    rows = tuple(
        (run.name, *(_cell(chosen.get(key)) for key in differing), *(result.get(key) for key in figures))
        for run, chosen, result in zip(records, settings, results, strict=True)
    )
    return Table(("run", *differing, *figures), rows, f"{len(records)} runs, and the settings in which they differ.")


def _told(run: Record) -> dict[str, Any]:
    """The settings that results may depend on, by dotted key."""
    untold = tuple(f"{each}." for each in UNTOLD)
    return {key: value for key, value in _flat(run.config).items() if not f"{key}.".startswith(untold)}


def _differs(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    alike: dict[Any, set[str]] = {}
    for run in settings:
        kind = run.get("procedure") if key.startswith("study.") else None
        alike.setdefault(kind, set()).add(json.dumps(run.get(key)))
    return any(len(values) > 1 for values in alike.values())


def _figures(records: Sequence[Record]) -> list[str]:
    """Keys of the figures of all runs, except those of single directions."""
    keys = (key for run in records for key, value in run.results.items() if _is_number(value))
    return [key for key in dict.fromkeys(keys) if "/direction_" not in key]


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
