"""Fig. 4: random directions of the components' norms hardly change the image, and degrade it when they are larger."""

from hspace.directions.random import random
from hspace.evaluation.readings import Sweep
from hspace.metrics.interval import Interval, mean_interval
from hspace.output.charts import curve_figure
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, axis, stated
from hspace.runs.lab import Lab
from hspace.runs.report import Result


def run(lab: Lab) -> Result:
    """Total effect and identity of principal components and of random directions, by strength."""
    components = lab.components()
    kinds = {"components": components, "random": random(components, seed=lab.cfg.seed)}
    sweeps = {
        kind: lab.sweep({f"{kind} {j}": vector for j, vector in enumerate(as_configured(lab, found).directions)})
        for kind, found in kinds.items()
    }
    rows = []
    for strength in sorted(lab.strengths):
        cells = [reading for sweep in sweeps.values() for reading in _read(sweep, strength)]
        rows.append((strength, *cells))
    columns = (
        "strength",
        "components: total effect",
        "components: identity",
        "random: total effect",
        "random: identity",
    )
    table = Table(
        columns, tuple(rows), "Sum of |effect| over the judged attributes whose effect is 1.25 standard errors or more "
        "from 0, in sd, without an interval, where an attribute that fewer than ten samples show counts as much as the "
        "others do on average, and cosine of identities with its 95% interval over samples; means over directions.",
    )  # fmt: skip
    curves = {
        kind: list(map(list, zip(*sorted([(0.0, 0.0), *((row[0], row[1 + 2 * i]) for row in rows)]), strict=True)))
        for i, kind in enumerate(kinds)
    }
    last = rows[-1]
    less = "no more than noise" if last[3] == 0 else f"{format_number(last[1] / last[3])} times less"
    norm = " of the same norm" if lab.cfg.edit.effects is None else ""
    conclusion = (
        f"At {stated(lab, last[0], 'sd')} a component moves the judged attributes by {format_number(last[1])} sd in "
        f"all and a random direction{norm} by {format_number(last[3])} sd ({less})."
    )
    figures = {
        "Total effect by strength": curve_figure(
            curves, lab.figures / "effects.png", x_label=axis(lab, "sd"), y_label="sum of |effect| (sd)"
        )
    }
    for kind, sweep in sweeps.items():
        figures[f"One sample along {kind}"] = sweep.strip(kind.capitalize(), lab.figures / f"{kind}.png")
    findings = {
        "strengths": sorted(lab.strengths),
        "rows": [row[1:] for row in rows],
    }
    samples = {kind: sweep.readings.table() for kind, sweep in sweeps.items()}
    return Result(conclusion, findings, figures, {"random": table}, samples)


def _read(sweep: Sweep, strength: float) -> tuple[float, Interval]:
    """Total effect and identity at one strength, means over directions, the latter's interval over samples."""
    rows = sweep.at(strength)
    totals = sweep.readings.effects().rows(rows).total()
    return float(totals.mean()), mean_interval(sweep.readings.cosine[rows].mean(0).numpy(), -1.0, 1.0)
