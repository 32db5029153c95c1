"""Measurements at one place of a network: strengths at equal effect, what components move, and what a swap carries."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.sampling import sample
from hspace.evaluation.ladder import BESIDE, LADDER, Strength, corrected, reach
from hspace.evaluation.readings import Readings, Sweep, score
from hspace.experiments.doses import Dose, placed
from hspace.experiments.places import Place, readings
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import Interval, slope_interval
from hspace.output.tables import written
from hspace.runs.keys import edit_key, network_key
from hspace.runs.lab import Lab
from hspace.scorers.embedded import world_of
from hspace.system.shards import SHARD, in_batches
from hspace.worlds.world import WORLDS, Background

COMPONENT_STRENGTH = 2.0
MIN_EFFECT, MIN_RATIO = 0.5, 1.5
"""What makes a component semantic: its effect in sd, and how many times that of the next attribute it is."""


def calibrate(place: Place, vectors: Tensor, targets: Sequence[float]) -> dict[tuple[str, float], Strength]:
    """Strengths at which the annotator sees each target effect on each attribute, on calibration seeds.

    All strengths of a ladder are read at once; the one that reaches a target is corrected on more samples, as if the
    effect were a power of the strength.

    Args:
        place: The place.
        vectors: Its directions, those of the attributes first.
        targets: Wanted effects in sd, above 0.
    """
    lab = place.lab
    ladder = [(j, strength) for j in range(len(place.attributes)) for strength in LADDER]
    first = np.reshape(_effects(place, vectors, ladder, lab.seeds("calibration")), (-1, len(LADDER)))
    found = {
        (name, target): reach(LADDER, effects, target)
        for name, effects in zip(place.attributes, first.tolist(), strict=True)
        for target in targets
    }
    tried = [
        (place.attributes.index(name), factor * strength.value)
        for (name, _), strength in found.items()
        for factor in BESIDE
    ]
    seeds = lab.seeds("calibration", lab.cfg.evaluation.strength_samples)
    second = np.reshape(_effects(place, vectors, tried, seeds), (-1, len(BESIDE))).tolist()
    return {
        (name, target): corrected(strength, around, target)
        for ((name, target), strength), around in zip(found.items(), second, strict=True)
    }


def _effects(place: Place, vectors: Tensor, tried: Sequence[tuple[int, float]], seeds: Sequence[int]) -> list[float]:
    """Mean effect that the annotator sees of each direction, at a strength, on its own attribute."""
    doses = {f"{i}": Dose(*each) for i, each in enumerate(tried)}
    seen = readings(place, vectors, doses, seeds, place.lab.annotator)
    changes = [seen.changes(i, place.attributes[j]) for i, (j, _) in enumerate(tried)]
    return [float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else math.nan for each in changes]


def components(place: Place, vectors: Tensor) -> tuple[Readings, EffectMatrix]:
    """The judge's readings of the components at -2 and +2 sd, and the effects from the one to the other."""
    k, first = place.lab.pca.k, len(place.attributes)
    labels = tuple(f"component {j}" for j in range(k))
    strengths = (COMPONENT_STRENGTH, -COMPONENT_STRENGTH)
    doses = {f"{label} at {written(s, '+g')}": Dose(first + j, s) for j, label in enumerate(labels) for s in strengths}
    seen = readings(place, vectors, doses, place.lab.seeds(), place.lab.judge)
    odd = Sweep(labels, strengths, seen).odd_effects()
    # Odd effects are half of what lies between the two strengths.
    doubled = {name: 2 * getattr(odd, name) for name in ("effect", "low", "high")}
    return seen, replace(odd, **doubled, covariance=4 * odd.covariance)


def semantic(effects: EffectMatrix) -> list[str]:
    """The attribute of each component that moves one, by .5 sd surely, and by 1.5 times as much as any other."""
    return [name for row in range(len(effects.edits)) for name in _semantic(effects, row)]


def _semantic(effects: EffectMatrix, row: int) -> Iterator[str]:
    name, effect = effects.strongest(row)
    if not math.isfinite(effect):
        return
    cell, sizes = effects.cell(row, name), np.sort(np.abs(effects.effect[row]))
    others = sizes[np.isfinite(sizes)][:-1]
    least = cell.low if effect > 0 else -cell.high
    if least >= MIN_EFFECT and abs(effect) >= MIN_RATIO * others.max(initial=0.0):
        yield name


def exchanged(place: Place) -> dict[str, Interval]:
    """The share of the difference of two samples that the h of the other brings along: 0 keeps one's own.

    Returns:
        By judged attribute where all show it, and `background` where the world that the judge reads shows one.

    Source: Haas et al. 2024, fig. 2a.
    """
    lab = place.lab
    n, attributes = lab.cfg.evaluation.num_samples // 2, lab.judge.attributes
    seeds, background = lab.seeds(n=2 * n), background_of(lab)
    own, donors = seeds[:n], seeds[n:]

    def make(rows: range) -> Tensor:
        return in_batches(rows, lab.sampler.batch_size, lambda batch: _exchanged(lab, own, donors, background, batch))

    key = {"seeds": seeds, "scorer": network_key(lab.judge), **edit_key(lab.cfg, lab.model)}
    values = lab.kept("exchange", n, make, size=SHARD, **key)
    scores, backgrounds = values[..., : len(attributes)], values[..., len(attributes) :]
    seen = torch.stack([lab.judge.visible(each) for each in scores.unbind(1)]).all(0)
    found = {name: _share(scores[seen[:, j], :, j, None]) for j, name in enumerate(attributes)}
    return found if background is None else found | {"background": _share(backgrounds)}


def background_of(lab: Lab) -> Background | None:
    """Reads the background off images; None where the judge reads no world, or one that shows none alone."""
    world = world_of(lab.judge.id)
    return None if world is None else WORLDS.get(world).background


def _exchanged(
    lab: Lab, own: Sequence[int], donors: Sequence[int], background: Background | None, rows: range
) -> Tensor:
    """Scores and backgrounds of samples, of donors, and of the samples with the donors' h: (rows, 3, outputs)."""
    model, judge = lab.model, placed(lab.judge, lab.model.device)
    ours, theirs = (model.latents(each[rows.start : rows.stop]) for each in (own, donors))
    donor = sample(model, theirs, sampler=lab.sampler, record_h=True)
    plain = sample(model, ours, sampler=lab.sampler)
    mixed = sample(model, ours, sampler=lab.sampler, replace_h=donor.h)
    images = [each.x_0.float() for each in (plain, donor, mixed)]
    read = [score(judge, each) for each in images]
    if background is not None:
        read = [torch.cat([scores, background(each)], 1) for scores, each in zip(read, images, strict=True)]
    return torch.stack(read, dim=1).cpu()


def _share(values: Tensor) -> Interval:
    """Slope of (swapped - sample) on (donor - sample), of (n, 3, dim)."""
    own, donor, mixed = values.double().numpy().transpose(1, 0, 2)
    return slope_interval(donor - own, mixed - own)
