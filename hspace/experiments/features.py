"""Features of a sparse autoencoder of h beside principal components, at the same number of active ones."""

from typing import Any

from hspace.directions.sae import SaeSettings, parted
from hspace.output.charts import curve_grid
from hspace.output.tables import Cell, Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.types import InputError

ACTIVE = (5, 10, 20)
"""Features that a position may use, and principal components beside them."""
COLUMNS = {
    "features a position uses": "active",
    "explained variance": "explained_variance",
    "by components": "explained_variance_by_components",
    "dead": "dead",
    "named": "named",
    "named components": "named_by_components",
}
"""Columns of the table, by what a file's report calls them."""


def run(lab: Lab) -> Result:
    """Learns an autoencoder for each number of active features, and compares it with as many components.

    Raises:
        InputError: If another method is configured than `sae`, or it takes no names.
    """
    settings = lab.cfg.method
    if not isinstance(settings, SaeSettings) or not settings.named:
        raise InputError(f"procedure={lab.cfg.procedure} takes its numbers from method=sae with method.named=true")
    given = settings.model_dump()
    reports = {active: lab.discover(**{**given, "active": active}).meta.report for active in ACTIVE}
    kept, held = map(len, parted(settings.num_samples))
    rows: list[tuple[Cell, ...]] = [
        (active, *(float(report[name]) for name in COLUMNS.values())) for active, report in reports.items()
    ]
    caption = (
        f"A sparse autoencoder of the positions of h, learnt on {kept} samples at all steps, beside as many principal "
        f"components of positions as a position may use features. Explained: share of the variance of {held} held-out "
        "samples; dead: share of the features that these never use; named: share of the features in use, and of the "
        "components, whose mean over a sample correlates with an attribute's score, significantly among all features, "
        f"or components, and attributes, over all {held + kept} samples. One autoencoder each, without intervals"
    )
    table = Table(("active", *COLUMNS), tuple(rows), caption, f"{lab.annotator.id}, the annotator")
    path = curve_grid(
        _curves(reports, lab.model.model_id), lab.figures / "features.png", x_label="active features, or components"
    )
    return Result(
        _conclusion(reports), {"reports": {str(active): report for active, report in reports.items()}},
        {"Features of an autoencoder beside principal components": path}, {"features": table},
    )  # fmt: skip


def _curves(reports: dict[int, dict[str, Any]], model: str) -> dict[str, dict[str, dict[str, list[list[float]]]]]:
    """Panels of what is explained and named, by features and by components."""
    panels = {
        "explained variance": ("explained_variance", "explained_variance_by_components"),
        "named (share)": ("named", "named_by_components"),
    }
    x = [float(active) for active in reports]
    return {
        title: {
            model: {
                label: [x, [float(report[name]) for report in reports.values()]]
                for label, name in zip(("features", "components"), names, strict=True)
            }
        }
        for title, names in panels.items()
    }


def _conclusion(reports: dict[int, dict[str, Any]]) -> str:
    """What the middle number of active features gives."""
    active = ACTIVE[len(ACTIVE) // 2]
    shares = {name: format_number(float(reports[active][name])) for name in COLUMNS.values()}
    return (
        f"With {active} active features an autoencoder explains {shares['explained_variance']} of the variance of "
        f"held-out samples, and {active} principal components {shares['explained_variance_by_components']}; "
        f"{shares['dead']} of the features are dead, and {shares['named']} of those in use have a name "
        f"({shares['named_by_components']} of the components), with no interval."
    )
