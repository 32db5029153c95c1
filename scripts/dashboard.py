"""Builds the W&B workspace of a project, or a report: `python scripts/dashboard.py [--report] [--project NAME]`.

Publishes it where there is a key (`wandb login`), and writes its specification to --output where there is none. Needs
the extra `dashboard`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wandb

from hspace.runs.errors import guarded
from hspace.system.files import write_text
from hspace.types import InputError, one_line

try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.reports.v2 import interface as parts
except ModuleNotFoundError as error:
    print(f"hspace: error: {error}; pip install '.[dashboard]' brings it", file=sys.stderr)
    sys.exit(2)

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


def publish(build: Callable[[str, str], ws.Workspace | parts.Report], entity: str | None, project: str) -> str:
    """Sends it to the server; where it is seen.

    Raises:
        InputError: If the server does not take it: most often the project of a report has no run yet.
    """
    owner = entity
    try:
        owner = entity or wandb.Api().default_entity or ""
        return build(owner, project).save().url
    # W&B's own errors, those of its settings, and whatever an odd answer of a server breaks in W&B.
    except Exception as error:
        raise InputError(f"W&B project {owner}/{project}: {one_line(error)}") from error


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
        print(publish(build, options.entity, options.project))
    else:
        output = options.output or Path("outputs") / f"{kind}.json"
        # The one way to the JSON without a server, though its name says that it may change.
        specification = build(options.entity or "", options.project)._to_model()
        write_text(output, specification.model_dump_json(by_alias=True, indent=2) + "\n")
        print(f"no W&B key (`wandb login` stores one): the {kind} is in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
