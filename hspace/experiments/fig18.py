"""Figs. 18-21: principal components of models of other things than faces."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hspace.evaluation.readings import Sweep
from hspace.metrics.names import Name, numbered
from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, named_at, stated, turned
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.scorers.factory import NOT_MEANT
from hspace.types import InputError


def run(lab: Lab) -> Result:
    """Principal components and how much they change the image; with names and effects where scorers read the model.

    No embedded scorer reads churches and bedrooms, so that pixels alone say there what a component does.

    Raises:
        InputError: If effects are asked for, and no scorer reads the model.
    """
    largest = max(lab.strengths)
    directions = lab.components()
    read = NOT_MEANT not in lab.judge_name
    if lab.cfg.edit.effects is not None and not read:
        raise InputError(f"edit.effects needs scorers that read {lab.model.model_id}: give edit.strengths")
    named = lab.name(directions.directions, named_at(lab)) if read else [None] * len(directions.directions)
    labels = [f"component {j}" + (f": {label}" if read else "") for j, label in enumerate(numbered(named))]
    applied = as_configured(lab, turned(directions, named), [name and name.attribute for name in named])
    sweep = lab.sweep(dict(zip(labels, applied.directions, strict=True)))
    at = stated(lab, largest, "sd")
    sizes = changes(sweep, largest)
    caption = (
        f"Change of the image at {at}, root mean square of pixels in [-1, 1], over {len(sweep.readings.images)} samples"
    )
    conclusion = (
        f"{lab.model.model_id}: at {at} the components change the image by {format_number(min(sizes))} to "
        f"{format_number(max(sizes))} (root mean square of pixels)."
    )
    title = f"Principal components of {lab.model.model_id}"
    figures = {"One sample along each component": sweep.strip(title, lab.figures / "components.png")}
    findings: dict[str, Any] = {
        "model": lab.model.model_id, "change": sizes, "median": float(np.median(sizes)),
    }  # fmt: skip
    if not read:
        table = Table(("component", "change"), tuple(zip(labels, sizes, strict=True)), f"{caption}.")
        return Result(conclusion, findings, figures, {"components": table})
    effects = sweep.effects(largest)
    figures[f"Effects of each component at {at}"] = effect_heatmap(effects, lab.figures / "effects.png")
    rows, agreeing = named_rows(sweep, named, largest)
    findings |= {
        "names": [name and [name.attribute, name.sign, list(name.others)] for name in named],
        "effects": effects.to_dict(),
    }
    columns = ("component", "change", "effect on the name", "strongest by the judge", "its effect", "identity")
    table = Table(
        columns,
        tuple((label, size, *row) for label, size, row in zip(labels, sizes, rows, strict=True)),
        f"{caption}; effects by the judge, in sd.",
    )
    words = f" {agreeing} of {len(rows)} move most, by the judge, what the annotator named them by."
    return Result(conclusion + words, findings, figures, {"components": table}, {"scores": sweep.readings.table()})


def changes(sweep: Sweep, strength: float) -> list[float]:
    """Root mean square change of the pixels by each direction at a strength, in the mean over samples."""
    images = sweep.readings.images
    change = (images[:, 1:] - images[:, :1]).square().mean((2, 3, 4)).sqrt()
    return [float(change[:, sweep.row(j, strength)].mean()) for j in range(len(sweep.labels))]


def named_rows(sweep: Sweep, named: Sequence[Name | None], strength: float) -> tuple[list[tuple[Any, ...]], int]:
    """What the judge sees of each named direction, and on how many it agrees with the annotator."""
    effects = sweep.effects(strength)
    rows = []
    for j, name in enumerate(named):
        strongest, effect = effects.strongest(j)
        aim = effects.cell(j, name.attribute) if name else None
        rows.append((aim, strongest, effect, sweep.readings.identity(sweep.row(j, strength))))
    agreeing = sum(name is not None and row[1] == name.attribute for name, row in zip(named, rows, strict=True))
    return rows, agreeing
