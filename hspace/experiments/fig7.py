"""Fig. 7: single attributes, each by the mean difference of annotated samples."""

from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number, written
from hspace.runs.effects import aim, stated
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """Edits every attribute to the same effect, as the annotator sees it, and reads the edits with the judge."""
    names, (target, at) = lab.cfg.study.attributes, aim(lab)
    directions = {name: lab.attribute(name) for name in names}
    found = {name: lab.calibrate(directions[name], 0, name, target) for name in names}
    vectors = {name: found[name].strength / at * directions[name].directions[0] for name in names}
    sweep = lab.sweep(vectors)
    effects = sweep.effects(at)
    selectivity, few = effects.selectivity(names), effects.select(names).selectivity(names)
    rows = [
        (
            name, found[name].strength, found[name].interval, effects.cell(j, name),
            selectivity[j], few[j], sweep.readings.accuracy(sweep.row(j, at), name, target),
            sweep.readings.identity(sweep.row(j, at)),
        )
        for j, name in enumerate(names)
    ]  # fmt: skip
    columns = (
        "attribute", "strength", "annotator's effect", "effect", "selectivity", "selectivity in the table", "accuracy",
        "identity",
    )  # fmt: skip
    caption = (
        f"Mean differences at the strength at which the annotator sees {target:g} sd, or the nearest; effects by the "
        "judge, in sd. Selectivity is over all judged attributes, and over those of the table (chance "
        f"{format_number(1 / len(lab.judge.attributes))} and {format_number(1 / len(names))})."
    )
    identities = [row[-1].value for row in rows]
    strongest = sum(effects.strongest(j)[0] == name for j, name in enumerate(names))
    conclusion = (
        f"{strongest} of {len(names)} directions move their own attribute most; selectivity over all judged attributes "
        f"is {format_number(sum(each.value for each in selectivity) / len(names))} on average, identity "
        f"{format_number(min(identities))} to "
        f"{format_number(max(identities))}."
    )
    notes = [f"{written(row[3].value)} sd" for row in rows]
    figures = {
        f"One sample; at {stated(lab, at)} the annotator sees the target": sweep.strip(
            "Single attributes", lab.figures / "attributes.png", notes
        ),
        "Effects on every judged attribute at the target": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    findings = {"strengths": {name: each.strength for name, each in found.items()}, "effects": effects.to_dict()}
    tables = {"attributes": Table(columns, tuple(rows), caption)}
    return Result(conclusion, findings, figures, tables, {"scores": sweep.readings.table()})
