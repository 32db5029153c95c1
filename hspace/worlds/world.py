"""What trainings, scorers and figures ask of a drawn world, and the worlds by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hspace.system.registry import Registry
from hspace.types import Images
from hspace.worlds.attributes import Attribute, Factors, judged_of, values_of


@runtime_checkable
class SampleFactors(Protocol):
    """Draws the factors of n pictures; with correlated=False every factor alone, from the same marginal."""

    def __call__(self, generator: torch.Generator, n: int, *, correlated: bool = True) -> Factors:
        """Factors by attribute id, each (n,) float32."""
        ...


Paint = Callable[[Factors, int], Tensor]
"""Factors and a size to pictures, (n, 3, size, size) in [-1, 1]."""
Visible = Callable[[Factors], Tensor]
"""Factors to which judged attributes a picture shows, (n, judged attributes) bool."""
Resample = Callable[[Factors, torch.Generator], Factors]
"""Draws some of the factors anew."""
RegionMasks = Callable[[Factors, int], dict[str, Tensor]]
"""Factors and a size to masks by region, (n, size, size) bool."""
Background = Callable[[Images], Tensor]
"""Images in [-1, 1], (n, 3, height, width), to what their backgrounds show, (n, numbers)."""


@dataclass(frozen=True)
class World:
    """A drawn world, whose every image has exact labels.

    Attributes:
        id: Name in configurations and in names of files.
        version: Of the drawing; a change of it parts cached images.
        attributes: All factors.
        sample_factors: Draws factors.
        render: Paints them.
        visibility: Says which judged attributes are to be seen.
        vary: Draws what is drawn anew for another view of the same picture, with which trainings exchange skips.
        pairs: By name of an encoder: what is drawn anew while that which the encoder reads stays; empty if the world
            has nothing that stays the same from picture to picture.
        regions: Names of the regions of `region_masks`; empty if there are none.
        region_masks: Exact regions.
        background: Reads the background off images, without a network; None if no part of them shows it alone.
    """

    id: str
    version: int
    attributes: tuple[Attribute, ...]
    sample_factors: SampleFactors
    render: Paint
    visibility: Visible
    vary: Resample
    pairs: Mapping[str, Resample] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    region_masks: RegionMasks | None = None
    background: Background | None = None

    @property
    def judged(self) -> tuple[Attribute, ...]:
        """The attributes that scorers read, in the order of labels and scores."""
        return judged_of(self.attributes)

    def labels(self, factors: Factors) -> Tensor:
        """Exact values of the judged attributes, (n, judged attributes)."""
        return values_of(self.judged, factors)


WORLDS: Registry[World] = Registry(
    "world",
    World,
    {"portraits": "hspace.worlds.portraits.faces:PORTRAITS", "rooms": "hspace.worlds.rooms.rooms:ROOMS"},
)
