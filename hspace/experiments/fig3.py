"""Fig. 3: principal components of h are changes with a name, such as pose, gender and age."""

import math

from hspace.metrics.names import numbered
from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, named_at, stated, turned
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """Finds principal components, names them with the annotator, and reads their effects with the judge."""
    largest = max(lab.strengths)
    directions = lab.components()
    named = lab.name(directions.directions, named_at(lab))
    labels = [f"component {j}: {label}" for j, label in enumerate(numbered(named))]
    applied = as_configured(lab, turned(directions, named), [name and name.attribute for name in named])
    sweep = lab.sweep(dict(zip(labels, applied.directions, strict=True)))
    at = stated(lab, largest, "sd")
    effects = sweep.effects(largest)
    rows = []
    for j, name in enumerate(named):
        strongest, effect = effects.strongest(j)
        aim = effects.cell(j, name.attribute) if name else None
        rows.append((labels[j], aim, strongest, effect, sweep.readings.identity(sweep.row(j, largest))))
    columns = (
        "component: named by the annotator",
        "effect on the name",
        "strongest by the judge",
        "its effect",
        "identity",
    )
    table = Table(columns, tuple(rows), f"Principal components at {at}, read by the judge, in sd.")
    agreeing = sum(name is not None and row[2] == name.attribute for name, row in zip(named, rows, strict=True))
    names = sorted({name.label for name in named if name})
    largest_effect = max((abs(row[3]) for row in rows if not math.isnan(row[3])), default=math.nan)
    conclusion = (
        f"{agreeing} of {len(rows)} components move most, by the judge, what the annotator named them by; the names "
        f"are {', '.join(names)}. The largest effect at {at} is {format_number(largest_effect)} sd."
    )
    notes = ["" if row[1] is None else f"{row[1].value:+.2f} sd at {largest:+g}" for row in rows]
    figures = {
        "One sample along each component": sweep.strip(
            "Principal components of h", lab.figures / "components.png", notes
        ),
        f"Effects of each component at {at}": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    findings = {
        "names": [name and [name.attribute, name.sign, list(name.others)] for name in named],
        "effects": effects.to_dict(),
        "correlation": directions.correlation,
    }
    return Result(conclusion, findings, figures, {"components": table}, {"scores": sweep.readings.table()})
