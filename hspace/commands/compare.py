"""`hspace compare`: compares finished runs, attribute by attribute, on the samples that they share."""

import argparse
import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from hspace.evaluation.readings import UNEDITED
from hspace.metrics.interval import MIN_SAMPLES, Interval, mean_interval
from hspace.metrics.paired import differs, holm, paired, unpaired
from hspace.output.booklet import read_record
from hspace.output.tables import Table, to_markdown, write_table, written
from hspace.runs.report import RECORD
from hspace.types import InputError

UNEDITED_APART = 0.01
"""Difference of scores of unedited samples, in sd, above which they belong to different images."""
READERS = ("judge", "identity")
COLUMNS = (
    "attribute", "figure", "run", "its value", "other run", "other value", "samples", "difference", "p", "differs",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """The results of a run for one attribute, by its first direction with that target.

    Attributes:
        seeds: Seeds of the samples, (n,).
        original: The attribute's score of the unedited samples in sd, (n,); nan where it is hidden.
        figures: Figures by name, (n,): the change of the attribute in sd, negative where it is against the strength's
            sign, and the cosine of the identity embeddings; nan where there is none.
    """

    seeds: np.ndarray
    original: np.ndarray
    figures: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        name: Name in tables.
        model: Hash of its model.
        networks: Names of the networks that read it, by their role in the configuration.
        judge: Name of its judge in tables.
        strength: Strength at which it is compared.
        attributes: Results for each attribute that it has a direction for.
    """

    name: str
    model: str
    networks: Mapping[str, str]
    judge: str
    strength: float
    attributes: Mapping[str, Compared]


def compare(options: argparse.Namespace, compose: Callable[[list[str]], DictConfig]) -> int:
    """Prints the differences between runs, and writes them to a file if asked.

    Raises:
        InputError: If a run keeps no scores, was read by another judge, or shares no attribute.
        OSError: If a run is not finished.
    """
    if len(options.inputs) < 2 or options.settings:
        raise InputError("use it as hspace compare RUN RUN …, with the folders of two finished runs or more")
    names = _names([Path(word).expanduser() for word in options.inputs])
    runs = [_read(folder, name, options.strength) for folder, name in names.items()]
    table = comparison(runs)
    print(to_markdown(table))
    if options.output is not None:
        print(*write_table(table, Path(options.output).expanduser()), sep="\n")
    return 0


def comparison(runs: Sequence[Finished]) -> Table:
    """All pairs of runs on every attribute that both have a direction for.

    Raises:
        InputError: If runs were read by different networks, or no two of them share an attribute.
    """
    for role in READERS:
        read_by = sorted({run.networks[role] for run in runs})
        if len(read_by) > 1:
            raise InputError(f"runs must have the same evaluation.{role} to be compared, got {', '.join(read_by)}")
    cells = [
        (name, figure, first.name, second.name, *_difference(first, second, name, figure))
        for first, second in combinations(runs, 2)
        for name in first.attributes
        if name in second.attributes
        for figure in first.attributes[name].figures
    ]
    if not cells:
        raise InputError(f"no two of {', '.join(run.name for run in runs)} have a direction for the same attribute")
    corrected = holm(np.array([p for *_, p in cells]))
    rows = tuple(
        (name, figure, first, x, second, y, samples, difference, float(p), differs(p))
        for (name, figure, first, second, samples, x, y, difference, _), p in zip(cells, corrected, strict=True)
    )
    compared = ", ".join(f"{run.name} at {written(run.strength, '+g')}" for run in runs)
    caption = (
        "Difference of the first run less the other with its 95% interval: paired where both edit the same samples, "
        f"else of separate samples (Welch); p by Holm's correction over the {len(rows)} rows. Effects in sd of the "
        f"unedited samples of each run. Compared are {compared}"
    )
    return Table(COLUMNS, rows, caption, runs[0].judge)


def _difference(first: Finished, second: Finished, name: str, figure: str) -> tuple[str, float, float, Interval, float]:
    """The pairing of the samples, the means over those compared, their difference, and its p value."""
    a, b = first.attributes[name], second.attributes[name]
    shared, *rows = np.intersect1d(a.seeds, b.seeds, return_indices=True)
    x, y = (each.figures[figure] for each in (a, b))
    same = first.model == second.model and _same(a.original[rows[0]], b.original[rows[1]])
    if len(shared) < MIN_SAMPLES or not same:
        return "separate", _mean(x), _mean(y), *unpaired(x, y)
    x, y = x[rows[0]], y[rows[1]]
    return "paired", _mean(x), _mean(y), *paired(x, y)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether unedited samples score alike, so that they are the same images."""
    return bool((np.isnan(first) == np.isnan(second)).all() and not (np.abs(first - second) > UNEDITED_APART).any())


def _mean(values: np.ndarray) -> float:
    """The mean of a figure; nan under ten samples, as in every table."""
    return mean_interval(values).value


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Folders by the shortest ends of their paths that tell them apart.

    Raises:
        InputError: If one is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InputError(f"runs must differ, got {', '.join(map(str, folders))}")
    length = next(n for n in range(1, 100) if len({each[-n:] for each in parts}) == len(parts))
    return {folder: "/".join(each[-length:]) for folder, each in zip(folders, parts, strict=True)}


def _read(folder: Path, name: str, strength: float | None) -> Finished:
    """A run with its scores."""
    record = read_record(folder / RECORD)
    try:
        networks = {role: str(record["config"]["evaluation"][role]) for role in READERS}
        model, judge = str(record["model"]["sha256"]), str(record["judge"])
        unit = {name: math.nan if sd is None else float(sd) for name, sd in record["findings"]["unit"].items()}
        directions = _rows(folder / "tables" / "directions.csv")
        scores: dict[str, list[dict[str, str]]] = {}
        for row in _rows(folder / "samples" / "scores.csv"):
            scores.setdefault(row["edit"], []).append(row)
        wanted = max(float(row["strength"]) for row in directions) if strength is None else strength
        found = [row for row in directions if float(row["strength"]) == wanted and row["target"]]
        attributes: dict[str, Compared] = {}
        for row in found:
            edited, target = scores[f"{row['direction']} at strength {wanted:g}"], row["target"]
            side = math.copysign(1, wanted)
            # Choosing the direction, or its sign, by the effect on the compared samples would bias its effect.
            attributes.setdefault(target, _compared(scores[UNEDITED], edited, target, unit[target], side))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            f"{folder} keeps no scores of samples: compare takes runs of the command line (procedure=edit), whose "
            "samples/scores.csv and tables/directions.csv are there"
        ) from None
    if not attributes:
        known = ", ".join(sorted({row["strength"] for row in directions}))
        raise InputError(f"{folder} has no direction with a target at strength {wanted:g}; its strengths are {known}")
    return Finished(name, model, networks, judge, wanted, attributes)


def _compared(
    unedited: list[dict[str, str]], edited: list[dict[str, str]], target: str, unit: float, side: float
) -> Compared:
    before, after = (_column(rows, target) / unit for rows in (unedited, edited))
    change = after - before
    figures = {"effect": change * side, "identity": _column(edited, "identity")}
    return Compared(np.array([int(row["seed"]) for row in edited]), before, figures)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """Numbers of a column; nan where it is empty."""
    return np.array([float(row[name] or "nan") for row in rows])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
