"""Fig. 2: swapping h carries semantics from one sample to another, and so does adding a difference of two h."""

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.recording import trajectories
from hspace.directions.record import Directions
from hspace.directions.supervised import from_pairs
from hspace.edits.mixing import swap
from hspace.evaluation.readings import score
from hspace.metrics.interval import Interval, slope_interval
from hspace.output.figures import grid_figure
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured, stated
from hspace.runs.keys import edit_key
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.scorers.embedded import world_of
from hspace.types import InputError
from hspace.worlds.world import WORLDS

SHOWN_PAIRS = 4
BACKGROUND = "background"
CORNER = 8
"""Ratio of the image's side to that of the squares in its upper corners, which show the background of a face."""


def run(lab: Lab) -> Result:
    """Swaps h between pairs of samples, and adds the difference of h of two samples.

    The share of an attribute that a swap carries over is the slope of (swapped - sample) on (donor - sample): 0 is the
    sample's own, 1 the donor's. That of the background is left out where the judge reads a world that shows none alone.
    """
    ours, theirs, swapped = _swapped(lab)
    carried = _carried(lab, ours, theirs, swapped)
    rows = torch.stack([ours, theirs, swapped], dim=1)[:SHOWN_PAIRS].flatten(0, 1)
    pictures = grid_figure(rows, 6, lab.figures / "swap.png", ["sample", "donor of h", "swapped"] * (len(rows) // 3))
    attribute, strengths = lab.cfg.study.attributes[0], lab.strengths
    difference = as_configured(lab, _difference(lab, attribute), [attribute])
    sweep = lab.sweep({f"h(more {attribute}) - h(less)": difference.directions[0]})
    effects = sweep.readings.effects()
    moved = [effects.cell(sweep.row(0, strength), attribute) for strength in strengths]
    judged = {name: carried[name].value for name in lab.judge.attributes if np.isfinite(carried[name].value)}
    judged = judged or {"n/a": float("nan")}
    most, least = max(judged, key=judged.__getitem__), min(judged, key=judged.__getitem__)
    background = carried.get(BACKGROUND)
    also = "" if background is None else f", and {format_number(background.value)} of the background's colour"
    conclusion = (
        f"A swap of h carries over {format_number(float(np.median([*judged.values()])))} of the difference of a "
        f"judged attribute (median; {format_number(judged[least])} of {least} to {format_number(judged[most])} of "
        f"{most}){also}. Adding the difference of two samples moves {attribute} by {format_number(moved[0].value)} sd "
        f"at {stated(lab, strengths[0])}."
    )
    caption = "Slope of (swapped - sample) on (donor - sample), with 95% intervals; 1 becomes the donor's."
    figures = {
        "Samples, donors of h, and the samples with their donors' h": pictures,
        f"Adding the difference of h of two samples, one with more {attribute}": sweep.strip(
            "Vector arithmetic", lab.figures / "arithmetic.png"
        ),
    }
    findings = {
        "carried": carried,
        "arithmetic": {f"{strength:g}": each for strength, each in zip(strengths, moved, strict=True)},
    }
    return Result(
        conclusion, findings, figures, {"carried": Table(("what", "carried over"), (*carried.items(),), caption)}
    )


def _swapped(lab: Lab) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the samples, the other half, and the former with the latter's h."""
    seeds = lab.seeds()
    half = len(seeds) // 2
    recipients, donors = lab.model.latents(seeds[:half]), lab.model.latents(seeds[half : 2 * half])

    def make(rows: range) -> Tensor:
        ours, theirs = recipients.select(rows), donors.select(rows)
        mixed = swap(lab.model, ours, theirs, sampler=lab.sampler)
        return torch.stack([lab.images(ours), lab.images(theirs), mixed], dim=1)

    ours, theirs, mixed = lab.kept("swap", half, make, seeds=seeds, **edit_key(lab.cfg, lab.model)).unbind(1)
    return ours, theirs, mixed


def _carried(lab: Lab, ours: Tensor, theirs: Tensor, swapped: Tensor) -> dict[str, Interval]:
    """The share of every judged attribute that the swap carried over, and of the background's colour."""
    scores = [score(lab.judge, images) for images in (ours, theirs, swapped)]
    visible = torch.stack([lab.judge.visible(each) for each in scores]).all(0)
    found = {}
    for j, name in enumerate(lab.judge.attributes):
        own, donor, mixed = (each[visible[:, j], j, None].double().numpy() for each in scores)
        found[name] = slope_interval(donor - own, mixed - own)
    world = world_of(lab.judge.id)
    if world is not None and WORLDS.get(world).background is None:
        return found
    own, donor, mixed = (_corners(images).double().numpy() for images in (ours, theirs, swapped))
    return found | {BACKGROUND: slope_interval(donor - own, mixed - own)}


def _corners(images: Tensor) -> Tensor:
    """Mean colour of the upper corners, (n, channels)."""
    side = max(images.shape[-1] // CORNER, 1)
    return (images[..., :side, :side].mean((-2, -1)) + images[..., :side, -side:].mean((-2, -1))) / 2


def _difference(lab: Lab, attribute: str) -> Directions:
    """H of the discovery sample with most of an attribute less that of the one with least, among those that show it.

    Raises:
        InputError: If fewer than two samples show it.
    """
    scores = lab.annotations()
    column = scores.column(attribute)
    shown = torch.nonzero(scores.visible[:, column])[:, 0]
    if len(shown) < 2:
        raise InputError(f"{len(shown)} of {len(scores.seeds)} samples show {attribute}, and figure 2 needs two")
    values = scores.sort_keys[shown, column]
    seeds = [scores.seeds[int(shown[row])] for row in (values.argmax(), values.argmin())]
    pair = ({"pair": h.float()} for h in trajectories(lab.model, lab.model.latents(seeds), lab.sampler))
    return from_pairs(lab.model, *pair, name=f"{attribute}, two samples", eta=lab.sampler.eta, seeds=seeds)
