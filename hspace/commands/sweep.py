"""A sweep: every combination of values by Hydra's own sweeper and launcher, so that its plugins work.

A sweep's folder follows from its command and a job's from the job's configuration, so that the same command skips what
is finished and goes on with the rest.
"""

import dataclasses
import hashlib
import json
import logging
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hspace.commands.run import run
from hspace.output.tables import write_table
from hspace.runs.collecting import collected_table, read_folders
from hspace.runs.config import Config, to_dict
from hspace.runs.errors import EXPECTED, explain
from hspace.runs.parsing import parse
from hspace.system.files import write_json
from hspace.system.stopping import stopping
from hspace.types import InputError

log = logging.getLogger(__name__)

DONE = "job.json"
"""In the folder of a job that is finished; written last."""


def sweep(overrides: Sequence[str]) -> int:
    """Runs every combination of values that is not finished yet, inside an initialised Hydra.

    A job that fails stops no other and is named at the end. The figures of all are written to collected.csv and
    collected.md in the sweep's folder.

    Args:
        overrides: What the command line said.

    Returns:
        The exit code: 1 if a job failed.

    Raises:
        InputError: If the jobs would share one folder, or a worker process of the launcher died.
    """
    if any(word.startswith("output_dir=") for word in overrides):
        raise InputError("output_dir cannot be set for a sweep, whose jobs need one each: set hydra.sweep.dir=FOLDER")
    overrides = [f"hydra.sweep.dir=outputs/sweeps/{_sweep_name(overrides)}", *overrides]
    hydra: Any = GlobalHydra.instance().hydra
    try:
        batches = hydra.multirun("config", job, overrides, with_log_configuration=False)
    except BrokenExecutor as error:
        raise InputError("a worker process died, perhaps of too little memory; the same command goes on") from error
    outcomes = [done.return_value for batch in batches or [] for done in batch]
    failed = [outcome for outcome in outcomes if outcome["error"]]
    folders = dict.fromkeys(Path(outcome["folder"]) for outcome in outcomes if not outcome["error"])
    if folders:
        print(*write_table(collected_table(read_folders(folders)), next(iter(folders)).parent / "collected"), sep="\n")
    if failed:
        print(f"hspace: {len(failed)} of {len(outcomes)} jobs failed:", file=sys.stderr)
        for outcome in failed:
            print(f"  {' '.join(outcome['overrides'])}: {outcome['error']}", file=sys.stderr)
    return int(bool(failed))


def job(cfg: DictConfig) -> dict[str, Any]:
    """Runs one job, in whatever process the launcher gave it.

    Returns:
        Its `overrides`, its `folder`, and what went wrong, or None, as `error`: plain values, which any launcher brings
        back.
    """
    hydra = HydraConfig.get()
    outcome: dict[str, Any] = {"overrides": OmegaConf.to_container(hydra.overrides.task), "folder": None, "error": None}
    with stopping():
        try:
            config = _job_config(cfg, Path(hydra.sweep.dir))
            outcome["folder"] = str(config.output_dir)
            if (config.output_dir / DONE).exists():
                log.info("%s: finished before", config.output_dir)
            else:
                print(run(config))
                write_json(config.output_dir / DONE, outcome)
        except EXPECTED as error:
            outcome["error"] = explain(error)
        except Exception as error:
            traceback.print_exc()
            outcome["error"] = " ".join(f"{type(error).__name__}: {error}".split())
    return outcome


def _sweep_name(overrides: Sequence[str]) -> str:
    """The same for the same jobs, whatever launches them."""
    told = sorted(word for word in overrides if not word.startswith("hydra"))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _job_config(cfg: DictConfig, root: Path) -> Config:
    """The configuration with the job's own folder, and the sweep as its group."""
    config = parse(cfg)
    told = {key: value for key, value in to_dict(config).items() if key not in ("output_dir", "cache_dir", "tracking")}
    sha256 = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    tracking = dataclasses.replace(config.tracking, group=config.tracking.group or root.name)
    return dataclasses.replace(config, output_dir=root / f"{config.name}-{sha256[:12]}", tracking=tracking)
