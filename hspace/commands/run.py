"""One run: loads what a configuration names, runs its experiment, keeps the record and tracks it."""

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.embedded import EMBEDDED, drawn_world
from hspace.directions.file import FileSettings
from hspace.directions.hub import local_path
from hspace.directions.metadata import annotated_by
from hspace.directions.method import get_method
from hspace.directions.operators import Found, load_found
from hspace.runs import report
from hspace.runs.config import Config, config_sha256
from hspace.runs.given import given_files
from hspace.runs.lab import Lab
from hspace.runs.memory import fitted
from hspace.runs.parsing import check_attributes
from hspace.runs.procedures import ANY_MODEL, EXPERIMENTS
from hspace.runs.readers import Role, refusal, warn_of
from hspace.runs.report import Result
from hspace.runs.stopwatch import Stopwatch, duration
from hspace.runs.tracking import Run, track
from hspace.scorers.factory import (
    load_identity,
    load_regions,
    load_scorer,
    place,
    same_network,
    told_name,
)
from hspace.scorers.identity import scorer_identity
from hspace.system import distributed, workers
from hspace.system.files import read_json
from hspace.types import InputError, Scorer

log: logging.Logger = logging.getLogger(__name__)

ROLES: tuple[Role, ...] = ("annotator", "judge", "identity", "likeness")
"""Networks that every run needs; regions are needed by a named mask alone."""


def run(cfg: Config) -> Path:
    """Runs the experiment of one configuration, unless its record already exists.

    Only the first of several processes writes results; the others work in a folder that is removed.

    Args:
        cfg: Parsed configuration.

    Returns:
        The path of the first figure; the others, tables, directions, run.json and the W&B run lie in the same folder.

    Raises:
        InputError: If the configuration does not fit the model or the scorers.
    """
    experiment = EXPERIMENTS.get(cfg.procedure)
    if isinstance(cfg.method, FileSettings):
        cfg = replace(cfg, method=cfg.method.model_copy(update={"path": local_path(cfg.method.path)}))
    lab = load(cfg)
    processes = workers.processes_for(cfg.workers, lab.model.device)
    record = distributed.from_first(report.current(lab))
    if record is not None:
        log.info("%s: reused from %s", cfg.procedure, cfg.output_dir)
        return _told(cfg, record)
    with _folder(lab.cfg) as out, track(cfg) as tracker:
        lab = replace(lab, cfg=replace(lab.cfg, output_dir=out), watch=Stopwatch(tracker.log_progress))
        for i, path in enumerate(given_files(lab.cfg, lab.model)):
            tracker.use_files("directions" if i == 0 else f"directions-{i + 1}", "directions", [path])
        # Before the experiment reads them: a file that changes meanwhile is not the one that results are of.
        started, key = time.perf_counter(), report.key_of(lab)
        with workers.sharing(processes):
            result = experiment(lab)
        if lab.judge_name != lab.judge.id:
            result = report.marked(result, lab.judge_name)
        facts = report.facts_of(lab, result, time.perf_counter() - started)
        record = report.write(lab.cfg, result, key=key, judge=lab.judge_name, facts=facts)
        if distributed.rank() == 0:
            _track(tracker, lab.cfg, result, record)
    first = _told(cfg, record)
    log.info("done in %s; figures, tables and run.json are in %s", duration(record["seconds"]), cfg.output_dir)
    return first


def load(cfg: Config) -> Lab:
    """The model and the networks that a configuration names.

    Raises:
        InputError: If they do not fit together.
    """
    check_scorers(cfg)
    check_beside(cfg)
    annotator, judge = load_scorer(cfg.evaluation.annotator), load_scorer(cfg.evaluation.judge)
    identity = load_identity(cfg.evaluation.identity)
    likeness = None if cfg.evaluation.likeness is None else load_identity(cfg.evaluation.likeness)
    check_attributes(cfg, shared_attributes(annotator, judge))
    # This stage is not announced, so that a model that cannot be loaded gives one line of error and nothing before it.
    model = load_model(
        cfg.model.path, tap=cfg.model.tap, num_steps=cfg.diffusion.num_steps, spacing=cfg.diffusion.spacing,
        device=cfg.device, dtype=cfg.dtype, prompt=cfg.model.prompt or "", guidance=cfg.model.guidance,
        revision=cfg.model.revision, family=cfg.model.family,
    )  # fmt: skip
    cfg = fitted(cfg, model)
    given = [load_found(path) for path in given_files(cfg, model)]
    for found in given:
        found.fit(model, eta=cfg.diffusion.eta, allow=cfg.allow)
    judge_name = judge_of(cfg, annotator, judge, given)
    warn_of(judge_name, model)
    if cfg.seed and not get_method(cfg.method.name).seeded:
        log.warning("method=%s has no seed: its directions are those of seed=0", cfg.method.name)
    for network in (annotator, judge, identity, *([likeness] if likeness else [])):
        place(network, model.device)
    return Lab(cfg, model, annotator, judge, identity, likeness, load_regions(cfg.evaluation.regions), judge_name)


def check_scorers(cfg: Config) -> None:
    """Checks that the networks of a drawn world are not used for a model of another one, or of photographs.

    Raises:
        InputError: If they are, and the experiment needs scores.
    """
    for role in ROLES if cfg.procedure not in ANY_MODEL else ():
        if why := refusal(cfg, role):
            raise InputError(why)


def check_beside(cfg: Config) -> None:
    """Checks that further models are there, before any work.

    Raises:
        InputError: If one is not.
    """
    for folder in cfg.study.beside:
        if str(folder) not in EMBEDDED and not (folder.expanduser() / "model_index.json").is_file():
            raise InputError(
                f"study.beside: {folder} holds no model: python scripts/making/train_transformer.py "
                "autoencoder=hspace/weights/portraits/ldm/vqvae trains a transformer of the portraits"
            )


def shared_attributes(annotator: Scorer, judge: Scorer) -> tuple[str, ...]:
    """The annotator's attributes that the judge also reads, for which directions can be found or named.

    Raises:
        InputError: If there is none.
    """
    shared = tuple(name for name in annotator.attributes if name in judge.attributes)
    if not shared:
        names = [", ".join(each.attributes[:8]) for each in (annotator, judge)]
        raise InputError(f"the annotator reads {names[0]}, the judge {names[1]}: they have no attribute in common")
    return shared


def judge_of(cfg: Config, annotator: Scorer, judge: Scorer, given: Sequence[Found]) -> str:
    """The name of the judge in tables: its id, with a remark on its grades where one is needed.

    Args:
        cfg: Parsed configuration.
        annotator: Scorer that chooses examples and names.
        judge: Scorer that reads the edits.
        given: Directions and operators that were found before, which record the scorer that annotated for them.

    Raises:
        InputError: If the judge annotated for them, and the configuration does not allow that.
    """
    annotated = any(annotated_by(found.meta, scorer_identity(judge)) for found in given)
    same = annotated or same_network(annotator, judge)
    if same and not cfg.evaluation.allow_same_scorer:
        raise InputError(
            f"evaluation.judge is {judge.id}, which annotated for these directions and would grade its own choices: "
            "name another, or set evaluation.allow_same_scorer=true"
        )
    return told_name(judge, annotated=same, world=drawn_world(cfg.model.path))


@contextmanager
def _folder(cfg: Config) -> Iterator[Path]:
    """The folder for results: the output folder, locked, for the first process, and a temporary one for the others.

    Raises:
        InputError: If another run writes there, or it holds the finished results of another configuration.
        OSError: If the folder cannot be made.
    """
    if distributed.rank() > 0:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    out = cfg.output_dir
    try:
        finished = read_json(out / report.RECORD)["config_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        finished = None
    if finished not in (None, config_sha256(cfg)):
        raise InputError(f"{out} holds the results of another configuration: set another output_dir, or move them away")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".run.lock", blocking=False):
            yield out
    except Timeout:
        raise InputError(f"another run is writing into {out}: wait for it, or set another output_dir") from None


def _told(cfg: Config, record: Mapping[str, Any]) -> Path:
    """Says what came out; what to look at first, which is the record where nothing was drawn."""
    for line in record.get("lines") or [record["conclusion"]]:
        log.info("%s", line)
    return cfg.output_dir / next(iter(record["figures"].values()), report.RECORD)


def _track(tracker: Run, cfg: Config, result: Result, record: Mapping[str, Any]) -> None:
    """Logs curves, the summary, figures, tables and files to the W&B run."""
    out = cfg.output_dir
    tracker.define_axis("strength", *dict.fromkeys(key.partition("/")[0] for point in result.curves for key in point))
    for point in result.curves:
        tracker.log_metrics(point)
    facts = {"conclusion": result.conclusion, "seconds": record["seconds"]}
    tracker.summary(facts | report.numbers(result.findings))
    for path in result.figures.values():
        tracker.log_image(path.stem, path)
    for label, table in result.tables.items():
        tracker.log_table(label, table)
    if result.directions:
        files = [out / f"{name}.safetensors" for name in result.directions]
        tracker.log_artifact(f"directions-{cfg.name}", "directions", files)
    figures = list(result.figures.values())
    if figures:
        tracker.log_artifact(f"samples-{cfg.name}", "samples", figures)
    tables = sorted(out.glob("tables/*"))
    tracker.log_artifact(f"report-{cfg.name}", "report", [out / report.RECORD, *figures, *tables])
