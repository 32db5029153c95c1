# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The operator that switches two groups of samples: the mean of each becomes that of the other."""

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, extremes, steps_of
from hspace.directions.method import Sources, method
from hspace.directions.operators import Operator, OperatorSettings, operator_meta, rows_of, stacked
from hspace.directions.settings import MAX_SAMPLES, check_sides
from hspace.directions.shrinkage import shrunk_covariance
from hspace.types import InputError

COLLINEAR = 1e-6
"""Share of the larger of two whitened means below which what is left of the other one counts as rounding."""

MISSED = 1e-3
"""Largest error of a readout at the two means, where it is to be 1 and -1; of opposite means rounding is far below."""


class SwitchSettings(OperatorSettings):
    """Settings of `method=switch`."""

    target: str | None = None
    """Attribute that changes places with it; without one, more and less of the attribute change places."""
    k: int = Field(50, ge=1)
    """Examples of each group."""
    num_samples: int = Field(500, ge=2, le=MAX_SAMPLES)
    """Annotated samples to choose them from, which also give the covariance of h."""
    one_sided: bool = False
    """Whether only samples with the attribute are changed."""

    @model_validator(mode="after")
    def _check_switch(self) -> "SwitchSettings":
        check_sides(self.k, self.num_samples)
        return self


@method("switch", settings=SwitchSettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: SwitchSettings) -> Operator:
    """Switches an attribute: samples with it lose it, and those without get it, or another attribute's place.

    Source: MidSteer (affine steering with minimal change); here the exchange is exact both ways.
    """
    recorded, annotations = sources.annotated(settings.num_samples)
    return switch(
        model, recorded, annotations, settings.attribute, k=settings.k, target=settings.target,
        one_sided=settings.one_sided,
    )  # fmt: skip


def switch(
    model: DiffusionModel,
    recorded: Recorded,
    annotations: Annotations,
    attribute: str,
    *,
    k: int,
    target: str | None = None,
    one_sided: bool = False,
) -> Operator:
    """Edits h' = h - strength (s - t) w^T (h - m), w^T s = 1, w^T t = -1: at 1, m + s and m + t change places.

    s and t are the means of the two groups minus the neutral mean m. Of all such w the one is taken that is shortest in
    the covariance S of h: S^(1/2) w = pinv([s̃, t̃]^T) (1, -1) with s̃ = S^(-1/2) s. Done twice at strength 1, the map
    changes nothing. All this holds at any step of unedited samples; later steps of an edited trajectory differ.

    Args:
        model: Model of the recording and the annotations.
        recorded: Recorded h of the samples.
        annotations: Scores of the same samples, in the same order.
        attribute: Attribute that the first group has most of.
        k: Examples of each group.
        target: Attribute that the second group has most of, and m is the mean of all samples; None takes the samples
            that have least of `attribute`, and m is half-way between the groups.
        one_sided: Whether only samples on the side of the first group are changed.

    Returns:
        An operator of rank 1.

    Raises:
        InputError: If model or samples differ, several processes run, or the examples cannot be chosen, see `extremes`,
            or change places, see `exchange`.

    Source: MidSteer's switch, left = S^(1/2) (s̃ - t̃) and right = pinv(s̃) S^(-1/2), to which this is equal where m is
    half-way, so that t = -s. With another attribute theirs maps m + s to m + t, but not m + t to m + s. S is shrunk
    (Ledoit-Wolf), since samples are far fewer than dimensions.
    """
    steps = steps_of(model, recorded, annotations)
    examples = extremes(annotations, attribute, k)
    others = examples.minus if target is None else extremes(annotations, target, k).plus
    groups = [rows_of(annotations, seeds) for seeds in (examples.plus, others)]
    maps: list[tuple[Tensor, Tensor, Tensor]] = []
    for h in steps:
        means = torch.stack([h[rows].mean(0) for rows in groups])
        neutral = means.mean(0) if target is None else h.mean(0)
        maps.append((neutral, *exchange(h - h.mean(0), means - neutral)))
    mean, left, right = (stacked(parts, model.h_shape) for parts in zip(*maps, strict=True))
    name = f"{attribute} switched" if target is None else f"{attribute} for {target}"
    settings = {"attribute": attribute, "target": target, "k": k, "one_sided": one_sided}
    meta = operator_meta(model, annotations, name, "switch", settings)
    return Operator(meta, "switch", mean, left, right, one_sided=one_sided)


def exchange(samples: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """The pair left = s - t and right = w of two points s and t, (2, d), in the covariance of centred samples (n, d).

    Returns:
        Two tensors, (1, d).

    Raises:
        InputError: If there is no such w: the points lie on one line through 0, and are not opposite.

    Examples:
        >>> points = torch.eye(4, dtype=torch.float64)
        >>> left, right = exchange(points - points.mean(0), points[:2])
        >>> after = points[:2] - (points[:2] @ right.T) @ left
        >>> bool((after - points[:2].flip(0)).abs().max() < 1e-9)
        True
    """
    covariance = shrunk_covariance(samples)
    white = covariance.power(means, -0.5)
    goal = torch.tensor([1.0, -1.0], dtype=white.dtype)
    readout = torch.linalg.pinv(white, rtol=COLLINEAR) @ goal
    if not torch.allclose(white @ readout, goal, rtol=0, atol=MISSED):
        raise InputError("two groups whose means lie on one line with the neutral point cannot change places")
    return means[:1] - means[1:], covariance.power(readout[None], -0.5)
