# pyright: strict, reportUnknownMemberType=false
"""Directions from examples: mean differences (eq. 11), and differences of explicit pairs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import as_seeds
from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, extremes
from hspace.directions.examples import (
    ExampleSettings,
    codes_of,
    difference_meta,
    how_chosen,
    index_of,
    without_conditions,
)
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.types import InputError, Seeds


class SupervisedSettings(ExampleSettings):
    """Settings of `method=supervised`."""


@method("supervised", settings=SupervisedSettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: SupervisedSettings) -> Directions:
    """The mean difference of the samples with most and least of an attribute.

    Source: Haas et al. 2024, sec. V, eqs. 11 and 12, figs. 7 and 9.
    """
    annotations, recorded = index_of(sources, settings)

    def one(attribute: str, match: Sequence[str] = ()) -> Directions:
        return supervised(
            model, annotations, attribute, k=settings.k, space=settings.space, match=match,
            batch_size=sources.sampler.batch_size, recorded=recorded,
        )  # fmt: skip

    return without_conditions(model, sources, settings, one)


def supervised(
    model: DiffusionModel,
    annotations: Annotations,
    attribute: str,
    *,
    k: int,
    space: str = "h",
    match: Sequence[str] = (),
    batch_size: int = 16,
    recorded: Recorded | None = None,
) -> Directions:
    """Mean difference v = mean_i (q_i^+ - q_i^-), eq. 11, of the samples with most and least of an attribute.

    Args:
        model: The model of the annotations.
        annotations: Scored samples.
        attribute: Attribute that the direction changes; binary or continuous, such as a pose.
        k: Number of examples on each side; h needs a few, x_T hundreds.
        space: Space of q: `h` for h_{T:1}, or `x_T`.
        match: Attributes in which the two sides are to be alike; see `extremes`.
        batch_size: Number of samples per pass.
        recorded: Recorded h of the scored samples; without it that of the chosen ones is generated again.

    Returns:
        One direction of unit "difference": strength 1 goes from the mean of one side to that of the other.

    Raises:
        InputError: If the annotations are of another model, the recorded samples are others or are given where
            several processes run, or the examples cannot be chosen, see `extremes`.

    Source: Haas et al. 2024, eq. 11.
    """
    annotations.check(model)
    examples = extremes(annotations, attribute, k, match=match)
    plus, minus = (
        torch.stack(
            [codes.double().sum(0) for codes in codes_of(model, seeds, annotations, space, batch_size, recorded)]
        )
        for seeds in (examples.plus, examples.minus)
    )
    difference = (plus.sum(0) - minus.sum(0)) / k
    method = f"supervised{how_chosen(annotations, match)}"
    meta = difference_meta(
        model, space, annotations.eta, method, attribute, annotations.seeds, annotations.provenance.annotator
    )
    return Directions(difference.float()[None], meta)


def from_pairs(
    model: DiffusionModel,
    plus: Mapping[str, Tensor],
    minus: Mapping[str, Tensor],
    *,
    name: str,
    eta: float | Sequence[float],
    seeds: Seeds = (),
) -> Directions:
    """Mean difference v = mean_i (h_i^+ - h_i^-), eq. 11, of explicit pairs, such as two photographs of each person.

    Args:
        model: Model that h was recorded on.
        plus: Recorded h, (steps, *h_shape), of each pair's image with more of what the direction changes, by the pair's
            id.
        minus: Recorded h of each pair's other image, by the pair's id.
        name: Name of what the direction changes.
        eta: Stochasticity of the trajectories, one value or one per step; 0 where h was recorded during a DDIM
            inversion.
        seeds: Sample seeds of the pairs, if they are generated.

    Returns:
        One direction of unit "difference".

    Raises:
        InputError: If there is no pair, an image lacks its partner (its id is named), or h is of another shape.

    Source: Haas et al. 2024, eq. 11 and fig. 17.
    """
    alone = sorted(set(plus) ^ set(minus))
    if alone or not plus:
        raise InputError(f"every id must have an h in plus and in minus, missing one: {', '.join(alone[:5]) or 'all'}")
    wanted = (len(model.process.timesteps), *model.h_shape)
    for pair, h in (*plus.items(), *minus.items()):
        if tuple(h.shape) != wanted:
            raise InputError(f"h of pair {pair!r} must be {wanted} for this model, got {tuple(h.shape)}")
    total = torch.zeros(wanted, dtype=torch.float64)
    for pair in plus:
        total += plus[pair].cpu().double() - minus[pair].cpu().double()
    meta = difference_meta(model, "h", model.process.etas(eta), "pairs", name, as_seeds(seeds))
    return Directions((total / len(plus)).float()[None], meta)
