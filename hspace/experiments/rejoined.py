"""Trials of `compare_methods` read back from the folders of finished runs, which may have shared the methods."""

import csv
import gzip
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.evaluation.levels import Level
from hspace.evaluation.readings import UNEDITED, Readings
from hspace.experiments.contenders import contenders
from hspace.experiments.equal_effect import SHARES, Entry, Trial, edit_name
from hspace.runs.lab import Lab
from hspace.types import InputError

Rows = list[dict[str, str]]


def rejoined(lab: Lab, folders: Sequence[Path]) -> list[list[Trial]]:
    """Every method of the configured ones on every draw, (methods, draws), from what runs have left.

    A run may have had some of the methods, or some of the attributes. Its scores are rounded, and cosines stand for
    embeddings, so that tables are those of the runs to within that rounding.

    Args:
        lab: The configuration of them all, with the model and the judge.
        folders: Folders of the runs, or of their published copies.

    Raises:
        InputError: If an edit is in none of them, or the runs had other effects or samples.
    """
    runs = [_Run(folder) for folder in folders]
    unit, study = lab.unit(lab.judge), lab.cfg.study
    found = list[list[Trial]]()
    for method in contenders(study.methods):
        draws = list[Trial]()
        for draw in range(study.repeats):
            entries = tuple(_entry(runs, method.name, name, draw, study.target) for name in study.attributes)
            edits = [edit for each in entries if not each.fault for edit in _edits(method.name, each, study.target)]
            draws.append(Trial(method, entries, _readings(lab, runs, draw, edits, unit) if edits else None))
        found.append(draws)
    return found


class _Run:
    """The tables of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.methods = {row["method"]: row for row in self.rows("tables/methods.csv")}
        self.levels = self.rows("tables/calibrations.csv")
        self.faults = self.rows("tables/faults.csv", needed=False)
        self._scores = dict[int, dict[str, Rows]]()

    def rows(self, name: str, *, needed: bool = True) -> Rows:
        """The rows of a table, which may be compressed.

        Raises:
            InputError: If the folder lacks a table that is needed.
        """
        path, packed = self.folder / name, self.folder / f"{Path(name).name}.gz"
        if not (path.is_file() or packed.is_file()):
            if not needed:
                return Rows()
            raise InputError(f"{self.folder} must be the folder of a run of compare_methods, and has no {name}")
        text = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        return list(csv.DictReader(io.StringIO(text.decode())))

    def scores(self, draw: int) -> Mapping[str, Rows]:
        """Rows of a draw by their edit."""
        if draw not in self._scores:
            by_edit = self._scores[draw] = dict[str, Rows]()
            # A run whose edits all failed has none.
            for row in self.rows(f"samples/scores_{draw}.csv", needed=False):
                by_edit.setdefault(row["edit"], []).append(row)
        return self._scores[draw]


def _edits(method: str, entry: Entry, target: float) -> list[str]:
    """Names of the edits of an attribute at every effect."""
    return [edit_name(method, entry.attribute, share * target) for share in SHARES]


def _entry(runs: Sequence[_Run], method: str, attribute: str, draw: int, target: float) -> Entry:
    """The edit of an attribute, without its change."""
    wanted = {"draw": str(draw), "method": method, "attribute": attribute}
    for run in runs:
        faults = [row["reason"] for row in run.faults if wanted.items() <= row.items()]
        rows = [row for row in run.levels if wanted.items() <= row.items()]
        if faults and not rows:
            return Entry(attribute, fault=faults[0])
        if not rows:
            continue
        by_target = {float(row["target"]): row for row in rows}
        missing = [share * target for share in SHARES if share * target not in by_target]
        if missing:
            raise InputError(f"{run.folder} has no effect of {missing[0]:g} sd, got {', '.join(map(str, by_target))}")
        at = [by_target[share * target] for share in SHARES]
        levels = tuple(
            Level(float(row["strength"]), _number(row["annotator's effect"]), row["reached"] == "yes") for row in at
        )
        costs, name = run.methods[method], rows[0]["direction"]
        candidates, fault = int(costs["chosen among"]), faults[0] if faults else ""
        return Entry(attribute, name, None, levels, candidates, _number(costs["seconds"]), fault)
    raise InputError(f"no run has draw {draw} of {method}, {attribute}")


def _readings(lab: Lab, runs: Sequence[_Run], draw: int, names: Sequence[str], unit: Tensor) -> Readings:
    """What the judge and the encoders of a person read of edits on a draw."""
    by_edit = [_rows_of(runs, draw, name) for name in (UNEDITED, *names)]
    scores = torch.stack([_columns(rows, lab.judge.attributes) for rows in by_edit])
    seeds = tuple(int(row["seed"]) for row in by_edit[0])
    if any([int(row["seed"]) for row in rows] != list(seeds) for rows in by_edit):
        raise InputError(f"the runs edited other samples in draw {draw}")
    person, *features = [_embedded(_columns(rows, [name]) for rows in by_edit) for name in _encoders(by_edit[0][0])]
    return Readings(
        lab.judge, tuple(names), seeds, scores[0], scores[1:], person, torch.empty(len(seeds), 1 + len(names), 0),
        unit, *features,
    )  # fmt: skip


def _rows_of(runs: Sequence[_Run], draw: int, edit: str) -> Rows:
    for run in runs:
        if edit in run.scores(draw):
            return run.scores(draw)[edit]
    raise InputError(f"no run has draw {draw} of {edit}")


def _encoders(row: Mapping[str, Any]) -> list[str]:
    return [name for name in ("identity", "likeness") if name in row]


def _columns(rows: Rows, names: Sequence[str]) -> Tensor:
    """(n, columns); what is hidden is 0, which no reading takes."""
    return torch.tensor([[float(row[name] or 0) for name in names] for row in rows])


def _embedded(cosines: Iterator[Tensor]) -> Tensor:
    """Unit vectors of two numbers that have the cosines to the first, (n, 1 + E, 2), of (n, 1) each."""
    angles = torch.cat(list(cosines), dim=1).clamp(-1, 1).acos()
    return torch.stack([angles.cos(), angles.sin()], dim=2)


def _number(text: str) -> float:
    return float(text) if text else math.nan
