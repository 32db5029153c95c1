# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Counter-edits: what an edit is measured to move besides its attribute, other directions or steps move back."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.examples import difference_meta
from hspace.directions.method import Sources, get_method, method
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings, check_sides
from hspace.metrics.effect import EffectMatrix
from hspace.system import distributed
from hspace.types import InputError

REACH = 0.5
"""Length of each base direction as it is measured, in spreads of h: calibration begins there too."""

Effects = Callable[[Tensor], EffectMatrix]
"""Measured effects of vectors, (m, steps, *h_shape), each at strength 1."""


class CounterSettings(Settings):
    """Settings of `method=counter`."""

    attribute: str = "glasses"
    """Attribute that the direction is to change: see `hspace list attributes`."""
    conditions: tuple[str, ...] | None = None
    """Attributes whose directions may be mixed in; null: all that the annotator scores."""
    base: Literal["regression", "supervised", "boundary", "whitened"] = "regression"
    """Method that finds the directions that are mixed."""
    by_step: bool = False
    """Whether the steps of each direction are mixed too, each at a strength of its own."""
    k: int = Field(50, ge=1)
    """Examples on each side, where the base method takes examples."""
    num_samples: int = Field(500, ge=3, le=MAX_SAMPLES)
    """Annotated samples of the base method."""
    ridge: float = Field(0.01, ge=0)
    """Price of a long mixture: 0 trusts the measured effects entirely."""
    rounds: int = Field(3, ge=1, le=10)
    """Most mixtures that are measured."""

    @model_validator(mode="after")
    def _check_counter(self) -> "CounterSettings":
        if self.base != "regression":
            check_sides(self.k, self.num_samples)
        return self

    def count(self) -> int:
        """Number of directions."""
        return 1


@method("counter", settings=CounterSettings, reads=("annotations", "effects"), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: CounterSettings) -> Directions:
    """A mixture of directions of several attributes that moves one of them alone, as measured on calibration samples.

    Raises:
        InputError: If several processes run, each of which would have its own part of h.

    Source: ours; eq. 12 of Haas et al. 2024 in the space of effects.
    """
    if distributed.world() > 1:
        raise InputError(f"method=counter measures its mixtures in one process, got {distributed.world()}")
    recorded, annotations = sources.annotated(settings.num_samples)
    others = [name for name in annotations.attributes if name != settings.attribute]
    names = (settings.attribute, *(others if settings.conditions is None else settings.conditions))
    base = get_method(settings.base)
    fields = {"k", "num_samples"} & set(base.settings.model_fields)
    given = {"name": settings.base, **{name: getattr(settings, name) for name in fields}}
    found = [base(model, sources, base.settings.model_validate({**given, "attribute": name})) for name in names]
    vectors = torch.cat([each.directions for each in found if isinstance(each, Directions)])
    vectors = REACH * spread(recorded) * unit_norm(vectors)
    if settings.by_step:
        names += tuple(f"{name} at step {step}" for name in names for step in range(vectors.shape[1]))
        vectors = torch.cat([vectors, *map(single_steps, vectors)])
    weights = mixture(
        vectors, sources.effects, settings.attribute, ridge=settings.ridge, rounds=settings.rounds
    )  # fmt: skip
    meta = difference_meta(
        model, "h", annotations.eta, f"counter-edit of {settings.base}, annotated by {annotations.scorer}",
        settings.attribute, annotations.seeds, annotations.provenance.annotator,
    )  # fmt: skip
    kept = {"base": settings.base, "ridge": settings.ridge, "weights": dict(zip(names, weights.tolist(), strict=True))}
    return Directions(_mixed(weights, vectors), replace(meta, unit=f"sd of {settings.attribute}", settings=kept))


def mixture(vectors: Tensor, effects: Effects, attribute: str, *, ridge: float = 0.01, rounds: int = 3) -> Tensor:
    """Weights w of the mixture w^T V that moves one attribute by 1 sd and no other: min |M^T w - e|² + ridge w^T G w.

    M are the measured effects of the vectors, (m, A), e is 1 at the attribute, and G is the vectors' Gram matrix, in
    squared lengths of the first one. The mixture is measured, and what is missing is solved for in the same way, as
    long as selectivity rises. If it never rises above that of the attribute's own vector, this one is given, at 1 sd.

    Args:
        vectors: V, (m, …); the first is the attribute's own.
        effects: Function that measures effects; attributes without a unit or whose effect is unknown do not count.
        attribute: Attribute to move.
        ridge: Price of the length, 0 or more.
        rounds: Most mixtures that are measured.

    Returns:
        Weights, (m,) float32.

    Raises:
        InputError: If the effect of the attribute's own vector on it is unknown or 0.

    Examples:
        >>> from hspace.metrics.effect import effect_matrix
        >>> def linear(vectors):
        ...     change = vectors @ torch.tensor([[2.0, 1.0], [0.5, 1.0]])
        ...     before = torch.linspace(-1, 1, 20)[:, None].expand(20, 2)
        ...     noise = torch.linspace(-1e-3, 1e-3, 20)[:, None]
        ...     return effect_matrix(before, before + noise + change[:, None], attributes=("a", "b"),
        ...         binary=(False, False), edits=[""] * len(vectors), unit=torch.ones(2))
        >>> mixed = mixture(torch.eye(2), linear, "a", ridge=0.0)
        >>> [round(effect, 3) + 0.0 for effect in linear(mixed[None]).effect[0].tolist()]
        [1.0, 0.0]
    """
    measured = effects(vectors)
    column = measured.attributes.index(attribute)
    own = measured.effect[0, column]
    if not np.isfinite(own) or own == 0:
        raise InputError(f"the effect of the direction of {attribute} on it is unknown: set another method.base")
    counted = np.flatnonzero(np.isfinite(measured.effect).all(axis=0))
    matrix, goal = measured.effect[:, counted], np.where(counted == column, 1.0, 0.0)
    flat = vectors.double().flatten(1)
    gram = (flat @ flat.T / flat[0].square().sum()).numpy()
    normal = matrix @ matrix.T + ridge * gram
    best, weights = measured.selectivity_of(0, attribute).value, np.eye(len(matrix))[0] / own
    trial, reached = np.zeros(len(matrix)), np.zeros(len(goal))
    for _ in range(rounds):
        trial = trial + np.linalg.lstsq(normal, matrix @ (goal - reached), rcond=None)[0]
        found = effects(_mixed(torch.from_numpy(trial), vectors))
        selectivity = found.selectivity_of(0, attribute).value
        if not (selectivity > best or (math.isnan(best) and not math.isnan(selectivity))):
            break
        best, weights, reached = selectivity, trial, np.nan_to_num(found.effect[0, counted])
    return torch.from_numpy(weights).float()


def single_steps(vector: Tensor) -> Tensor:
    """A direction at one step each and 0 at the others, (steps, …) to (steps, steps, …): they add up to it.

    Weights of these are a time profile of its strength.

    Examples:
        >>> single_steps(torch.tensor([[1.0], [2.0]])).squeeze(-1).tolist()
        [[1.0, 0.0], [0.0, 2.0]]
    """
    return torch.eye(len(vector)).to(vector).reshape(*[len(vector)] * 2, *(1,) * (vector.ndim - 1)) * vector


def unit_norm(vectors: Tensor) -> Tensor:
    """Vectors, (m, …), over their L2 norms; a zero vector stays zero."""
    norms = vectors.flatten(1).norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors / norms.reshape(-1, *(1,) * (vectors.ndim - 1))


def spread(recorded: Recorded) -> float:
    """Root of the total variance of h over all steps."""
    return sum(float(h.astype("float64").var(axis=0, ddof=1).sum()) for h in recorded.open()) ** 0.5


def _mixed(weights: Tensor, vectors: Tensor) -> Tensor:
    """The mixture, (1, …)."""
    return torch.einsum("m,m...->...", weights.to(vectors), vectors)[None]
