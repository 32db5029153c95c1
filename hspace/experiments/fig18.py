"""Figs. 18-21: principal components of models of other things than faces, whose directions are hard to name."""

import numpy as np

from hspace.output.tables import Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """Principal components and their share of the image's change, since no scorer reads churches or bedrooms."""
    largest = max(lab.strengths)
    directions = lab.components()
    sweep = lab.sweep({f"component {j}": vector for j, vector in enumerate(directions.directions)})
    images = sweep.readings.images
    change = (images[:, 1:] - images[:, :1]).square().mean((2, 3, 4)).sqrt()
    rows = tuple((label, float(change[:, sweep.row(j, largest)].mean())) for j, label in enumerate(sweep.labels))
    caption = (
        f"Change of the image at {largest:g} sd, root mean square of pixels in [-1, 1], over {len(images)} samples."
    )
    sizes = [row[1] for row in rows]
    conclusion = (
        f"{lab.model.model_id}: at {largest:g} sd the components change the image by {format_number(min(sizes))} to "
        f"{format_number(max(sizes))} (root mean square of pixels)."
    )
    strip = sweep.strip(f"Principal components of {lab.model.model_id}", lab.figures / "components.png")
    findings = {"model": lab.model.model_id, "change": sizes, "median": float(np.median(sizes))}
    return Result(
        conclusion,
        findings,
        {"One sample along each component": strip},
        {"components": Table(("component", "change"), rows, caption)},
    )
