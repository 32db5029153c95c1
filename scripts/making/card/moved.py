"""Edits of one attribute at a time: how far they move it, and what they keep.

Method and strength are chosen with the annotator on calibration seeds; the judge reads evaluation seeds.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from card.base import Sizes, evaluation_seeds, share
from card.subject import Subject
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampler import Sampler
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.record import Directions
from hspace.directions.trained import trained
from hspace.directions.whitened import whitened
from hspace.edits.sums import apply_offsets, edit, edit_offsets
from hspace.evaluation.readings import score
from hspace.metrics.identity import identity_preservation
from hspace.types import Embedder, Images, Scorer

log: logging.Logger = logging.getLogger(__name__)

MOVED_SHARES = (0.2, 0.8)
"""Shares having an attribute that an edit has to pass, at -s from above and at +s from below."""
CALIBRATION_MARGIN = 0.1
"""By how much the annotator has to see these shares passed on calibration seeds."""
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Strengths that are tried, smallest first."""
HALVINGS = 2
"""Strengths that are tried between the first that passes and the one before it."""


@dataclass(frozen=True)
class Tried:
    """A direction at the strength that suits it.

    Attributes:
        method: What found it.
        directions: The direction.
        strength: The smallest at which the annotator sees the attribute moved on calibration seeds; else the best.
        margin: By how much the worse of the two shares is passed there, in [-.8, .2].
    """

    method: str
    directions: Directions
    strength: float
    margin: float

    @property
    def passed(self) -> bool:
        """Whether the annotator sees the attribute moved."""
        return self.margin >= CALIBRATION_MARGIN


def choose(
    model: DiffusionModel, annotator: Scorer, subject: Subject, thresholds: Mapping[str, float], sizes: Sizes
) -> list[Tried]:
    """The edit of each attribute: a whitened difference, or trained offsets where the annotator sees too little of it.

    At 2 sd whitened differences keep the highest identity of the 22 methods of `compare_methods` (docs/findings.md).
    Offsets that the annotator's gradient trains move what differences of samples do not; those of one attribute cost
    more than all else.

    Args:
        model: The model, at the steps of the edits.
        annotator: Chooses.
        subject: Says for which attributes offsets may be trained.
        thresholds: By attribute: a score above it has the attribute.
        sizes: How many samples.
    """
    sampler = Sampler(batch_size=sizes.batch_size)
    annotations = annotate(model, seed_range("discovery", sizes.annotated), annotator, sampler=sampler)
    chosen = []
    for attribute, threshold in thresholds.items():
        difference = whitened_difference(model, annotations, attribute, sizes)
        tried = try_strengths(model, "whitened", difference, annotator, threshold, sizes)
        if not tried.passed and attribute in subject.trained:
            offsets = trained(model, annotator, annotations, attribute, sampler=sampler)
            other = try_strengths(model, "trained", offsets, annotator, threshold, sizes)
            tried = max(tried, other, key=lambda each: each.margin)
        chosen.append(tried)
    return chosen


def whitened_difference(model: DiffusionModel, annotations: Annotations, attribute: str, sizes: Sizes) -> Directions:
    """The whitened difference of the most extreme of the annotated samples.

    Of a binary attribute there are no more examples on a side than samples that have it, or do not have it.
    """
    column, k = annotations.column(attribute), sizes.examples
    if annotations.binary[column]:
        having = annotations.scores[annotations.visible[:, column], column] > 0.5
        k = min(k, int(having.sum()), int((~having).sum()))
    return whitened(model, annotations, attribute, k=k, batch_size=sizes.batch_size)


def try_strengths(
    model: DiffusionModel, method: str, directions: Directions, annotator: Scorer, threshold: float, sizes: Sizes
) -> Tried:
    """A direction at the smallest strength at which the annotator sees its attribute moved; else at the best.

    Args:
        model: The model, at the steps of the edits.
        method: What found the direction.
        directions: One direction, named by its attribute.
        annotator: Reads the edits.
        threshold: A score above it has the attribute.
        sizes: How many samples.
    """
    latents, sampler = model.latents(seed_range("calibration", sizes.calibration)), Sampler(batch_size=sizes.batch_size)
    column = annotator.attributes.index(directions.meta.names[0])

    def at(strength: float) -> Tried:
        ends = edit(model, latents, directions, component=0, strengths=[-strength, strength], sampler=sampler)
        before, after = (share(score(annotator, images)[:, column] > threshold) for images in ends.unbind(1))
        tried = Tried(method, directions, strength, min(MOVED_SHARES[0] - before, after - MOVED_SHARES[1]))
        log.info("%s by %s at %.2f: %.2f and %.2f", directions.meta.names[0], method, strength, before, after)
        return tried

    tries, below = list[Tried](), STRENGTHS[0] / 2
    for strength in STRENGTHS:
        tries.append(at(strength))
        if tries[-1].passed:
            break
        below = strength
    else:
        return max(tries, key=lambda each: each.margin)
    for _ in range(HALVINGS):
        between = at(math.sqrt(below * tries[-1].strength))
        if between.passed:
            tries.append(between)
        else:
            below = between.strength
    return tries[-1]


def together(chosen: Sequence[Tried]) -> Directions:
    """The chosen directions in one record, named by their attributes."""
    found = [each.directions for each in chosen]
    names = tuple(each.meta.names[0] for each in found)
    return Directions(torch.cat([each.directions for each in found]), replace(found[0].meta, names=names))


def moved_images(
    model: DiffusionModel, directions: Directions, strengths: Sequence[float], sizes: Sizes
) -> tuple[Images, Tensor]:
    """The evaluation samples unedited, (n, C, H, W), and at -s and +s of each direction, (k, 2, n, C, H, W)."""
    weights = torch.diag(torch.tensor(strengths))
    weights = torch.cat([torch.zeros(1, len(strengths)), torch.stack([-weights, weights], dim=1).flatten(0, 1)])
    offsets = edit_offsets(directions, weights, len(model.process.timesteps))
    latents = model.latents(evaluation_seeds(sizes.judged))
    images = apply_offsets(model, latents, offsets, sampler=Sampler(batch_size=sizes.batch_size)).transpose(0, 1)
    return images[0], images[1:].unflatten(0, (-1, 2))


def moved_figures(
    original: Images,
    edited: Tensor,
    judge: Scorer,
    identities: Mapping[str, Embedder],
    thresholds: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """What the judge sees of edits.

    Args:
        original: Unedited samples, (n, C, H, W).
        edited: From `moved_images`, one direction per threshold, (k, 2, n, C, H, W).
        judge: Reads the attributes.
        identities: Encoders of identity, by what the figure of each is called.
        thresholds: By attribute: a score above it has the attribute.

    Returns:
        By attribute: the share of samples having it unedited, `before` at -s and `after` at +s, and by encoder the mean
        cosine of the identities to the unedited samples over both.
    """
    unedited = score(judge, original)
    people = {name: score(encoder, original).repeat(2, 1) for name, encoder in identities.items()}
    figures = {}
    for (attribute, threshold), pair in zip(thresholds.items(), edited, strict=True):
        column = judge.attributes.index(attribute)
        before, after = (share(score(judge, images)[:, column] > threshold) for images in pair)
        images = pair.flatten(0, 1)
        same = {
            name: identity_preservation(people[name], score(encoder, images)).value
            for name, encoder in identities.items()
        }
        shares = {"unedited": share(unedited[:, column] > threshold), "before": before, "after": after}
        figures[attribute] = {**shares, **same}
    return figures
