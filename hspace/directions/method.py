# pyright: strict, reportUnknownMemberType=false
"""Methods: functions that find directions or operators, and the sources that a run offers to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import h_varies
from hspace.directions.annotations import Annotations
from hspace.directions.masks import Mask
from hspace.directions.operators import Found
from hspace.directions.settings import METHODS, Settings
from hspace.metrics.effect import EffectMatrix
from hspace.types import InputError, Scorer

Source = Literal["seed", "annotations", "mask", "effects"]
"""Sources besides recorded h; the directions of a method that reads one are found again when it changes."""


@runtime_checkable
class Sources(Protocol):
    """The sources that a run offers to a method; samples are generated once for all methods and kept in the cache."""

    @property
    def sampler(self) -> Sampler:
        """Settings of the run's sampling."""
        ...

    @property
    def memory(self) -> int | None:
        """Most bytes that may be used; None sets no limit."""
        ...

    def seed(self) -> int:
        """Seed of the method's own random draws."""
        ...

    def seeds(self, num_samples: int) -> tuple[int, ...]:
        """Seeds of the first discovery samples."""
        ...

    def recorded(self, num_samples: int) -> Recorded:
        """Recorded h of the first discovery samples."""
        ...

    def recorded_around(self, sample: int, num_samples: int) -> Recorded:
        """Recorded h of neighbours of the sample of a seed."""
        ...

    def annotated(self, num_samples: int) -> tuple[Recorded, Annotations]:
        """Recorded h and the annotator's scores of the first discovery samples, which are drawn once for both."""
        ...

    def annotations(self, num_samples: int) -> Annotations:
        """The annotator's scores of the first discovery samples."""
        ...

    def index(self, num_samples: int) -> tuple[Annotations, Recorded | None]:
        """The annotator's scores of the first discovery samples, to choose examples, and h of all where it is small.

        The h of all is drawn once, for every attribute and method; without it that of examples is drawn again.
        """
        ...

    def annotator(self) -> Scorer:
        """The annotator itself, for its gradient; a method that takes it reads "annotations"."""
        ...

    def mask(self, region: str | tuple[float, ...], seed: int) -> Mask:
        """A region on the grid of x_t: a PNG file, fractions of the image, or a name, read off the image of a seed."""
        ...

    def effects(self, vectors: Tensor) -> EffectMatrix:
        """What the annotator sees offsets of h, (m, steps, *h_shape), do on calibration samples, in sd.

        By half the difference of the effects of an offset and of its opposite; see `Sweep.odd_effects`.
        """
        ...


Find = Callable[[DiffusionModel, Sources, Any], Found]
"""Finds directions of a model, or an operator, by the method's settings."""
Given = Callable[[DiffusionModel, Any], Path]
"""The file of directions that were found before, which a method takes by the model and its settings."""


@dataclass(frozen=True)
class Method:
    """A way to find directions.

    Attributes:
        name: Name in a configuration.
        find: Function that finds the directions.
        settings: Class of its settings.
        reads: Sources that it reads besides recorded h.
        kept: Whether a run keeps its directions in the cache.
        samples: Whether it reads discovery samples, which differ between `seed`s.
        given: The file of directions that it takes in the place of a search; None where it searches.
        varying: Whether it learns from how h differs between samples.
    """

    name: str
    find: Find
    settings: type[Settings]
    reads: frozenset[Source]
    kept: bool = True
    samples: bool = True
    given: Given | None = None
    varying: bool = False

    @property
    def seeded(self) -> bool:
        """Whether another `seed` finds other directions."""
        return self.samples or "seed" in self.reads

    def __post_init__(self) -> None:
        """Takes the docstring of `find`, which lists show."""
        object.__setattr__(self, "__doc__", self.find.__doc__)

    def __call__(self, model: DiffusionModel, sources: Sources, settings: Settings) -> Found:
        """Finds the directions, or the operator.

        Raises:
            InputError: If it learns from how h differs between samples, and h is the same for all of them at the tap.
        """
        if self.varying and getattr(settings, "space", "h") == "h" and not h_varies(model):
            raise InputError(
                f"tap {model.denoiser.tap}: h is the same for every sample there, and method={self.name} learns from "
                "how it differs; tap another place, or take method=trained, self_discovered, prompt_pairs or jacobian"
            )
        return self.find(model, sources, settings)


def method(
    name: str,
    *,
    settings: type[Settings],
    reads: Sequence[Source] = (),
    kept: bool = True,
    samples: bool = True,
    given: Given | None = None,
    varying: bool = False,
) -> Callable[[Find], Method]:
    """Decorator that makes a method of a function `find(model, sources, settings)`, of directions or an operator.

    Args:
        name: Name in a configuration: `method=name`.
        settings: Class of its settings, a subclass of `Settings`.
        reads: Sources that it reads besides recorded h: "seed", "annotations", "mask" or "effects".
        kept: Whether a run keeps its directions in the cache.
        samples: Whether it reads discovery samples; otherwise its directions are the same for every `seed`.
        given: The file of directions that it takes in the place of a search, whose content a result depends on.
        varying: Whether it learns from how h differs between samples; it is then refused where h does not.
    """

    def make(find: Find) -> Method:
        return METHODS.register(name)(Method(name, find, settings, frozenset(reads), kept, samples, given, varying))

    return make


def get_method(name: str) -> Method:
    """The method of a name, of an installed package, or "module:name".

    Raises:
        InputError: If the method does not exist.
    """
    found = METHODS.get(name)
    assert isinstance(found, Method), "only the decorator makes methods"
    return found
