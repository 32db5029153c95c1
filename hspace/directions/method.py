# pyright: strict, reportUnknownMemberType=false
"""What a method is: a function that finds directions, and what it may ask of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.diffusion.sampler import Sampler
from hspace.directions.annotations import Annotations
from hspace.directions.masks import Mask
from hspace.directions.record import Directions
from hspace.directions.settings import METHODS, Settings

Source = Literal["seed", "annotations", "mask"]
"""What a method may read that is not recorded h: its directions are then found again when that changes."""


@runtime_checkable
class Sources(Protocol):
    """What a run offers to a method; samples are generated once for all methods and kept in the cache."""

    @property
    def sampler(self) -> Sampler:
        """How the run's samples are drawn."""
        ...

    @property
    def memory(self) -> int | None:
        """Most bytes that may be used; None sets no limit."""
        ...

    def seed(self) -> int:
        """Seed of what the method draws itself."""
        ...

    def recorded(self, num_samples: int) -> Recorded:
        """Recorded h of the first discovery samples."""
        ...

    def recorded_around(self, sample: int, num_samples: int) -> Recorded:
        """Recorded h of neighbours of the sample of a seed."""
        ...

    def annotations(self, num_samples: int) -> Annotations:
        """The annotator's scores of the first discovery samples."""
        ...

    def mask(self, region: str | tuple[float, ...], seed: int) -> Mask:
        """A region on the grid of x_t: a PNG file, fractions of the image, or a name, read off the image of a seed."""
        ...


Find = Callable[[DiffusionModel, Sources, Any], Directions]
"""Finds directions of a model by the method's settings."""


@dataclass(frozen=True)
class Method:
    """A way to find directions.

    Attributes:
        name: What a configuration calls it.
        find: Finds the directions.
        settings: Its settings.
        reads: What it reads besides recorded h.
        kept: Whether a run keeps its directions in the cache.
        samples: Whether it reads discovery samples, of which each `seed` has its own.
    """

    name: str
    find: Find
    settings: type[Settings]
    reads: frozenset[Source]
    kept: bool = True
    samples: bool = True

    @property
    def seeded(self) -> bool:
        """Whether another `seed` finds other directions."""
        return self.samples or "seed" in self.reads

    def __post_init__(self) -> None:
        """Takes the docstring of `find`, which lists show."""
        object.__setattr__(self, "__doc__", self.find.__doc__)

    def __call__(self, model: DiffusionModel, sources: Sources, settings: Settings) -> Directions:
        """Finds the directions."""
        return self.find(model, sources, settings)


def method(
    name: str, *, settings: type[Settings], reads: Sequence[Source] = (), kept: bool = True, samples: bool = True
) -> Callable[[Find], Method]:
    """Decorator that makes a method of a function `find(model, sources, settings) -> Directions`.

    Args:
        name: What a configuration calls it: `method=name`.
        settings: Its settings, a subclass of `Settings`.
        reads: What it reads besides recorded h: "seed", "annotations" or "mask".
        kept: Whether a run keeps its directions in the cache.
        samples: Whether it reads discovery samples; directions of one that does not are the same for every `seed`.
    """

    def make(find: Find) -> Method:
        return METHODS.register(name)(Method(name, find, settings, frozenset(reads), kept, samples))

    return make


def get_method(name: str) -> Method:
    """The method of a name, of an installed package, or "module:name".

    Raises:
        InputError: If there is none.
    """
    found = METHODS.get(name)
    assert isinstance(found, Method), "only the decorator makes methods"
    return found
