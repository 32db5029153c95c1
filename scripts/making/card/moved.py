"""Edits of one attribute at a time: how far linear boundaries move it, and what they keep.

Strengths are chosen with the annotator on calibration seeds; the judge reads evaluation seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from card.base import Sizes, evaluation_seeds, share
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampler import Sampler
from hspace.directions.annotations import annotate
from hspace.directions.boundary import boundary
from hspace.directions.record import Directions
from hspace.edits.sums import apply_offsets, edit, edit_offsets
from hspace.evaluation.readings import score
from hspace.metrics.identity import identity_preservation
from hspace.types import Embedder, Images, Scorer

MOVED_SHARES = (0.2, 0.8)
"""Shares having an attribute that an edit has to pass, at -s from above and at +s from below."""
CALIBRATION_MARGIN = 0.1
"""By how much the annotator has to see these shares passed on calibration seeds."""
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Strengths that are tried, smallest first."""


def boundaries(model: DiffusionModel, annotator: Scorer, attributes: Sequence[str], sizes: Sizes) -> Directions:
    """Normals of linear boundaries between the most extreme of the annotated samples: one direction per attribute."""
    annotations = annotate(
        model, seed_range("discovery", sizes.annotated), annotator, sampler=Sampler(batch_size=sizes.batch_size)
    )
    found = [boundary(model, annotations, name, k=sizes.examples, batch_size=sizes.batch_size) for name in attributes]
    return Directions(torch.cat([each.directions for each in found]), replace(found[0].meta, names=tuple(attributes)))


def choose_strength(
    model: DiffusionModel, directions: Directions, component: int, annotator: Scorer, threshold: float, sizes: Sizes
) -> float:
    """The smallest strength at which the annotator sees the attribute moved on calibration seeds; else the best.

    Args:
        model: The model, at the steps of the edits.
        directions: Named by attributes.
        component: Which direction.
        annotator: Reads the edits.
        threshold: A score above it has the attribute.
        sizes: How many samples.
    """
    latents = model.latents(seed_range("calibration", sizes.calibration))
    column = annotator.attributes.index(directions.meta.names[component])
    margins = {}
    for strength in STRENGTHS:
        edited = edit(
            model, latents, directions, component=component, strengths=[-strength, strength],
            sampler=Sampler(batch_size=sizes.batch_size),
        )  # fmt: skip
        before, after = (share(score(annotator, images)[:, column] > threshold) for images in edited.unbind(1))
        margins[strength] = min(MOVED_SHARES[0] - before, after - MOVED_SHARES[1])
        if margins[strength] >= CALIBRATION_MARGIN:
            break
    return max(margins, key=margins.__getitem__)


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
