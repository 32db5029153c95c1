"""The factors of variation of a drawn world, and how they are drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Factors = dict[str, Tensor]
"""By attribute id: (n,) float32."""


@dataclass(frozen=True)
class Attribute:
    """One factor of variation.

    Attributes:
        id: Name used in configs, metadata, tables and W&B keys alike.
        kind: `binary` (0 or 1) or `continuous`.
        low: Smallest value.
        high: Largest value.
        marginal: Distribution, with or without correlations.
        owner: What keeps it while the rest changes, such as `person`, or `scene`.
        judged: Whether scorers read it from images.
        meaning: Look of a large value.
    """

    id: str
    kind: Literal["binary", "continuous"]
    low: float
    high: float
    marginal: str
    owner: str
    judged: bool
    meaning: str


def judged_of(attributes: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    """Those that scorers read from images."""
    return tuple(attribute for attribute in attributes if attribute.judged)


def values_of(attributes: tuple[Attribute, ...], factors: Factors) -> Tensor:
    """Values of attributes, (n, attributes), in their order."""
    return torch.stack([factors[attribute.id] for attribute in attributes], dim=1)


def seen_of(attributes: tuple[Attribute, ...], shown: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Visibility of attributes, (n, attributes) bool.

    Args:
        attributes: In order.
        shown: By id, (n,) bool; an attribute that is not in it is seen everywhere.
        like: Any (n,) tensor.
    """
    everywhere = torch.ones_like(like, dtype=torch.bool)
    return torch.stack([shown.get(attribute.id, everywhere) for attribute in attributes], dim=1)


def with_owned(attributes: tuple[Attribute, ...], owner: str, factors: Factors, others: Factors) -> Factors:
    """The factors that an owner keeps, such as `person`, from one draw, and all others from another; each (n,)."""
    return {each.id: (factors if each.owner == owner else others)[each.id] for each in attributes}


def uniform_factors(attributes: tuple[Attribute, ...], generator: torch.Generator, n: int) -> Factors:
    """Uniform numbers in [0, 1) by attribute id, from which factors are made."""
    return {attribute.id: torch.rand(n, generator=generator) for attribute in attributes}


def independent_factors(attributes: tuple[Attribute, ...], draw: Callable[[], Factors]) -> Factors:
    """Every factor from a draw of its own, so that the marginals stay and the correlations go."""
    return {attribute.id: draw()[attribute.id] for attribute in attributes}
