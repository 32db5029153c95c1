"""One run: discover directions, name them, edit samples, judge the edits, and report.

Every stage is cached by the hash of what it depends on, so that a sweep over strengths discovers once. Names are chosen
by the annotator on calibration seeds; the judge reads evaluation seeds, once.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.latents import check_disjoint, seed_range
from hspace.directions.record import Directions
from hspace.evaluation.effects import Evaluation
from hspace.experiments import registry
from hspace.runs import report
from hspace.runs.config import SCORERS, Config, config_sha256
from hspace.runs.discovery import discover
from hspace.runs.judging import edits_of, judge, name
from hspace.runs.lab import Lab
from hspace.runs.memory import fitted
from hspace.runs.parsing import check_attributes
from hspace.runs.tracking import Run, track
from hspace.scorers.factory import NOT_INDEPENDENT, load_identity, load_regions, load_scorer, place, same_network
from hspace.system import distributed
from hspace.system.shards import watched
from hspace.types import InputError, Scorer

log = logging.getLogger(__name__)

REFERENCE_SAMPLES = 128
"""Unedited samples whose spread is the unit of effects."""
LARGEST_PORTRAIT = 64
"""Height of the largest images that the embedded scorers can be meant for; they read 32 x 32."""


class Stopwatch:
    """Seconds that each stage took, in the order they ran; their progress goes to the tracked run."""

    def __init__(self, tracker: Run) -> None:
        self.seconds: dict[str, float] = {}
        self._tracker = tracker

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block and says that it began."""
        log.info("%s …", name)
        started, key = time.perf_counter(), name.partition(":")[0]
        with watched(lambda done, n: self._tracker.log_progress(key, done, n)):
            yield
        self._tracker.log_progress(key, 1, 1)
        self.seconds[name] = round(time.perf_counter() - started, 3)


def run(cfg: Config) -> Path:
    """Runs one configuration.

    Args:
        cfg: A parsed configuration.

    Returns:
        The path of the figure; tables, directions, run.json and the W&B run lie in the same output folder. Of several
        processes only the first writes them, and the others return the folder.

    Raises:
        InputError: If the configuration does not fit the model or the scorers.
    """
    annotator, scorer = load_scorer(cfg.evaluation.annotator), load_scorer(cfg.evaluation.judge)
    identity = load_identity(cfg.evaluation.identity)
    attributes = shared_attributes(annotator, scorer)
    check_attributes(cfg, attributes)
    # Not a stage that is announced: a model that cannot be loaded is one line of error, and nothing before it.
    model = load_model(
        cfg.model.path, tap=cfg.model.tap, num_steps=cfg.diffusion.num_steps, spacing=cfg.diffusion.spacing,
        device=cfg.device, dtype=cfg.dtype, prompt=cfg.model.prompt or "", guidance=cfg.model.guidance,
    )  # fmt: skip
    cfg = fitted(cfg, model)
    given = Directions.load(cfg.method.path) if cfg.method.path else None
    if given is not None:
        given.check(model)
    judge_name = judge_of(cfg, annotator, scorer, given)
    if scorer.id in SCORERS and model.image_shape[1] > LARGEST_PORTRAIT:
        log.warning("%s reads small portraits, which these images are not: set evaluation=clip", scorer.id)
    for network in (annotator, scorer, identity):
        place(network, model.device)
    if cfg.procedure != "edit":
        return _study(Lab(cfg, model, annotator, scorer, identity, load_regions(cfg.evaluation.regions)))
    with claim(cfg), track(cfg) as tracker:
        watch = Stopwatch(tracker)
        if cfg.method.path:
            tracker.use_files("directions", "directions", [cfg.method.path])
        with watch.stage(f"discover: {cfg.method.name}"):
            directions = discover(cfg, model, annotator)
        seeds = {
            "discovery": directions.meta.seeds,
            "calibration": seed_range("calibration", REFERENCE_SAMPLES),
            "evaluation": seed_range("evaluation", max(REFERENCE_SAMPLES, cfg.evaluation.num_samples)),
        }
        check_disjoint(**seeds)
        with watch.stage("name the directions"):
            directions, targets = name(cfg, model, directions, annotator, attributes, seeds["calibration"])
        with watch.stage("edit"):
            edits = edits_of(cfg, model, directions, seeds["evaluation"])
        with watch.stage("judge"):
            judged = judge(cfg, model, directions, edits, scorer, identity, targets)
            judged = replace(judged, scorer=judge_name)
        if distributed.rank() > 0:
            return cfg.output_dir
        with watch.stage("report"):
            written = report.write(cfg, model, directions, edits, judged, seeds, watch.seconds)
        _track(tracker, cfg, judged, written)
    return written.figure


def _study(lab: Lab) -> Path:
    """Runs an experiment of the paper, unless its record is there already."""
    cfg = lab.cfg
    if distributed.world() > 1:
        raise InputError(f"procedure={cfg.procedure} runs in one process: start it without torchrun")
    if registry.is_current(cfg, lab.model):
        log.info("%s: reused from %s", cfg.procedure, cfg.output_dir)
        return registry.record_path(cfg)
    with claim(cfg), track(cfg) as tracker:
        log.info("%s …", cfg.procedure)
        result, record = registry.run(lab)
        tracker.summary({"conclusion": result.conclusion, "seconds": record["seconds"]})
        for path in result.figures.values():
            tracker.log_image(path.stem, path)
        for label, table in result.tables.items():
            tracker.log_table(label, table)
        tracker.log_artifact(f"study-{cfg.procedure}", "study", [registry.record_path(cfg), *result.figures.values()])
    return registry.record_path(cfg)


def shared_attributes(annotator: Scorer, judge: Scorer) -> tuple[str, ...]:
    """The annotator's attributes that the judge reads too: what directions can be found for, or named by.

    Raises:
        InputError: If there is none.
    """
    shared = tuple(name for name in annotator.attributes if name in judge.attributes)
    if not shared:
        names = [", ".join(each.attributes[:8]) for each in (annotator, judge)]
        raise InputError(f"the annotator reads {names[0]}, the judge {names[1]}: they have no attribute in common")
    return shared


def judge_of(cfg: Config, annotator: Scorer, judge: Scorer, given: Directions | None) -> str:
    """What to call the judge in tables: its id, with a mark where it also chose what it judges.

    Args:
        cfg: A parsed configuration.
        annotator: Chooses examples and names.
        judge: Reads the edits.
        given: Directions that were found before, which record who annotated for them.

    Raises:
        InputError: If it did, and that was not allowed.
    """
    annotated = given is not None and given.meta.annotator == judge.id
    if not annotated and not same_network(annotator, judge):
        return judge.id
    if not cfg.evaluation.allow_same_scorer:
        raise InputError(
            f"evaluation.judge is {judge.id}, which annotated for these directions and would grade its own choices: "
            "name another, or set evaluation.allow_same_scorer=true"
        )
    return f"{judge.id} ({NOT_INDEPENDENT})"


@contextmanager
def claim(cfg: Config) -> Iterator[None]:
    """Has the output folder to itself, so that no two runs mix their results.

    Raises:
        InputError: If another run writes there, or it holds the finished results of another configuration.
        OSError: If the folder cannot be made.
    """
    if distributed.rank() > 0:
        yield
        return
    out = cfg.output_dir
    try:
        finished = json.loads((out / "run.json").read_text(encoding="utf-8"))["config_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        finished = None
    if finished not in (None, config_sha256(cfg)):
        raise InputError(f"{out} holds the results of another configuration: set another output_dir, or move them away")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".run.lock", blocking=False):
            yield
    except Timeout:
        raise InputError(f"another run is writing into {out}: wait for it, or set another output_dir") from None


def _track(tracker: Run, cfg: Config, judged: Evaluation, written: report.Written) -> None:
    """Metrics by strength, the summary, figures, tables and directions into the W&B run."""
    tracker.define_axis("strength", "effect", "accuracy", "identity")
    for i in sorted(range(len(judged.strengths)), key=judged.strengths.__getitem__):
        tracker.log_metrics({"strength": judged.strengths[i], **report.figures_at(judged, i)})
    tracker.summary(report.summary(judged))
    for path in written.figures:
        tracker.log_image(path.stem, path)
    for label, table in written.tables.items():
        tracker.log_table(label, table)
    tracker.log_artifact(f"directions-{cfg.name}", "directions", [written.directions])
    tracker.log_artifact(f"samples-{cfg.name}", "samples", written.figures)
    tables = sorted(cfg.output_dir.glob("tables/*"))
    tracker.log_artifact(f"report-{cfg.name}", "report", [written.record, *written.figures, *tables])
