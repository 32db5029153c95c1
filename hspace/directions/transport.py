# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The operator that transports samples without an attribute to those with it, each unit of h by itself."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, extremes, steps_of
from hspace.directions.method import Sources, method
from hspace.directions.operators import Operator, OperatorSettings, operator_meta, rows_of, stacked
from hspace.directions.settings import MAX_SAMPLES, check_sides


class TransportSettings(OperatorSettings):
    """Settings of `method=transport`."""

    towards: Literal["most", "least"] = "most"
    """Whether samples are moved towards those with most or with least of the attribute."""
    k: int = Field(50, ge=2)
    """Examples on each side."""
    num_samples: int = Field(500, ge=4, le=MAX_SAMPLES)
    """Annotated samples to choose them from."""
    match: tuple[str, ...] = ()
    """Attributes in which the two sides of examples are to be alike."""

    @model_validator(mode="after")
    def _check_transport(self) -> "TransportSettings":
        check_sides(self.k, self.num_samples)
        return self


@method("transport", settings=TransportSettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: TransportSettings) -> Operator:
    """Transports h towards the samples with most of an attribute: one affine map for each unit of h.

    Source: Rodriguez et al. 2024 (arXiv 2410.23054), Linear-AcT.
    """
    recorded, annotations = sources.annotated(settings.num_samples)
    return transport(
        model, recorded, annotations, settings.attribute, k=settings.k, towards=settings.towards,
        match=settings.match,
    )  # fmt: skip


def transport(
    model: DiffusionModel,
    recorded: Recorded,
    annotations: Annotations,
    attribute: str,
    *,
    k: int,
    towards: Literal["most", "least"] = "most",
    match: Sequence[str] = (),
) -> Operator:
    """Edits h' = (1 - strength) h + strength (w h + c), w and c of each unit fitted to the groups' sorted values.

    Args:
        model: Model of the recording and the annotations.
        recorded: Recorded h of the samples.
        annotations: Scores of the same samples, in the same order.
        attribute: Attribute in which the groups differ; binary or continuous.
        k: Examples in each group.
        towards: Group that samples are moved towards: those with `most` of the attribute, or with `least`.
        match: Attributes in which the groups are to be alike; see `extremes`.

    Returns:
        An operator with a gain of w - 1 about the mean of the group that samples come from.

    Raises:
        InputError: If model or samples differ, several processes run, or the examples cannot be chosen, see `extremes`.

    Source: Rodriguez et al. 2024 (arXiv 2410.23054), Linear-AcT. Theirs pools positions, which here differ in meaning
    (eyes, mouth), so that each unit of h has a map; and theirs fits a layer after the ones before it have been edited,
    where here the maps of all steps are fitted to unedited samples.
    """
    steps = steps_of(model, recorded, annotations)
    examples = extremes(annotations, attribute, k, match=match)
    sides = (examples.minus, examples.plus) if towards == "most" else (examples.plus, examples.minus)
    source, goal = (rows_of(annotations, seeds) for seeds in sides)
    maps = [monotone(h[source], h[goal]) for h in steps]
    mean, gain, shift = (stacked(parts, model.h_shape) for parts in zip(*maps, strict=True))
    settings = {"attribute": attribute, "towards": towards, "k": k, "match": list(match)}
    meta = operator_meta(model, annotations, attribute, "transport", settings)
    return Operator(meta, "transport", mean, gain=gain, shift=shift)


def monotone(source: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the source, gain w - 1 and shift of the affine map that fits sorted values of each column best.

    A column that is constant in the source is only shifted.

    Args:
        source: Samples, (k, d).
        goal: Equally many samples, (k, d).

    Returns:
        Three tensors, (d,).

    Examples:
        >>> source = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> mean, gain, shift = monotone(source, 10 - 3 * source)
        >>> mean.item(), gain.item(), shift.item()
        (1.0, 2.0, 6.0)
    """
    mean, wanted = source.mean(0), goal.mean(0)
    x, y = source.sort(0).values - mean, goal.sort(0).values - wanted
    variance = x.square().sum(0)
    slope = torch.where(variance > 0, (x * y).sum(0) / variance.clamp(min=torch.finfo(x.dtype).tiny), 1.0)
    return mean, slope - 1, wanted - mean
