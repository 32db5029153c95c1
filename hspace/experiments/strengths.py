"""One strength for several draws, each with its own edit and samples, by what the annotator sees in all of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hspace.diffusion.sampling import NotFinite
from hspace.edits.changes import Change, apply_changes, apply_own
from hspace.evaluation.levels import Level, levels
from hspace.evaluation.readings import finite, read, score
from hspace.metrics.interval import MIN_SAMPLES
from hspace.runs.keys import change_key, edit_key, keep, network_key, sampler_key
from hspace.runs.lab import Lab
from hspace.system.files import read_json, write_json
from hspace.system.shards import SHARD
from hspace.types import Embedder, InputError, Scorer

Own = tuple[Sequence[int], Change]
"""Calibration seeds of a draw, and the change of strength 1 that they get."""


def shared_levels(
    lab: Lab, edits: Sequence[Own], attribute: str, targets: Sequence[float], *, first: float, most: float,
    sign: int = 1,
) -> list[Level]:  # fmt: skip
    """The strengths at which the annotator sees target effects in all draws together; from the cache.

    Args:
        lab: The run.
        edits: Seeds and change of each draw.
        attribute: Attribute to move.
        targets: Wanted effects in sd, > 0, from the smallest to the largest.
        first: Strength to begin with, > 0.
        most: Largest strength.
        sign: 1, or -1 of what can only take the attribute off.

    Raises:
        InputError: If the attribute does not vary over the unedited samples.
    """
    key = {
        "changes": [change_key(change) for _, change in edits], "attribute": attribute, "sign": sign,
        "targets": list(targets), "seeds": [tuple(seeds) for seeds, _ in edits], "from": [first, most],
        "reference": len(lab.reference_seeds("calibration")), "scorer": network_key(lab.annotator),
        **edit_key(lab.cfg, lab.model), **sampler_key(lab.cfg, lab.model),
    }  # fmt: skip

    def build(folder: Path) -> None:
        unit = float(lab.unit(lab.annotator)[lab.annotator.attributes.index(attribute)])
        if not unit > 0:
            raise InputError(f"attribute {attribute} does not vary over the unedited samples: effects have no unit")
        moves = _moves(lab, edits, attribute)

        def effect(strength: float) -> float:
            try:
                moved = moves(strength)
            except NotFinite:
                return float("nan")
            # As the judge's, the mean of fewer is n/a.
            return sign * float(moved.mean()) / unit if len(moved) >= MIN_SAMPLES else float("nan")

        found = levels(effect, targets, first=first, most=most)
        write_json(folder / "levels.json", finite([list(each) for each in found]))

    with lab.watch.stage("strengths"):
        found = read_json(keep(lab.cfg, "levels", key, build) / "levels.json")
    return [Level(s, float("nan") if e is None else sign * e, reached) for s, e, reached in found]


def _moves(lab: Lab, edits: Sequence[Own], attribute: str) -> Callable[[float], Tensor]:
    """How edits at a strength move the annotator's score of their draws' samples that show the attribute, float64."""
    column = lab.annotator.attributes.index(attribute)
    seeds = [seed for draw, _ in edits for seed in draw]
    changes, own = [change for _, change in edits], [i for i, (draw, _) in enumerate(edits) for _ in draw]
    before = torch.cat([unedited_readings(lab, draw, [lab.annotator]) for draw, _ in edits])

    def moves(strength: float) -> Tensor:
        scaled, latents = [strength * each for each in changes], lab.model.latents(seeds)
        images = apply_own(lab.model, latents, scaled, own, sampler=lab.sampler)
        after = score(lab.annotator, images)
        shown = lab.annotator.visible(before)[:, column] & lab.annotator.visible(after)[:, column]
        return (after - before)[shown, column].double()

    return moves


def unedited_readings(lab: Lab, seeds: Sequence[int], networks: Sequence[Scorer | Embedder]) -> Tensor:
    """What networks read of samples, (n, outputs)."""
    nothing = torch.zeros(len(lab.model.process.timesteps), *lab.model.h_shape)
    return kept_readings(lab, [nothing], seeds, networks)[:, 0]


def kept_readings(
    lab: Lab, edits: Sequence[Change], seeds: Sequence[int], networks: Sequence[Scorer | Embedder]
) -> Tensor:
    """What networks read of samples under changes of one kind, (n, changes, outputs), from the cache."""
    key = {
        "changes": [change_key(each) for each in edits], "seeds": tuple(seeds),
        "networks": [network_key(each) for each in networks], **edit_key(lab.cfg, lab.model),
    }  # fmt: skip

    def make(rows: range) -> Tensor:
        latents = lab.model.latents(seeds[rows.start : rows.stop])
        images = apply_changes(lab.model, latents, edits, sampler=lab.sampler).float()
        return torch.cat(read(images, *networks), dim=2)

    # A shard is as long as any other, counted in images.
    return lab.kept("edits", len(seeds), make, size=max(1, SHARD // len(edits)), **key)
