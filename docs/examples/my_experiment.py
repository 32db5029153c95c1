"""An experiment of one's own: hspace procedure=my_experiment:run name=doubling."""

import numpy as np

from hspace.output.charts import curve_figure
from hspace.output.tables import Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """Does an edit of twice the strength move the image twice as much?"""
    directions = lab.discover()
    sweep = lab.sweep(dict(zip(directions.meta.names, directions.directions, strict=True)), (1.0, 2.0))
    images = sweep.readings.images
    change = (images[:, 1:] - images[:, :1]).square().mean(dim=(0, 2, 3, 4)).sqrt()
    rows, curves = [], {}
    for j, name in enumerate(sweep.labels):
        once, twice = (float(change[sweep.row(j, strength)]) for strength in (1.0, 2.0))
        rows.append((name, once, twice, twice / once))
        curves[name] = [[0.0, 1.0, 2.0], *[[0.0, once, twice]] * 3]
    mean = float(np.mean([row[3] for row in rows]))
    picture = curve_figure(curves, lab.figures / "doubling.png", x_label="strength", y_label="change of the image")
    table = Table(("direction", "change at 1", "change at 2", "ratio"), tuple(rows), "Root mean square of all pixels.")
    conclusion = f"Twice the strength moves the image {format_number(mean)} times as much."
    return Result(conclusion, {"ratio": mean}, {"Change by strength": picture}, {"doubling": table})
