"""One run: discover directions, name them, edit samples, judge the edits, and report.

Discovery is cached by the hash of what it depends on, so that a sweep over strengths discovers once. Names are chosen
by the annotator on calibration seeds; the judge reads evaluation seeds, once.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from hspace import report
from hspace.checkpoints import DiffusionModel, load_model
from hspace.config import Config, check_attributes
from hspace.directions.base import Directions
from hspace.discover import discover
from hspace.evaluation import Edits, Evaluation, edit_samples, evaluate, odd_effects
from hspace.latents import check_disjoint, seed_range
from hspace.metrics.effect import name_components
from hspace.scorers.portraits import load_identity, load_scorer
from hspace.tracking import Run, track
from hspace.types import Scorer

log = logging.getLogger(__name__)

NAMING_SAMPLES = 24
"""Calibration samples on which directions are named."""
REFERENCE_SAMPLES = 128
"""Unedited samples whose spread is the unit of effects."""


class Stopwatch:
    """Seconds that each stage took, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block and says that it began."""
        log.info("%s …", name)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def run(cfg: Config) -> Path:
    """Runs one configuration.

    Args:
        cfg: A parsed configuration.

    Returns:
        The path of the figure; tables, directions, run.json and the W&B run lie in the same output folder.

    Raises:
        InputError: If the configuration does not fit the model or the scorers.
    """
    watch = Stopwatch()
    annotator, judge = load_scorer(cfg.evaluation.annotator), load_scorer(cfg.evaluation.judge)
    check_attributes(cfg, annotator.attributes)
    # Not a stage that is announced: a model that cannot be loaded is one line of error, and nothing before it.
    model = load_model(
        cfg.model.path, h_space=cfg.model.h_space, num_steps=cfg.diffusion.num_steps, spacing=cfg.diffusion.spacing,
        device=cfg.device, dtype=cfg.dtype, prompt=cfg.model.prompt or "", guidance=cfg.model.guidance,
    )  # fmt: skip
    if cfg.method.path:
        Directions.load(cfg.method.path).check(model)
    with track(cfg) as tracker:
        with watch.stage(f"discover: {cfg.method.name}"):
            directions = discover(cfg, model, annotator)
        seeds = {
            "discovery": directions.meta.seeds,
            "calibration": seed_range("calibration", REFERENCE_SAMPLES),
            "evaluation": seed_range("evaluation", max(REFERENCE_SAMPLES, cfg.evaluation.num_samples)),
        }
        check_disjoint(**seeds)
        with watch.stage("name the directions"):
            directions, targets = name(cfg, model, directions, annotator, seeds["calibration"])
        with watch.stage("edit"):
            edits = _edit(cfg, model, directions, seeds["evaluation"], cfg.evaluation.num_samples, cfg.edit.strengths)
        with watch.stage("judge"):
            identity = load_identity()
            judged = evaluate(edits, judge, identity, targets, seed=cfg.seed, bootstrap=cfg.evaluation.bootstrap)
        with watch.stage("report"):
            written = report.write(cfg, model, directions, edits, judged, seeds, watch.seconds)
        _track(tracker, cfg, judged, written)
    return written.figure


def name(
    cfg: Config, model: DiffusionModel, directions: Directions, annotator: Scorer, seeds: tuple[int, ...]
) -> tuple[Directions, list[tuple[str, int] | None]]:
    """Names each direction by the attribute that it moves most, and turns it so that it raises that attribute.

    A supervised direction has its attribute already.

    Returns:
        The directions with names such as "component 3: yaw", and the target of each.
    """
    if cfg.method.attribute is not None:
        return directions, [(cfg.method.attribute, 1)] * len(directions.meta.names)
    largest = max(abs(strength) for strength in cfg.edit.strengths)
    edits = _edit(cfg, model, directions, seeds, NAMING_SAMPLES, (-largest, largest))
    targets = name_components(odd_effects(edits, annotator, seed=cfg.seed, bootstrap=cfg.evaluation.bootstrap))
    signs = torch.tensor([1.0 if target is None else float(target[1]) for target in targets])
    plain = [name.partition(":")[0] for name in directions.meta.names]
    names = tuple(old if target is None else f"{old}: {target[0]}" for old, target in zip(plain, targets, strict=True))
    turned = directions.directions * signs.view(-1, *[1] * (directions.directions.ndim - 1))
    named = replace(directions, directions=turned, meta=replace(directions.meta, names=names))
    return named, [target and (target[0], 1) for target in targets]


def _edit(
    cfg: Config,
    model: DiffusionModel,
    directions: Directions,
    seeds: tuple[int, ...],
    num_edited: int,
    strengths: tuple[float, ...],
) -> Edits:
    """Edits of the first samples of a role; the others stay unedited and only add to the unit of effects."""
    return edit_samples(
        model, directions, seeds[:num_edited], strengths=strengths, reference_seeds=seeds[num_edited:],
        eta=cfg.diffusion.eta, injection=cfg.diffusion.injection, start=cfg.edit.start, stop=cfg.edit.stop,
        batch_size=cfg.batch_size,
    )  # fmt: skip


def _track(tracker: Run, cfg: Config, judged: Evaluation, written: report.Written) -> None:
    """Metrics by strength, the summary, figures, tables and directions into the W&B run."""
    for i in sorted(range(len(judged.strengths)), key=judged.strengths.__getitem__):
        tracker.log_metrics({"strength": judged.strengths[i], **report.figures_at(judged, i)})
    tracker.summary(report.summary(judged))
    for path in written.figures:
        tracker.log_image(path.stem, path)
    for label, table in written.tables.items():
        tracker.log_table(label, table)
    tracker.log_artifact(f"directions-{cfg.name}", "directions", [written.directions])
    tracker.log_artifact(f"report-{cfg.name}", "report", [written.record, *written.figures])
