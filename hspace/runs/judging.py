"""The stages after discovery: directions are named, samples edited, edits judged; each is kept in the cache."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.evaluation.effects import Edits, Evaluation, edit_samples, evaluate, odd_effects
from hspace.metrics.effect import name_components
from hspace.runs.config import Config
from hspace.runs.keys import edit_key, keep, network_key
from hspace.system.files import write_json
from hspace.types import Embedder, Scorer

NAMING_SAMPLES = 24
"""Calibration samples on which directions are named."""

Targets = list[tuple[str, int] | None]
"""Of each direction: the attribute that it moves and the sign of its move at positive strength."""


def name(
    cfg: Config,
    model: DiffusionModel,
    directions: Directions,
    annotator: Scorer,
    attributes: Sequence[str],
    seeds: tuple[int, ...],
) -> tuple[Directions, Targets]:
    """Names each direction by the attribute that it moves most, and turns it so that it raises that attribute.

    A supervised direction has its attribute already.

    Args:
        cfg: A parsed configuration.
        model: Its model.
        directions: To be named.
        annotator: Reads calibration samples.
        attributes: Those of the annotator's that can be names, since the judge reads them too.
        seeds: Of the calibration samples.

    Returns:
        The directions with names such as "component 3: yaw", and the target of each.
    """
    if cfg.method.attribute is not None:
        return directions, [(cfg.method.attribute, 1)] * len(directions.meta.names)
    targets = _targets(cfg, model, directions, annotator, attributes, seeds)
    signs = torch.tensor([1.0 if target is None else float(target[1]) for target in targets])
    plain = [_unnamed(name, annotator.attributes) for name in directions.meta.names]
    names = tuple(old if target is None else f"{old}: {target[0]}" for old, target in zip(plain, targets, strict=True))
    turned = directions.directions * signs.view(-1, *[1] * (directions.directions.ndim - 1))
    named = replace(directions, directions=turned, meta=replace(directions.meta, names=names))
    return named, [target and (target[0], 1) for target in targets]


def _targets(
    cfg: Config,
    model: DiffusionModel,
    directions: Directions,
    annotator: Scorer,
    attributes: Sequence[str],
    seeds: tuple[int, ...],
) -> Targets:
    """What each direction moves most, read by the annotator at the largest strength."""
    largest = max(abs(strength) for strength in cfg.edit.strengths)
    key = {"strength": largest, "edited": seeds[:NAMING_SAMPLES], "unedited": seeds[NAMING_SAMPLES:]}
    key |= {"annotator": network_key(annotator), "attributes": list(attributes)}
    key |= {**_bootstrap(cfg), **edit_key(cfg, model, directions)}

    def build(folder: Path) -> None:
        edits = _edit(cfg, model, directions, seeds, NAMING_SAMPLES, (-largest, largest), folder / "shards")
        effects = odd_effects(edits, annotator, seed=cfg.seed, bootstrap=cfg.evaluation.bootstrap)
        write_json(folder / "targets.json", name_components(effects.select(attributes)))

    text = (keep(cfg, "name", key, build) / "targets.json").read_text(encoding="utf-8")
    return [target and (target[0], target[1]) for target in json.loads(text)]


def _unnamed(name: str, attributes: Sequence[str]) -> str:
    """A direction's name without the attribute that was added to it before; a colon of its own stays."""
    head, _, tail = name.rpartition(": ")
    return head if head and tail in attributes else name


def edits_of(cfg: Config, model: DiffusionModel, directions: Directions, seeds: tuple[int, ...]) -> Edits:
    """Samples along every direction at every configured strength.

    Args:
        cfg: A parsed configuration.
        model: Its model.
        directions: What to edit along.
        seeds: The first `evaluation.num_samples` are edited; the others only add to the unit of effects.
    """
    n, strengths = cfg.evaluation.num_samples, cfg.edit.strengths
    key = {"strengths": strengths, "edited": seeds[:n], "unedited": seeds[n:], **edit_key(cfg, model, directions)}

    def build(folder: Path) -> None:
        edits = _edit(cfg, model, directions, seeds, n, strengths, folder / "shards")
        edits.save(folder / "edits.safetensors")

    return Edits.load(keep(cfg, "edit", key, build) / "edits.safetensors")


def judge(
    cfg: Config,
    model: DiffusionModel,
    directions: Directions,
    edits: Edits,
    scorer: Scorer,
    identity: Embedder,
    targets: Sequence[tuple[str, int] | None],
) -> Evaluation:
    """What the judge and the identity encoder read off the edits."""
    samples = {"edited": edits.seeds, "unedited": len(edits.reference), "strengths": edits.strengths}
    key = {**samples, "targets": targets, "judge": network_key(scorer), "identity": network_key(identity)}
    key |= {**_bootstrap(cfg), **edit_key(cfg, model, directions)}

    def build(folder: Path) -> None:
        judged = evaluate(edits, scorer, identity, targets, seed=cfg.seed, bootstrap=cfg.evaluation.bootstrap)
        judged.save(folder / "evaluation.json")

    return Evaluation.load(keep(cfg, "evaluate", key, build) / "evaluation.json")


def _edit(
    cfg: Config,
    model: DiffusionModel,
    directions: Directions,
    seeds: tuple[int, ...],
    num_edited: int,
    strengths: tuple[float, ...],
    shards: Path,
) -> Edits:
    """Edits of the first samples of a role; the others stay unedited and only add to the unit of effects."""
    return edit_samples(
        model, directions, seeds[:num_edited], strengths=strengths, reference_seeds=seeds[num_edited:],
        eta=cfg.diffusion.eta, injection=cfg.diffusion.injection, start=cfg.edit.start, stop=cfg.edit.stop,
        batch_size=cfg.batch_size, shards=shards,
    )  # fmt: skip


def _bootstrap(cfg: Config) -> dict[str, Any]:
    return {"seed": cfg.seed, "bootstrap": cfg.evaluation.bootstrap}
