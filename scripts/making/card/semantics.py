"""How semantic the h-space is: what rotated principal components and linear boundaries do to pictures.

Names and strengths are chosen with the annotator on calibration seeds; the judge reads evaluation seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from card.base import Sizes, evaluation_seeds, share
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.directions.annotations import annotate
from hspace.directions.boundary import boundary
from hspace.directions.pca import pca
from hspace.directions.record import Directions
from hspace.edits.sums import apply_offsets, edit, edit_offsets
from hspace.evaluation.effects import edit_samples, evaluate
from hspace.evaluation.readings import Sweep, score
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.identity import identity_preservation
from hspace.metrics.names import Name, name_edits
from hspace.types import Embedder, Images, Scorer, Seeds

COMPONENT_STRENGTHS = (-2.0, 2.0)
VARIMAX: Mapping[str, Any] = {"joint": True, "rotation": "varimax"}
"""The form of the card's components: of the whole trajectory, rotated."""
MIN_EFFECT, MIN_RATIO = 0.5, 1.5
"""What makes a component semantic: its effect in sd, and how many times that of the next attribute it is."""
MOVED_SHARES = (0.2, 0.8)
"""Shares having an attribute that an edit has to pass, at -s from above and at +s from below."""
CALIBRATION_MARGIN = 0.1
"""By how much the annotator has to see these shares passed on calibration seeds."""
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Strengths that are tried, smallest first."""


def components(
    model: DiffusionModel, sizes: Sizes, folder: Path, forms: Sequence[Mapping[str, Any]] = (VARIMAX,)
) -> list[Directions]:
    """The first principal components of h of the same samples, in each of some forms.

    Args:
        model: The model, at the steps of the edits.
        sizes: How many samples and components.
        folder: Where the recorded h lies meanwhile.
        forms: Arguments of `pca`.
    """
    path = folder / "h.npy"
    seeds = seed_range("discovery", sizes.discovery)
    recorded = collect(model, seeds, path, sampler=Sampler(batch_size=sizes.batch_size))
    found = [pca(recorded, model, k=sizes.components, **form) for form in forms]
    path.unlink()
    return found


def component_effects(
    model: DiffusionModel, directions: Directions, annotator: Scorer, judge: Scorer, identity: Embedder, sizes: Sizes
) -> tuple[list[Name | None], EffectMatrix]:
    """Names of components by the annotator, and their effects from -2 to +2 by the judge.

    Args:
        model: The model, at the steps of the edits.
        directions: The components.
        annotator: Names components on calibration seeds.
        judge: Reads evaluation seeds.
        identity: Encoder of what stays; none of the effects depends on it.
        sizes: How many samples.

    Returns:
        Name of each component, or None, and the judge's effects, in sd of the unedited samples.
    """
    seeds = seed_range("calibration", sizes.calibration)
    names = names_of(component_readings(model, directions, annotator, identity, seeds, sizes))
    judged = component_readings(model, directions, judge, identity, evaluation_seeds(sizes.judged), sizes)
    return names, end_to_end(judged.odd_effects())


def component_readings(
    model: DiffusionModel, directions: Directions, scorer: Scorer, identity: Embedder, seeds: Seeds, sizes: Sizes
) -> Sweep:
    """What a scorer reads of components at -2 and +2."""
    sampler = Sampler(batch_size=sizes.batch_size)
    edits = edit_samples(model, directions, seeds, strengths=COMPONENT_STRENGTHS, sampler=sampler)
    return evaluate(edits, scorer, identity)


def names_of(readings: Sweep) -> list[Name | None]:
    """The name of each component, found on the first half of the samples and confirmed on the other."""
    half = len(readings.readings.seeds) // 2
    return name_edits(readings.odd_effects(slice(half)), readings.odd_effects(slice(half, None)))


def end_to_end(odd: EffectMatrix) -> EffectMatrix:
    """Effects from one strength to its opposite: twice the odd effects, which are half of what lies between."""
    doubled = {name: 2 * getattr(odd, name) for name in ("effect", "low", "high")}
    return replace(odd, **doubled, covariance=4 * odd.covariance)


def semantic_components(names: Sequence[Name | None], matrix: EffectMatrix) -> list[dict[str, Any]]:
    """Which components move one attribute, much and hardly any other.

    Args:
        names: Attribute and sign of each component, chosen by the annotator; None has no name.
        matrix: The judge's effects.

    Returns:
        One row per named component: the effect on its attribute, the lower end of its interval, how many times the
        largest other effect it is, and whether that makes it semantic.
    """
    rows = []
    for j, target in enumerate(names):
        if target is None:
            continue
        attribute, sign = target.attribute, target.sign
        column = matrix.attributes.index(attribute)
        low = sign * (matrix.low if sign > 0 else matrix.high)[j, column]
        effect, others = sign * matrix.effect[j, column], np.delete(np.abs(matrix.effect[j]), column)
        ratio = effect / np.nanmax(others)
        semantic = bool(low >= MIN_EFFECT and ratio >= MIN_RATIO)
        row = {"effect": float(effect), "low": float(low), "ratio": float(ratio), "semantic": semantic}
        rows.append({"component": j, "attribute": attribute, **row})
    return rows


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
