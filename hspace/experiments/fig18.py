"""Figs. 18-21: principal components of models of other things than faces."""

from typing import Any

import numpy as np

from hspace.evaluation.readings import Sweep
from hspace.experiments.components import applied_components
from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number
from hspace.runs.effects import stated
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
    read = NOT_MEANT not in lab.judge_name
    if lab.cfg.edit.effects is not None and not read:
        raise InputError(f"edit.effects needs scorers that read {lab.model.model_id}: give edit.strengths")
    found = applied_components(lab, read=read)
    sweep, largest = found.sweep, found.strength
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
        table = Table(("component", "change"), tuple(zip(sweep.labels, sizes, strict=True)), f"{caption}.")
        return Result(conclusion, findings, figures, {"components": table})
    heatmap = effect_heatmap(sweep.effects(largest), lab.figures / "effects.png")
    figures[f"Effects of each component at {at}"] = heatmap
    columns = ("component", "change", "effect on the name", "strongest by the judge", "its effect", "identity")
    rows = tuple((label, size, *row) for label, size, row in zip(sweep.labels, sizes, found.rows, strict=True))
    table = Table(columns, rows, f"{caption}; effects by the judge, in sd.")
    conclusion += f" {found.agreeing}."
    findings |= found.findings
    return Result(conclusion, findings, figures, {"components": table}, {"scores": sweep.readings.table()})


def changes(sweep: Sweep, strength: float) -> list[float]:
    """Root mean square change of the pixels by each direction at a strength, in the mean over samples."""
    images = sweep.readings.images
    change = (images[:, 1:] - images[:, :1]).square().mean((2, 3, 4)).sqrt()
    return [float(change[:, sweep.row(j, strength)].mean()) for j in range(len(sweep.labels))]
