"""Fig. 5: directions found on one sample by its Jacobian edit that sample, and others at the same strength."""

import numpy as np
import torch

from hspace.metrics.correlation import correlation
from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, stated
from hspace.runs.lab import Lab
from hspace.runs.report import Result

DIRECTIONS = 3


def run(lab: Lab) -> Result:
    """The top directions of one evaluation sample, on it and on all the others.

    The measure of transfer is the correlation, over the judged attributes, of a direction's effects on the sample that
    it was found on with its mean effects on the others.
    """
    directions = lab.discover(name="jacobian", k=DIRECTIONS, sample=0, steps=_middle(lab))
    largest = max(lab.strengths)
    at = stated(lab, largest)
    vectors = {f"direction {j + 1}": vector for j, vector in enumerate(as_configured(lab, directions).directions)}
    own, others = lab.sweep(vectors, seeds=[0]), lab.sweep(vectors)
    readings, effects = others.readings, others.effects(largest)
    names = lab.judge.attributes
    alone = torch.tensor([[own.readings.changes(row, name)[0] for name in names] for row in own.at(largest)])
    rows, transfer = [], []
    for j, name in enumerate(vectors):
        known = np.isfinite(effects.effect[j]) & np.isfinite(alone[j].numpy())
        transfer.append(correlation(effects.effect[j][known], alone[j].numpy()[known]).value)
        attribute, effect = effects.strongest(j)
        own_effect = float(alone[j, lab.judge.attributes.index(attribute)]) if attribute != "n/a" else float("nan")
        rows.append((name, attribute, effect, own_effect, transfer[-1], readings.identity(others.row(j, largest))))
    columns = ("direction", "strongest on others", "mean effect", "effect on its own sample", "correlation", "identity")
    norm = " (unit norm)" if lab.cfg.edit.effects is None else ""
    table = Table(columns, tuple(rows), f"Singular directions of one sample at {at}{norm}, in sd.")
    conclusion = (
        f"Effects on other samples correlate with those on the direction's own by {format_number(min(transfer))} to "
        f"{format_number(max(transfer))} over the judged attributes; the largest mean effect on others is "
        f"{format_number(max(abs(row[2]) for row in rows))} sd."
    )
    figures = {
        "The sample that they were found on": own.strip("Its own directions", lab.figures / "own.png"),
        "Another sample at the same strengths": others.strip("The same directions", lab.figures / "other.png"),
        f"Mean effects on other samples at {at}": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    findings = {"transfer": transfer, "effects": effects.to_dict(), "own": alone}
    return Result(conclusion, findings, figures, {"transfer": table}, {"scores": readings.table()})


def _middle(lab: Lab) -> tuple[int, ...]:
    return (len(lab.model.process.timesteps) // 2,)
