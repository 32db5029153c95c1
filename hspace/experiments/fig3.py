"""Fig. 3: principal components of h are changes with a name, such as pose, gender and age."""

import math

from hspace.experiments.components import applied_components
from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number, written
from hspace.runs.effects import stated
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """Finds principal components, names them with the annotator, and reads their effects with the judge."""
    found = applied_components(lab)
    sweep, largest = found.sweep, found.strength
    at = stated(lab, largest, "sd")
    columns = (
        "component: named by the annotator",
        "effect on the name",
        "strongest by the judge",
        "its effect",
        "identity",
    )
    rows = tuple((label, *row) for label, row in zip(sweep.labels, found.rows, strict=True))
    table = Table(columns, rows, f"Principal components at {at}, read by the judge, in sd.")
    names = sorted({name.label for name in found.names if name})
    sizes = [abs(effect) for _, _, effect, _ in found.rows]
    largest_effect = max((size for size in sizes if not math.isnan(size)), default=math.nan)
    conclusion = (
        f"{found.agreeing}; the names are {', '.join(names)}. The largest effect at {at} is "
        f"{format_number(largest_effect)} sd."
    )
    notes = ["" if aim is None else f"{written(aim.value)} sd at {written(largest, '+g')}" for aim, *_ in found.rows]
    figures = {
        "One sample along each component": sweep.strip(
            "Principal components of h", lab.figures / "components.png", notes
        ),
        f"Effects of each component at {at}": effect_heatmap(sweep.effects(largest), lab.figures / "effects.png"),
    }
    findings = found.findings | {"correlation": found.directions.correlation}
    return Result(conclusion, findings, figures, {"components": table}, {"scores": sweep.readings.table()})
