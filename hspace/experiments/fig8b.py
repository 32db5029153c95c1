"""Fig. 8b: several edits, one on top of the other: expression, pose, age and glasses."""

import math

from hspace.edits.sums import Term, sequence_offsets
from hspace.output.charts import effect_heatmap
from hspace.output.figures import grid_figure
from hspace.output.tables import Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """Adds calibrated edits in the order of the study's attributes, and reads how each changes those before it."""
    names, target = lab.cfg.study.attributes, lab.cfg.study.target
    directions = {name: lab.attribute(name) for name in names}
    found = {name: lab.calibrate(directions[name], 0, name, target) for name in names}
    offsets = sequence_offsets(lab.model, [Term(directions[name], 0, found[name].strength) for name in names])
    labels = ["+ " + name for name in names]
    readings = lab.read(dict(zip(labels, offsets, strict=True)))
    effects = readings.effects()
    cells = [[*(effects.cell(j, name) for name in names), readings.identity(j)] for j in range(len(labels))]
    alone = [found[name].interval for name in names]
    rows = tuple((label, own, *row) for label, own, row in zip(labels, alone, cells, strict=True))
    caption = f"Effects after each further edit of {target:g} sd by the annotator, or the nearest, in sd, by the judge."
    columns = ("after", "annotator's effect of the edit alone", *names, "identity")
    # The effects of the first edits after the last one; n/a of an edit that had none.
    added = [cells[j][j].value or math.nan for j in range(len(names) - 1)]
    kept = [cells[-1][j].value / effect for j, effect in enumerate(added)]
    conclusion = (
        f"After {len(names)} edits the first {len(kept)} keep {', '.join(map(format_number, kept))} of the "
        f"effect that they had when they were added; identity falls from {format_number(cells[0][-1].value)} after the "
        f"first to {format_number(cells[-1][-1].value)} after the last."
    )
    images = readings.images[:2]
    titles = ["unedited", *labels] * len(images)
    figures = {
        "Two samples, edit upon edit": grid_figure(
            images.flatten(0, 1), len(labels) + 1, lab.figures / "sequence.png", titles
        ),
        "Effects on every judged attribute": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    strengths = {name: each.strength for name, each in found.items()}
    findings = {"strengths": strengths, "kept": kept, "effects": effects.to_dict()}
    tables = {"sequence": Table(columns, rows, caption)}
    return Result(conclusion, findings, figures, tables, {"scores": readings.table()})
