"""The demo: ready-made directions, and components that are found while one looks on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.directions.shipped import ready_models, ready_path
from hspace.evaluation.readings import Sweep
from hspace.experiments import edit
from hspace.metrics.interval import Interval
from hspace.output.figures import strip_figure
from hspace.output.tables import Cell, Table, format_number, written
from hspace.runs.discovery import warn_of_injection
from hspace.runs.given import takes
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.system.registry import unknown
from hspace.types import InputError

PEOPLE, TILE = 3, 128
MINUS, PLUS = "\N{MINUS SIGN}", "+"


def ready_files(model: DiffusionModel) -> list[Path]:
    """The file of a model's ready-made directions, if it has any."""
    return [ready_path(model.model_id)] if model.model_id in ready_models() else []


@takes(ready_files)
def run(lab: Lab) -> Result:
    """Finds and measures directions as a plain run does, and draws them below ready-made ones, on several people.

    A model that has no ready-made directions, and a method that finds an operator, get the plain run.

    Raises:
        InputError: If the ready-made directions do not fit the steps of the run, one of study.attributes is not among
            them, study.target is 0, or the strengths are of one sign.
    """
    if lab.model.model_id not in ready_models():
        return edit.run(lab)
    if not lab.cfg.study.target:
        raise InputError("study.target must not be 0: it is how far, in sd, ready-made directions are drawn")
    if not min(lab.strengths) < 0 < max(lab.strengths):
        key = "edit.strengths" if lab.cfg.edit.effects is None else "edit.effects"
        raise InputError(f"{key} must hold a number below 0 and one above it: the demo draws both ends of each edit")
    ready = _ready(lab)
    applied = edit.apply(lab)
    found, components = edit.measure(lab, applied), applied.sweep
    if not isinstance(applied.found, Directions):
        return found
    attributes = lab.sweep(ready, (-lab.cfg.study.target, lab.cfg.study.target))
    shown = confirmed(components, applied.targets)
    title = f"Edits of {PEOPLE} people: ready-made directions, and components found in this run"
    picture = _picture(attributes, components, shown, title, lab.figures / "demo.png")
    told = f"{len(shown)} of {len(components.labels)} components move most, by the judge, what they are named by."
    lines = [f"ready-made {name}: {_note(attributes, j, name)}" for j, name in enumerate(attributes.labels)]
    return replace(
        found, conclusion=f"{found.conclusion} {told}", figures={title: picture, **found.figures},
        tables={"attributes": _table(lab, attributes), **found.tables}, lines=[*lines, *found.lines],
    )  # fmt: skip


def _ready(lab: Lab) -> dict[str, Tensor]:
    """The ready-made directions of the study's attributes, by name."""
    ready = Directions.load(ready_path(lab.model.model_id))
    ready = ready.fit(lab.model, eta=lab.cfg.diffusion.eta, allow=lab.cfg.allow)
    warn_of_injection(ready.meta, lab.cfg)
    for name in lab.cfg.study.attributes:
        if name not in ready.meta.names:
            raise InputError(unknown("study.attributes", name, ready.meta.names))
    return {name: ready.directions[ready.meta.names.index(name)] for name in lab.cfg.study.attributes}


def confirmed(sweep: Sweep, targets: Sequence[str | None]) -> list[int]:
    """Directions whose target is what the judge sees them move most, at the largest strength."""
    return [j for j, target in enumerate(targets) if target == _strongest(sweep, j)]


def _picture(attributes: Sweep, components: Sweep, shown: Sequence[int], title: str, path: Path) -> Path:
    """All ready-made directions, and the components whose names the judge confirms."""
    images = [_extremes(attributes, range(len(attributes.labels))), _extremes(components, shown)]
    labels = [f"{name}\n{_note(attributes, j, name)}" for j, name in enumerate(attributes.labels)]
    labels += [f"{components.labels[j]}\n{_note(components, j, _strongest(components, j))}" for j in shown]
    return strip_figure(torch.cat(images), labels, (MINUS, 0, PLUS), title, path, TILE)


def _extremes(sweep: Sweep, rows: Sequence[int]) -> Tensor:
    """The first people at the smallest strength, unedited, and at the largest: (rows, people, 3, C, H, W)."""
    return sweep.shown((min(sweep.strengths), 0, max(sweep.strengths)))[list(rows), :PEOPLE]


def _strongest(sweep: Sweep, direction: int) -> str:
    return sweep.effects(max(sweep.strengths)).strongest(direction)[0]


def _note(sweep: Sweep, direction: int, attribute: str) -> str:
    """What the judge sees at either end, and whether it is the same person."""
    ends = [min(sweep.strengths), max(sweep.strengths)]
    effects = " and ".join(written(sweep.effects(s).cell(direction, attribute).value, "+.1f") for s in ends)
    return f"{effects} sd; likeness {format_number(_likeness(sweep, direction, ends[1]).value, 2)}"


def _likeness(sweep: Sweep, direction: int, strength: float) -> Interval:
    row = sweep.row(direction, strength)
    return sweep.readings.likeness(row) or sweep.readings.identity(row)


def _table(lab: Lab, sweep: Sweep) -> Table:
    """A row per attribute and sign."""
    rows: list[tuple[Cell, ...]] = []
    for j, name in enumerate(sweep.labels):
        for strength in sweep.strengths:
            effects, row = sweep.effects(strength), sweep.row(j, strength)
            strongest, _ = effects.strongest(j)
            identity = sweep.readings.identity(row)
            rows.append((name, strength, effects.cell(j, name), strongest, identity, _likeness(sweep, j, strength)))
    columns = ("attribute", "strength", "effect", "strongest", "identity", "likeness")
    caption = "Ready-made directions at strengths in sd of the annotator's score; effects by the judge, in sd."
    return Table(columns, tuple(rows), caption, lab.judge_name)
