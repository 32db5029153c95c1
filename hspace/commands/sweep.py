"""Sweeps: all combinations of values, by Hydra's own sweeper and launcher, so that its plugins work.

A sweep's folder depends on its command, and a job's folder on the job's configuration. Therefore the same command skips
finished jobs and runs the others.
"""

import dataclasses
import hashlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from hspace.commands.run import run
from hspace.output.tables import write_table
from hspace.runs.collecting import collected_tables, read_folders
from hspace.runs.config import Config, to_dict
from hspace.runs.errors import EXPECTED, explain, hydra_in_one_line
from hspace.runs.parsing import parse
from hspace.runs.report import RECORD
from hspace.runs.stopwatch import duration
from hspace.system.files import read_json
from hspace.system.stopping import stopping
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

LOCK = ".sweep.lock"
"""File in a sweep's folder while a process runs the sweep."""
JOBS, LEVEL = "HSPACE_SWEEP_JOBS", "HSPACE_SWEEP_LEVEL"
"""Variables of the environment that tell a job, in whatever process, the number of jobs and the level of the log."""
_TOOK: list[float] = []
"""Seconds of the jobs of this sweep that have ended well in this process."""


def sweep(overrides: Sequence[str]) -> int:
    """Runs every combination of values that is not finished yet, inside an initialised Hydra.

    A job that fails stops no other and is named at the end. The figures of all are written to collected.csv and
    collected.md in the sweep's folder, and their means over seeds, if there are several, to collected_seeds.csv and
    collected_seeds.md.

    Args:
        overrides: Words of the command line.

    Returns:
        The exit code: 1 if a job failed.

    Raises:
        InputError: If the jobs would share one folder, or a worker process of the launcher died.
    """
    if any(word.startswith("output_dir=") for word in overrides):
        raise InputError("output_dir cannot be set for a sweep, whose jobs need one each: set hydra.sweep.dir=FOLDER")
    overrides = [f"hydra.sweep.dir=outputs/sweeps/{_sweep_name(overrides)}", *overrides]
    hydra: Any = GlobalHydra.instance().hydra
    _TOOK.clear()
    with _alone(overrides), hydra_in_one_line():
        told = [f"+hydra.job.env_set.{name}={value}" for name, value in _told(overrides, hydra.config_loader).items()]
        try:
            batches = hydra.multirun("config", job, [*overrides, *told], with_log_configuration=False)
        except BrokenExecutor as error:
            raise InputError("a worker process died, for lack of memory perhaps; the same command continues") from error
    outcomes = [done.return_value for batch in batches or [] for done in batch]
    failed = [outcome for outcome in outcomes if outcome["error"]]
    folders = dict.fromkeys(Path(outcome["folder"]) for outcome in outcomes if not outcome["error"])
    if folders:
        for name, table in collected_tables(read_folders(folders)).items():
            print(*write_table(table, next(iter(folders)).parent / name), sep="\n")
    if failed:
        print(f"hspace: {len(failed)} of {len(outcomes)} jobs failed:", file=sys.stderr)
        for outcome in failed:
            print(f"  {' '.join(outcome['overrides'])}: {outcome['error']}", file=sys.stderr)
    return int(bool(failed))


def job(cfg: DictConfig) -> dict[str, Any]:
    """Runs one job, in the process that the launcher chose.

    Returns:
        Its `overrides`, its `folder` and its `error`, which is None without one: plain values, which any launcher
        brings back.
    """
    hydra = HydraConfig.get()
    outcome: dict[str, Any] = {"overrides": OmegaConf.to_container(hydra.overrides.task), "folder": None, "error": None}
    if not logging.getLogger().handlers:  # in a process that a launcher started
        logging.basicConfig(format="%(message)s")
        logging.getLogger("hspace").setLevel(int(os.environ.get(LEVEL, logging.INFO)))
    one_by_one = hydra.runtime.choices["hydra/launcher"] == "basic"
    longest = max(_TOOK, default=0.0) if one_by_one else 0.0
    log.info("%s", _begins(hydra.job.num, outcome["overrides"], os.environ.get(JOBS), longest))
    with stopping():
        try:
            config = _job_config(cfg, Path(hydra.sweep.dir))
            outcome["folder"] = str(config.output_dir)
            started = time.perf_counter()
            # The record of a run says whether it is finished, for these files and these stages.
            print(run(config))
            # What was finished before says how long it took then.
            _TOOK.append(max(time.perf_counter() - started, read_json(config.output_dir / RECORD)["seconds"]))
        except EXPECTED as error:
            outcome["error"] = explain(error)
        except Exception as error:
            traceback.print_exc()
            outcome["error"] = " ".join(f"{type(error).__name__}: {error}".split())
    return outcome


def _told(overrides: Sequence[str], loader: ConfigLoader) -> dict[str, str]:
    """The variables for the jobs; without their number where another sweeper than Hydra's own makes the jobs."""
    told = {LEVEL: str(logging.getLogger("hspace").getEffectiveLevel())}
    if any(word.lstrip("+").startswith("hydra/sweeper=") for word in overrides):
        return told
    # The loader knows what glob(*) stands for.
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    jobs = BasicSweeper.split_arguments(parsed, None)
    return told | {JOBS: str(len(jobs[0]))}


def _begins(number: int, overrides: Sequence[str], jobs: str | None, longest: float) -> str:
    """Such as "job 3/12, at most about 4 min 10 s left if the others take as long: method=pca seed=1".

    Args:
        number: Number of jobs before this one.
        overrides: The job's own words.
        jobs: Number of all jobs, if it is known.
        longest: Seconds of the longest job before this one; 0 where none has ended, or where jobs run at once.
    """
    words = " ".join(overrides)
    if jobs is None:
        return f"job {number + 1}: {words}"
    seconds = longest * (int(jobs) - number)
    left = f", at most about {duration(seconds)} left if the others take as long" if longest else ""
    return f"job {number + 1}/{jobs}{left}: {words}"


@contextmanager
def _alone(overrides: Sequence[str]) -> Iterator[None]:
    """Locks the sweep's folder.

    Raises:
        InputError: If another process runs a sweep in it.
        OSError: If the folder cannot be made.
    """
    root = [word.partition("=")[2] for word in overrides if word.startswith("hydra.sweep.dir=")][-1]
    if "${" in root:
        yield
        return
    folder = Path(root)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"another process runs the sweep in {root}: wait for it, or set hydra.sweep.dir") from None
    try:
        yield
    finally:
        # Windows does not remove a file that is open.
        lock.release()
        _leave_nothing(folder, made)


def _leave_nothing(folder: Path, made: Sequence[Path]) -> None:
    """Removes a folder in which no job began, and the folders that were made to hold it."""
    # Another sweep may have come meanwhile; an error here would hide what went wrong in this one.
    with suppress(OSError):
        if made and [path.name for path in folder.iterdir()] in ([], [LOCK]):
            (folder / LOCK).unlink(missing_ok=True)
            for each in made:
                each.rmdir()


def _sweep_name(overrides: Sequence[str]) -> str:
    """The name of a sweep, which is the same for the same jobs, whatever launches them."""
    told = sorted(word for word in overrides if not word.startswith("hydra"))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _job_config(cfg: DictConfig, root: Path) -> Config:
    """The configuration with the job's own folder, and the sweep as its group."""
    config = parse(cfg)
    told = {key: value for key, value in to_dict(config).items() if key not in ("output_dir", "cache_dir", "tracking")}
    sha256 = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    tracking = dataclasses.replace(config.tracking, group=config.tracking.group or root.name)
    return dataclasses.replace(config, output_dir=root / f"{config.name}-{sha256[:12]}", tracking=tracking)
