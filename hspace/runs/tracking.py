"""Weights & Biases: one tracked run for each run of hspace, offline by default, whose faults never end the run.

The default needs no account, no network and no answer from a user. `wandb leet inspect --json OUTPUT_DIR/wandb` reads
back what an offline run wrote, and `wandb sync` sends it later.
"""

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lazy_loader
import psutil
import torch

from hspace.output.tables import Table
from hspace.runs.collecting import Record
from hspace.runs.config import Config, config_sha256, to_dict
from hspace.system import distributed
from hspace.system.files import sha256_file
from hspace.system.stopping import Stopped
from hspace.types import InputError, one_line

if TYPE_CHECKING:
    import wandb
    import wandb.errors
else:
    wandb = lazy_loader.load("wandb")  # a second of imports, which a run without tracking does not need

log: logging.Logger = logging.getLogger(__name__)

SWEPT = {"WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"}
"""Variables of the environment under which W&B writes a sweep's own values over keys of the configuration."""
ONLINE_TIMEOUT = 30
"""Seconds to wait for the server before the run goes on offline."""
FINISH_TIMEOUT = 600
"""Seconds to wait at the end of a run until the server has all of it; `wandb sync` sends the rest."""


class Run:
    """A tracked run; in mode `disabled` every method does nothing.

    If W&B fails, for whatever reason, the run says once that tracking stopped, and does nothing from then on.
    """

    def __init__(self, run: "wandb.Run | None") -> None:
        """Takes over a run of W&B; None tracks nothing."""
        self._run = run
        self._started = time.perf_counter()
        self.define_axis("progress/seconds", "progress", "memory")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers as a point of their curves; steps must not decrease."""
        self._ask(lambda run: run.log(dict(metrics), step=step))

    def define_axis(self, axis: str, *prefixes: str) -> None:
        """Draws every metric `prefix/...` over the metric `axis`, not over the number of the call."""
        self._ask(lambda run: run.define_metric(axis, hidden=True))
        for prefix in prefixes:
            self._ask(lambda run, prefix=prefix: run.define_metric(f"{prefix}/*", step_metric=axis))

    def log_progress(self, stage: str, done: int, n: int) -> None:
        """Logs how far a stage is, and the memory in use, over the seconds since the run began."""
        progress = {"progress/seconds": time.perf_counter() - self._started, f"progress/{stage}": done / n}
        self._ask(lambda run: run.log({**progress, **_memory()}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets the values, of JSON, that the overview of runs shows and sorts by."""
        self._ask(lambda run: run.summary.update(dict(values)))

    def log_table(self, name: str, table: Table) -> None:
        """Logs a table as `tables/<name>`; intervals become lists of value, low, high and n, and NaN becomes None."""
        rows = [[_plain(cell) for cell in row] for row in table.rows]
        columns: list[Any] = list(table.columns)
        self._ask(
            lambda run: run.log({f"tables/{name}": wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})
        )

    def log_image(self, name: str, path: Path) -> None:
        """Logs a copy of an image file as `figures/<name>`."""
        self._ask(lambda run: run.log({f"figures/{name}": wandb.Image(str(path))}))

    def use_files(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Records files that the run read: as an artifact that it used, and by their checksums in its configuration."""
        self._ask(lambda run: _use_files(run, name, kind, paths))

    def log_artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Logs files as a versioned artifact, and their paths and checksums in the run's configuration.

        An offline run cannot ask the server for an artifact: the configuration then says which files they were.

        Args:
            name: Name of letters, digits, dashes, underscores and dots.
            kind: Type of the artifact, such as `directions`.
            paths: Files, each added under its own name.
        """
        self._ask(lambda run: _log_artifact(run, name, kind, paths))

    def finish(self, exit_code: int = 0) -> None:
        """Ends the tracked run, and W&B's own process."""
        self._ask(lambda run: run.finish(exit_code=exit_code))
        if self._run is not None:
            self._run = None
            _forget()

    def _ask(self, action: "Callable[[wandb.Run], Any]") -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        # A dead process of W&B, a full disk, a server's odd answer: of any kind, and none of them ours.
        except Exception as error:
            self._run = None
            log.warning("tracking stopped, and the run goes on: %s", one_line(error))
            _forget()


def _plain(cell: Any) -> Any:
    """A cell of JSON's types alone: a browser reads no table that has NaN in it."""
    if isinstance(cell, tuple):
        return [_plain(each) for each in cell]
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _use_files(run: "wandb.Run", name: str, kind: str, paths: Sequence[Path]) -> None:
    if not run.offline:
        run.use_artifact(_artifact(name, kind, paths, {}))
    _note(run, "inputs", name, kind, paths)


def _log_artifact(run: "wandb.Run", name: str, kind: str, paths: Sequence[Path]) -> None:
    inputs = dict(run.config.get("inputs", {}))
    run.log_artifact(_artifact(name, kind, paths, {"producer": run.id, "inputs": inputs, "files": _files(paths)}))
    _note(run, "artifacts", name, kind, paths)


def _note(run: "wandb.Run", role: str, name: str, kind: str, paths: Sequence[Path]) -> None:
    known = run.config.get(role, {})
    facts = {"type": kind, "files": _files(paths)}
    run.config.update({role: {**known, name: facts}}, allow_val_change=True)


def _forget() -> None:
    """Ends W&B's own process now; if it had died, it would otherwise end this process with its own exit code."""
    with suppress(Exception, SystemExit):
        wandb.teardown()


@contextmanager
def _mute() -> Iterator[None]:
    """Silences the last words of W&B's own process, which is started in this block."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _artifact(name: str, kind: str, paths: Sequence[Path], metadata: dict[str, Any]) -> "wandb.Artifact":
    artifact = wandb.Artifact(name, kind, metadata=metadata)
    for path in paths:
        artifact.add_file(str(path))
    return artifact


def _files(paths: Sequence[Path]) -> dict[str, dict[str, str]]:
    return {path.name: {"path": str(path), "sha256": sha256_file(path)} for path in paths}


def _memory() -> dict[str, float]:
    """The memory that the process holds, and the most that the GPU has held for it so far, in GB."""
    held = {"memory/process_gb": psutil.Process().memory_info().rss / 1e9}
    return held | ({"memory/gpu_gb": torch.cuda.max_memory_allocated() / 1e9} if torch.cuda.is_available() else {})


@dataclass(frozen=True)
class RunSpec:
    """Settings with which a W&B run is opened.

    Attributes:
        id: Id of the run; the same id continues it later.
        name: Name for people.
        job_type: Kind of the run.
        config: Settings of the run, as JSON types.
        output_dir: Folder whose subfolder `wandb` takes all of W&B's files.
        mode: Mode, `offline`, `online` or `disabled`.
        project: W&B project.
        entity: W&B user or team; None is the login's own.
        group: Name shared by runs that belong together; None is the run's name.
        tags: Tags for people.
    """

    id: str
    name: str
    job_type: str
    config: dict[str, Any]
    output_dir: Path
    mode: Literal["online", "offline", "disabled"]
    project: str = "hspace"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


def track(cfg: Config) -> AbstractContextManager[Run]:
    """Opens the run that `cfg.tracking` asks for.

    Its id is a hash of the configuration and the output folder, so that a repetition continues the same run. Only the
    first of several processes is tracked.

    Args:
        cfg: A parsed configuration.
    """
    tracking = cfg.tracking
    return open_run(
        RunSpec(
            id=run_id(cfg), name=cfg.name, job_type=cfg.method.name, config=to_dict(cfg), output_dir=cfg.output_dir,
            mode=tracking.mode if distributed.rank() == 0 else "disabled", project=tracking.project,
            entity=tracking.entity, group=tracking.group, tags=tuple(tracking.tags),
        )
    )  # fmt: skip


@contextmanager
def open_run(spec: RunSpec) -> Iterator[Run]:
    """Opens a run, and marks it failed if the block raises.

    All of W&B's files go to `output_dir/wandb`, also the copies of artifacts that `wandb sync` needs later.

    Args:
        spec: Settings; mode `online` continues offline, with a warning, without a login or a server. If W&B cannot
            start at all, nothing is tracked.

    Yields:
        The run.
    """
    if spec.mode != "disabled":
        spec.output_dir.mkdir(parents=True, exist_ok=True)
    with _data_dir(spec.output_dir / "wandb"):
        run = Run(_start(spec))
        # Not W&B's own context manager, which prints a traceback of whatever passes through it.
        try:
            yield run
        except BaseException as error:
            run.finish(exit_code=error.code if isinstance(error, Stopped) else 1)
            raise
        run.finish()


def run_id(cfg: Config) -> str:
    """The id of the run: 16 hexadecimal digits."""
    return hashlib.sha256(f"{config_sha256(cfg)} {cfg.output_dir.resolve()}".encode()).hexdigest()[:16]


def read_project(name: str, api: Any = None) -> list[Record]:
    """The finished runs of a project on the server, for `collected_table`.

    Args:
        name: Name of the project, ENTITY/PROJECT, or ENTITY/PROJECT/GROUP for the runs of one group.
        api: Connection, a `wandb.Api`; None logs in with the stored key.

    Raises:
        InputError: If the name has another form, or the server cannot be asked.
    """
    parts = name.split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise InputError(f"a project is named ENTITY/PROJECT or ENTITY/PROJECT/GROUP, got {name!r}")
    entity, project, *group = parts
    filters = {"state": "finished"} | ({"group": group[0]} if group else {})
    try:
        with _mute():
            runs = (api or wandb.Api()).runs(f"{entity}/{project}", filters=filters)
            return [Record(run.name, dict(run.config), dict(run.summary)) for run in runs]
    # W&B's own errors, requests' errors, and whatever an odd answer of a server breaks in W&B.
    except Exception as error:
        raise InputError(f"W&B project {name}: {one_line(error)}") from error
    finally:
        _forget()


def _start(spec: RunSpec) -> "wandb.Run | None":
    if spec.mode == "disabled":
        return None
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # of W&B's own reports of errors
    if spec.mode == "online":
        try:
            with _mute():
                wandb.setup(settings=wandb.Settings(silent=True))
                if not wandb.login(prompt=False, verify=False):
                    raise wandb.errors.UsageError("no API key; `wandb login` stores one")
                return _init(spec)
        except Exception as error:
            log.warning("tracking goes on offline: %s", one_line(error))
            _forget()
            # Another id, since the server may know that of the run that could not start.
            spec = replace(spec, mode="offline", id=f"{spec.id}-offline")
    try:
        with _mute():
            return _init(spec)
    except Exception as error:
        log.warning("tracking stopped, and the run goes on: %s", one_line(error))
        _forget()
        return None


def _init(spec: RunSpec) -> "wandb.Run":
    return wandb.init(
        project=spec.project,
        entity=spec.entity,
        id=spec.id,
        name=spec.name,
        group=spec.group or spec.name,
        job_type=spec.job_type,
        tags=spec.tags,
        config=spec.config | ({"settings": spec.config} if SWEPT & os.environ.keys() else {}),
        dir=spec.output_dir,
        mode=spec.mode,
        resume="allow",
        reinit="finish_previous",
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=ONLINE_TIMEOUT,
            allow_val_change=True,
            finish_timeout=FINISH_TIMEOUT,
            finish_timeout_raises=True,
        ),
    )


@contextmanager
def _data_dir(path: Path) -> Iterator[None]:
    """Makes W&B stage artifacts in `path` instead of the home folder, unless the user named a place.

    W&B has no setting for it, only the environment variable.
    """
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(path.resolve())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]
