# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Edits of samples, and what scorers read off them: effects, their intervals, and whether the person stays the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import as_seeds
from hspace.diffusion.sampler import Sampler
from hspace.directions.record import Directions
from hspace.edits.sums import edit
from hspace.evaluation.readings import Readings, Sweep, read, score
from hspace.metrics.effect import score_unit
from hspace.system.progress import bar
from hspace.types import Embedder, Scorer, Seeds


@dataclass(frozen=True)
class Edits:
    """Samples, edited along each direction at each strength.

    Attributes:
        seeds: Seeds of the n samples.
        names: Names of the k directions.
        strengths: S strengths in the directions' unit, without 0.
        original: Unedited images, (n, C, H, W) in [-1, 1].
        edited: (k, S, n, C, H, W).
        reference: Unedited images, m >= n of them, whose spread is the unit of effects; the first n are `original`.
    """

    seeds: tuple[int, ...]
    names: tuple[str, ...]
    strengths: tuple[float, ...]
    original: Tensor
    edited: Tensor
    reference: Tensor


def edit_samples(
    model: DiffusionModel,
    directions: Directions,
    seeds: Seeds,
    *,
    strengths: Sequence[float],
    reference_seeds: Seeds = (),
    sampler: Sampler = Sampler(),
) -> Edits:
    """Edits every sample along every direction at every strength.

    Args:
        model: The model that the directions belong to.
        directions: k directions.
        seeds: Seeds of the samples.
        strengths: Strengths in the directions' unit; 0 is the unedited sample, which is always made once.
        reference_seeds: Seeds of further, unedited samples, which add to the spread in which effects are counted.
        sampler: Settings of the sampling and of the edited steps.
    """
    nonzero = tuple(float(strength) for strength in strengths if strength != 0)
    seeds = as_seeds(seeds)
    all_seeds = list(dict.fromkeys([*seeds, *as_seeds(reference_seeds)]))

    def edited(seeds: Sequence[int], component: int, strengths: Sequence[float]) -> Tensor:
        """(strengths, n, C, H, W)."""
        images = edit(
            model, model.latents(seeds), directions, component=component, strengths=strengths, sampler=sampler
        )
        return images.transpose(0, 1)

    reference = edited(all_seeds, 0, [0.0])[0]
    components = bar(range(len(directions.directions)), stage="edit")
    images = torch.stack([edited(seeds, j, nonzero) for j in components])
    return Edits(seeds, directions.meta.names, nonzero, reference[: len(seeds)], images, reference)


def evaluate(edits: Edits, scorer: Scorer, identity: Embedder) -> Sweep:
    """Reads edits by a scorer: a judge to grade them, or an annotator to name them.

    Args:
        edits: Edits from `edit_samples`.
        scorer: Scorer that reads; a judge must not be the scorer that chose the directions.
        identity: Identity encoder with unit-norm embeddings.
    """
    columns = torch.cat([edits.original[None], edits.edited.flatten(0, 1)]).transpose(0, 1)
    scores, people = read(columns, scorer, identity)
    reference = score(scorer, edits.reference)
    names = tuple(f"{name} at {strength:g}" for name in edits.names for strength in edits.strengths)
    readings = Readings(
        scorer, names, edits.seeds, scores[:, 0], scores[:, 1:].transpose(0, 1), people, columns,
        score_unit(reference, scorer.visible(reference)),
    )  # fmt: skip
    return Sweep(edits.names, edits.strengths, readings)
