"""Figs. 13-16: the dominant directions of several steps, each applied at all steps."""

from itertools import pairwise

from hspace.metrics.angles import principal_angles
from hspace.output.charts import effect_heatmap
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, stated
from hspace.runs.lab import Lab
from hspace.runs.report import Result

DIRECTIONS = 3


def run(lab: Lab) -> Result:
    """The top directions of one sample at an early, two middle and a late step."""
    steps = _steps(len(lab.model.process.timesteps))
    directions = lab.discover(name="jacobian", k=DIRECTIONS, sample=0, steps=steps)
    vectors = dict(zip(directions.meta.names, as_configured(lab, directions).directions, strict=True))
    largest = max(lab.strengths)
    at, norm = stated(lab, largest), " (unit norm)" if lab.cfg.edit.effects is None else ""
    sweep = lab.sweep(vectors)
    effects = sweep.effects(largest)
    values = directions.singular_values
    assert values is not None
    rows = []
    for j, name in enumerate(vectors):
        attribute, effect = effects.strongest(j)
        rows.append((name, float(values[j]), attribute, effect, sweep.readings.identity(sweep.row(j, largest))))
    columns = ("direction", "singular value", "strongest attribute", "effect", "identity")
    table = Table(columns, tuple(rows), f"At {at}{norm}; effects by the judge, in sd.")
    # Every direction is one vector, the same at all steps.
    spaces = directions.directions[:, 0].flatten(1).unflatten(0, (len(steps), DIRECTIONS))
    cosines = [float(principal_angles(a, b)[0].deg2rad().cos()) for a, b in pairwise(spaces)]
    conclusion = (
        f"Between neighbours of the steps {', '.join(map(str, steps))} the spans of the {DIRECTIONS} directions meet "
        f"at a largest cosine of {', '.join(map(format_number, cosines))}; the mean |effect| of the strongest "
        f"attribute is {format_number(sum(abs(row[3]) for row in rows) / len(rows))} sd at {at}."
    )
    figures = {
        "One other sample along the directions of each step": sweep.strip(
            "Dominant directions by step", lab.figures / "steps.png"
        ),
        f"Effects at {at}": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    findings = {
        "steps": list(steps),
        "singular_values": values,
        "cosines": cosines,
        "effects": effects.to_dict(),
    }
    return Result(conclusion, findings, figures, {"steps": table}, {"scores": sweep.readings.table()})


def _steps(count: int) -> tuple[int, ...]:
    """Step indices at a tenth, a third, two thirds and nine tenths of the way."""
    return tuple(sorted({int(share * count) for share in (0.1, 0.34, 0.67, 0.9)}))
