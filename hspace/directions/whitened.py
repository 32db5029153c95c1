# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The whitened difference (linear discriminant): the mean difference in the metric of what varies within groups."""

from collections.abc import Sequence

import torch
from pydantic import model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
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
from hspace.directions.shrinkage import shrunk_covariance


class WhitenedSettings(ExampleSettings):
    """Settings of `method=whitened`."""

    joint: bool = False
    """Whether one discriminant separates the whole trajectories; else each step has its own."""

    @model_validator(mode="after")
    def _check_groups(self) -> "WhitenedSettings":
        if self.k < 2:
            raise ValueError(f"k must be at least 2, since one example on a side does not vary, got {self.k}")
        return self


@method("whitened", settings=WhitenedSettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: WhitenedSettings) -> Directions:
    """The mean difference, whitened by the covariance within the groups (linear discriminant).

    Source: Fisher 1936; the covariance is shrunk by Ledoit-Wolf, since samples are far fewer than dimensions.
    """
    annotations, recorded = index_of(sources, settings)

    def one(attribute: str, match: Sequence[str] = ()) -> Directions:
        return whitened(
            model, annotations, attribute, k=settings.k, space=settings.space, joint=settings.joint, match=match,
            batch_size=sources.sampler.batch_size, recorded=recorded,
        )  # fmt: skip

    return without_conditions(model, sources, settings, one)


def whitened(
    model: DiffusionModel,
    annotations: Annotations,
    attribute: str,
    *,
    k: int,
    space: str = "h",
    joint: bool = False,
    match: Sequence[str] = (),
    batch_size: int = 16,
    recorded: Recorded | None = None,
) -> Directions:
    """V ~ S_w^-1 (m_+ - m_-), with S_w the pooled covariance within the two groups of examples.

    Its length is the distance of the two means along it, so that strength 1 goes from one mean to the other.
    Memory: 16 k · steps · d bytes, twice.

    Args:
        model: The model of the annotations.
        annotations: Scored samples.
        attribute: Attribute that the direction changes; binary or continuous.
        k: Examples on each side, at least 2.
        space: `h` or `x_T`.
        joint: Whether the trajectory is one vector; otherwise each step is taken by itself.
        match: Attributes in which the two sides are to be alike; see `extremes`.
        batch_size: Number of samples per pass.
        recorded: Recorded h of the scored samples; without it that of the chosen ones is generated again.

    Returns:
        One direction of unit "difference".

    Raises:
        InputError: If the annotations are of another model, the recorded samples are others or are given where
            several processes run, or the examples cannot be chosen, see `extremes`.

    Source: Fisher's linear discriminant; Ledoit & Wolf 2004 for the shrinkage.
    """
    annotations.check(model)
    examples = extremes(annotations, attribute, k, match=match)
    codes = torch.cat(list(codes_of(model, examples.plus + examples.minus, annotations, space, batch_size, recorded)))
    groups = codes.flatten(2) if space == "h" and not joint else codes.flatten(1)[:, None]
    found = torch.stack([discriminant(points[:k], points[k:]) for points in groups.unbind(1)])
    how = f"whitened{' joint' if joint else ''}{how_chosen(annotations, match)}"
    meta = difference_meta(
        model, space, annotations.eta, how, attribute, annotations.seeds, annotations.provenance.annotator
    )
    return Directions(found.float().reshape(1, *codes.shape[1:]), meta)


def discriminant(plus: Tensor, minus: Tensor) -> Tensor:
    """S_w^-1 (m_+ - m_-) of two groups, each (k, d), as long as their means are apart along it; (d,) float64."""
    plus, minus = plus.double(), minus.double()
    difference = plus.mean(0) - minus.mean(0)
    within = torch.cat([plus - plus.mean(0), minus - minus.mean(0)])
    normal = shrunk_covariance(within).power(difference[None], -1.0)[0]
    normal = normal / normal.norm()
    return normal * (difference @ normal)
