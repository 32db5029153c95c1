"""How semantic the h-space is: what rotated principal components do to pictures.

Names are chosen with the annotator on calibration seeds; the judge reads evaluation seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from card.base import Sizes, evaluation_seeds
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.directions.pca import pca
from hspace.directions.record import Directions
from hspace.evaluation.effects import edit_samples, evaluate
from hspace.evaluation.readings import Sweep
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.names import Name, name_edits
from hspace.types import Embedder, Scorer, Seeds

COMPONENT_STRENGTHS = (-2.0, 2.0)
VARIMAX: Mapping[str, Any] = {"joint": True, "rotation": "varimax"}
"""The form of the card's components: of the whole trajectory, rotated."""
MIN_EFFECT, MIN_RATIO = 0.5, 1.5
"""What makes a component semantic: its effect in sd, and how many times that of the next attribute it is."""


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
