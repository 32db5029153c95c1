"""Fig. 8b: several edits, one on top of the other: expression, pose, age and glasses."""

import math

import torch

from hspace.edits.sums import Term, sequence_offsets
from hspace.output.charts import effect_heatmap
from hspace.output.figures import grid_figure
from hspace.output.tables import Table, format_number
from hspace.runs.effects import aim
from hspace.runs.lab import Lab
from hspace.runs.report import Result

SHOWN = 2


def run(lab: Lab) -> Result:
    """Adds calibrated edits in the order of the study's attributes, and reads how each changes those before it."""
    names, (target, at) = lab.cfg.study.attributes, aim(lab)
    directions = {name: lab.attribute(name) for name in names}
    found = {name: lab.calibrate(directions[name], 0, name, target) for name in names}
    offsets = sequence_offsets(lab.model, [Term(directions[name], 0, found[name].strength / at) for name in names])
    labels = ["+ " + name for name in names]
    sweep = lab.sweep(dict(zip(labels, offsets, strict=True)))
    readings, effects = sweep.readings, sweep.effects(at)
    cells = [[*(effects.cell(j, name) for name in names), readings.identity(row)] for j, row in enumerate(sweep.at(at))]
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
    shown, titles = [], []
    for strength in sorted(sweep.strengths):
        shown.append([0, *(1 + row for row in sweep.at(strength))])
        titles += ["unedited", *(f"{label}{_noted(lab, strength)}" for label in labels)]
    images = readings.images[:SHOWN][:, torch.tensor(shown)]
    figures = {
        "Two samples, edit upon edit": grid_figure(
            images.flatten(0, 2), len(labels) + 1, lab.figures / "sequence.png", titles * len(images)
        ),
        "Effects on every judged attribute": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    strengths = {name: each.strength for name, each in found.items()}
    findings = {"strengths": strengths, "kept": kept, "effects": effects.to_dict()}
    tables = {"sequence": Table(columns, rows, caption)}
    return Result(conclusion, findings, figures, tables, {"scores": readings.table()})


def _noted(lab: Lab, strength: float) -> str:
    """What tells the pictures of several strengths apart."""
    return f" at {strength:g}" if len(lab.strengths) > 1 else ""
