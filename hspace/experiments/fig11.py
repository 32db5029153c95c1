"""Fig. 11: Asyrp makes an edit stronger; at equal effect it and symmetric injection look alike."""

from dataclasses import replace

import torch

from hspace.diffusion.sampler import INJECTIONS
from hspace.evaluation.readings import Sweep
from hspace.output.charts import curve_figure
from hspace.output.figures import strip_figure
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, axis
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """One attribute's mean difference by both injections, at equal strengths and at equal effect."""
    attribute, target = lab.cfg.study.attributes[0], lab.cfg.study.target
    directions = lab.attribute(attribute)
    applied = as_configured(lab, directions, [attribute]).directions[0]
    labs = {
        name: replace(lab, cfg=replace(lab.cfg, diffusion=replace(lab.cfg.diffusion, injection=name)))
        for name in INJECTIONS
    }
    sweeps = {name: each.sweep({name: applied}) for name, each in labs.items()}
    strength = {name: each.calibrate(directions, 0, attribute, target) for name, each in labs.items()}
    matched = {
        name: each.sweep({name: strength[name].strength * directions.directions[0]}, (-1.0, -0.5, 0.5, 1.0))
        for name, each in labs.items()
    }
    rows, curves = [], {}
    for name in INJECTIONS:
        curves[name] = _curve(lab, sweeps[name], attribute)
        effects = matched[name].readings.effects()
        row = matched[name].row(0, 1.0)
        share = effects.selectivity_of(row, attribute)
        rows.append(
            (
                name,
                strength[name].strength,
                strength[name].interval,
                effects.cell(row, attribute),
                share,
                matched[name].readings.identity(row),
            )
        )
    ratio = strength["symmetric"].strength / strength["asyrp"].strength
    images = [each.readings.images[:, 1 + each.row(0, 1.0)] for each in matched.values()]
    apart = float((images[0] - images[1]).square().mean().sqrt())
    moved = float((images[0] - matched["symmetric"].readings.images[:, 0]).square().mean().sqrt())
    conclusion = (
        f"Asyrp reaches {target:g} sd of {attribute} at a strength {format_number(ratio)} times smaller. At equal "
        f"effect the two edits differ by {format_number(apart)} (root mean square of pixels) where the edit itself "
        f"changes {format_number(moved)}; identity is {format_number(rows[0][-1].value)} and "
        f"{format_number(rows[1][-1].value)}."
    )
    pictures = [each.readings.images[0, [1, 2, 0, 3, 4]] for each in matched.values()]
    figures = {
        f"Effect on {attribute} by strength": curve_figure(
            curves, lab.figures / "effects.png", x_label=axis(lab), y_label=f"effect on {attribute} (sd)"
        ),
        "At equal effect": strip_figure(
            torch.stack(pictures),
            INJECTIONS,
            [-1.0, -0.5, 0.0, 0.5, 1.0],
            "At equal effect",
            lab.figures / "injections.png",
        ),
    }
    chance = format_number(1 / len(lab.judge.attributes))
    caption = f"At {target:g} sd of {attribute} by the annotator, or the nearest. Chance of selectivity: {chance}."
    columns = ("injection", "strength", "annotator's effect", "effect", "selectivity", "identity")
    table = Table(columns, tuple(rows), caption)
    findings = {"ratio": ratio, "apart": apart, "moved": moved, "curves": curves}
    samples = {name: each.readings.table() for name, each in matched.items()}
    return Result(conclusion, findings, figures, {"injections": table}, samples)


def _curve(lab: Lab, sweep: Sweep, attribute: str) -> list[list[float]]:
    """Strengths, effects and their intervals."""
    effects = sweep.readings.effects()
    points = [(s, *effects.cell(sweep.row(0, s), attribute)[:3]) for s in sorted(sweep.strengths)]
    return [list(column) for column in zip(*points, strict=True)]
