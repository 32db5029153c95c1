"""Builds the W&B workspace of a project: `python scripts/dashboard.py [--entity NAME] [--project NAME]`.

Publishes it where there is a key (`wandb login`), and writes its specification to --output where there is none. Needs
`pip install 'hspace[dashboard]'`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from hspace.runs.errors import guarded
from hspace.system.files import write_text

CURVES = 8
"""Directions that have a curve of their own."""


def workspace(entity: str, project: str) -> ws.Workspace:
    """Overall figures of the runs, curves over strength, figures, then progress and memory over time."""
    overall: list[Any] = [
        wr.BarPlot(title=name, metrics=[f"mean/{name}"]) for name in ("effect", "accuracy", "identity")
    ]
    curves: list[Any] = [
        wr.LinePlot(title=name, x="strength", y=[f"{name}/direction_{j}" for j in range(CURVES)])
        for name in ("accuracy", "identity")
    ]
    over_time: list[Any] = [
        wr.LinePlot(title=part, x="progress/seconds", metric_regex=f"^{part}/") for part in ("progress", "memory")
    ]
    sections = [
        ws.Section(name="Overall", panels=[*overall, wr.RunComparer()], is_open=True),
        ws.Section(name="Over strength", panels=curves, is_open=True),
        ws.Section(
            name="Figures",
            panels=[wr.MediaBrowser(media_keys=[f"figures/{name}" for name in ("directions", "effects", "samples")])],
        ),
        ws.Section(name="Progress and memory", panels=over_time),
    ]
    grouped = ws.RunsetSettings(groupby=[ws.Metric("Group")])
    return ws.Workspace(entity=entity, project=project, name="hspace", sections=sections, runset_settings=grouped)


def main() -> int:
    """Publishes or writes the workspace, and prints where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entity", help="W&B user or team; default: the login's own")
    parser.add_argument("--project", default="hspace", help="W&B project; default: hspace")
    parser.add_argument("--output", type=Path, default=Path("outputs/workspace.json"), metavar="FILE")
    options = parser.parse_args()
    if wandb.Settings().api_key or wandb.login(prompt=False, verify=False):
        entity = options.entity or wandb.Api().default_entity or ""
        print(workspace(entity, options.project).save().url)
    else:
        # The one way to a workspace's JSON without a server, though its name says that it may change.
        specification = workspace(options.entity or "", options.project)._to_model()
        write_text(options.output, specification.model_dump_json(by_alias=True, indent=2) + "\n")
        print(f"no W&B key (`wandb login` stores one): the specification is in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
