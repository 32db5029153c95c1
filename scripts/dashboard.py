"""Builds the W&B workspace of a project, or a report: `python scripts/dashboard.py [--report] [--project NAME]`.

Publishes it where there is a key (`wandb login`), and writes its specification to --output where there is none. Needs
`pip install wandb-workspaces`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces.reports.v2 import interface as parts

from hspace.runs.errors import guarded
from hspace.system.files import write_text

CURVES = 8
"""Directions that have a curve of their own."""
OPEN = ("Overall", "Over strength")
"""Sections of the workspace that are unfolded."""
READ = {
    "Overall": "Means over the directions of each run at its largest strength; the table compares runs side by side.",
    "Over strength": "Of each direction: the share of samples whose attribute flips, and how alike the person stays.",
    "Figures": "One sample edited along each direction; the effects in sd; samples as they are.",
    "Progress and memory": "How far each stage is, and what the process holds, over the seconds of the run.",
}
"""What a report says of its parts."""


def panels() -> dict[str, list[Any]]:
    """By title: overall figures of the runs side by side, curves over strength, pictures, progress and memory."""
    means = [wr.BarPlot(title=name, metrics=[f"mean/{name}"]) for name in ("effect", "accuracy", "identity")]
    curves = [
        wr.LinePlot(title=name, x="strength", y=[f"{name}/direction_{j}" for j in range(CURVES)])
        for name in ("accuracy", "identity")
    ]
    pictures = wr.MediaBrowser(media_keys=[f"figures/{name}" for name in ("directions", "effects", "samples")])
    over_time = [
        wr.LinePlot(title=part, x="progress/seconds", metric_regex=f"^{part}/") for part in ("progress", "memory")
    ]
    return {
        "Overall": [*means, wr.RunComparer()],
        "Over strength": [*curves],
        "Figures": [pictures],
        "Progress and memory": [*over_time],
    }


def workspace(entity: str, project: str) -> ws.Workspace:
    """The page on which one looks at all runs of a project."""
    sections = [ws.Section(name=title, panels=shown, is_open=title in OPEN) for title, shown in panels().items()]
    grouped = ws.RunsetSettings(groupby=[ws.Metric("Group")])
    return ws.Workspace(entity=entity, project=project, name="hspace", sections=sections, runset_settings=grouped)


def report(entity: str, project: str) -> parts.Report:
    """The same as a document to share, with a word on how each part is read."""
    blocks: list[Any] = [parts.TableOfContents()]
    for title, shown in panels().items():
        # Runs of no named entity are those of the report's own project, and no server is asked while it is built.
        place: dict[str, Any] = {"entity": entity, "project": project} if entity else {}
        grid = parts.PanelGrid(runsets=[parts.Runset(name="runs", **place)], panels=shown)
        blocks += [parts.H1(title), parts.P(READ[title]), grid]
    about = "Directions in the h-space of diffusion models, by run."
    return parts.Report(entity=entity, project=project, title="hspace: directions", description=about, blocks=blocks)


def main() -> int:
    """Publishes or writes the workspace or the report, and prints where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entity", help="W&B user or team; default: the login's own")
    parser.add_argument("--project", default="hspace", help="W&B project; default: hspace")
    parser.add_argument("--report", action="store_true", help="a report to share, in place of the workspace")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: outputs/workspace.json or report.json")
    options = parser.parse_args()
    kind, build = ("report", report) if options.report else ("workspace", workspace)
    if wandb.Settings().api_key or wandb.login(prompt=False, verify=False):
        entity = options.entity or wandb.Api().default_entity or ""
        print(build(entity, options.project).save().url)
    else:
        output = options.output or Path("outputs") / f"{kind}.json"
        # The one way to the JSON without a server, though its name says that it may change.
        specification = build(options.entity or "", options.project)._to_model()
        write_text(output, specification.model_dump_json(by_alias=True, indent=2) + "\n")
        print(f"no W&B key (`wandb login` stores one): the {kind} is in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
