"""Fig. 9: eq. 12 removes from a direction what goes along with it."""

from hspace.directions.disentangle import disentangle
from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number, written
from hspace.runs.effects import aim, stated
from hspace.runs.lab import Lab
from hspace.runs.report import Result

CASES = (("glasses", ("age", "gender")), ("age", ("gender",)))
"""Edited attribute, and its conditions."""


def run(lab: Lab) -> Result:
    """Each direction before and after, both at the strength at which the annotator sees the target."""
    (target, at), rows, vectors, cells = aim(lab), [], {}, []
    for name, conditions in CASES:
        before = lab.attribute(name)
        after = disentangle(before, [lab.attribute(condition) for condition in conditions])
        for label, directions in ((name, before), (f"{name} without {', '.join(conditions)}", after)):
            found = lab.calibrate(directions, 0, name, target)
            vectors[label] = found.strength / at * directions.directions[0]
            cells.append((name, conditions, found))
    sweep = lab.sweep(vectors)
    effects = sweep.effects(at)
    for j, (label, (name, conditions, found)) in enumerate(zip(vectors, cells, strict=True)):
        side = [abs(effects.cell(j, condition).value) for condition in conditions]
        identity = sweep.readings.identity(sweep.row(j, at))
        rows.append((label, found.strength, found.interval, effects.cell(j, name), sum(side), identity))
    columns = ("direction", "strength", "annotator's effect", "effect", "|effect| on the conditions", "identity")
    caption = f"Before and after eq. 12 at {target:g} sd by the annotator, or the nearest; effects by the judge, in sd."
    conclusion = "; ".join(
        f"{name} moves {' and '.join(conditions)} by {format_number(rows[2 * i][4])} sd before and "
        f"{format_number(rows[2 * i + 1][4])} sd after, at effects of {format_number(rows[2 * i][3].value)} and "
        f"{format_number(rows[2 * i + 1][3].value)} sd"
        for i, (name, conditions) in enumerate(CASES)
    )
    notes = [f"{written(row[3].value)} sd" for row in rows]
    figures = {
        f"One sample; at {stated(lab, at)} the annotator sees the target": sweep.strip(
            "Disentangled directions", lab.figures / "disentangled.png", notes
        ),
        "Effects on every judged attribute at the target": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    table = Table(columns, tuple(rows), caption)
    return Result(
        f"{conclusion[0].upper()}{conclusion[1:]}.", {"effects": effects.to_dict()}, figures, {"disentangled": table},
        {"scores": sweep.readings.table()},
    )  # fmt: skip
