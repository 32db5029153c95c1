"""The sweep that W&B steers asks `hspace` for runs that there are, for a figure that they log."""

import itertools
from pathlib import Path

import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from hspace.cli import _compose
from hspace.runs.parsing import parse

SWEEP = yaml.safe_load((Path(__file__).parents[2] / "scripts" / "sweep.yaml").read_text(encoding="utf-8"))


def test_every_combination_is_a_run_that_logs_the_figure_of_the_sweep() -> None:
    program, *words = SWEEP["command"]
    assert program == "hspace" and words.pop() == "${args_no_hyphens}"
    choices = [[(key, each) for each in value["values"]] for key, value in SWEEP["parameters"].items()]
    for chosen in itertools.product(*choices):
        asked = create_sweep_command_args({"args": {key: {"value": value} for key, value in chosen}})
        cfg = parse(_compose([*words, *asked["args_no_hyphens"]]))
        assert (cfg.method.name, cfg.seed, cfg.tracking.mode) == (*dict(chosen).values(), "online")
        assert SWEEP["metric"]["name"] in [f"mean/{name}" for name in cfg.evaluation.measures]
