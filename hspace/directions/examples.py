"""Common parts of the methods that learn a direction from examples chosen by the annotator."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, check_together
from hspace.directions.disentangle import disentangle
from hspace.directions.leace import erase_conditions
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.method import Sources
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings, check_sides
from hspace.system.shards import Batches
from hspace.types import InputError


class ExampleSettings(Settings):
    """Settings of the examples that a direction is learnt from."""

    attribute: str = "glasses"
    """Attribute that the direction is to change: see `hspace list attributes`."""
    k: int = Field(50, ge=1)
    """Examples on each side."""
    num_samples: int = Field(500, ge=2, le=MAX_SAMPLES)
    """Annotated samples to choose them from."""
    space: Literal["h", "x_T"] = "h"
    """Where the direction lies."""
    conditions: tuple[str, ...] | None = None
    """Attributes that the direction is to leave alone."""
    removal: Literal["eq12", "leace"] = "eq12"
    """How conditions are removed: orthogonally to their directions (eq. 12), or in the metric of h (LEACE)."""
    match: tuple[str, ...] = ()
    """Attributes in which the two sides of examples are to be alike."""

    @model_validator(mode="after")
    def _check_examples(self) -> "ExampleSettings":
        check_sides(self.k, self.num_samples)
        if self.conditions and self.removal == "leace" and self.space == "x_T":
            raise ValueError("removal=leace removes conditions from directions of h: give space=h, or removal=eq12")
        return self

    def count(self) -> int:
        """Number of directions."""
        return 1


def without_conditions(
    model: DiffusionModel, sources: Sources, settings: ExampleSettings, find: Callable[..., Directions]
) -> Directions:
    """The direction of the settings' attribute without their conditions.

    Args:
        model: The model.
        sources: Sources of the run; LEACE reads recorded h.
        settings: Settings that name the attribute, the conditions, and the way to remove these.
        find: Function that finds the direction of an attribute, with `match` for the first one.
    """
    found = find(settings.attribute, match=settings.match)
    if not settings.conditions:
        return found
    if settings.removal == "leace":
        recorded, annotations = sources.recorded(settings.num_samples), sources.annotations(settings.num_samples)
        return erase_conditions(found, recorded, annotations, settings.conditions)
    return disentangle(found, [find(condition) for condition in settings.conditions])


def index_of(sources: Sources, settings: ExampleSettings) -> tuple[Annotations, Recorded | None]:
    """The scores that examples are chosen by, and recorded h where the direction is one of h and there is any."""
    if settings.space == "h":
        return sources.index(settings.num_samples)
    return sources.annotations(settings.num_samples), None


def codes_of(
    model: DiffusionModel,
    seeds: Sequence[int],
    annotations: Annotations,
    space: str,
    batch_size: int,
    recorded: Recorded | None = None,
) -> Iterator[Tensor]:
    """Codes q of some annotated samples in batches, on the CPU: h (batch, steps, C, H, W), or x_T (batch, C, H, W).

    Args:
        model: The model of the annotations.
        seeds: Seeds of the samples.
        annotations: Scores of all samples.
        space: `h` or `x_T`.
        batch_size: Number of samples per pass.
        recorded: h of all annotated samples, which is read; without it h is generated again.

    Raises:
        InputError: If the space is neither h nor x_T, the recorded samples are of another model or not those that were
            annotated, or they are given where several processes run.
    """
    if space not in ("h", "x_T"):
        raise InputError(f"space must be h or x_T, got {space}")
    if space == "h" and recorded is not None:
        recorded.provenance.check(model.provenance(), "recorded samples")  # annotations know no tap
        check_together(recorded, annotations)
        yield from _read(recorded, seeds, batch_size)
        return

    def make(rows: range) -> Tensor:
        latents = model.latents([seeds[row] for row in rows])
        if space == "x_T":
            return latents.x_T.float().cpu()
        codes = sample(model, latents, sampler=Sampler(annotations.eta), record_h=True).h
        assert codes is not None
        return codes.float().cpu()

    for _, codes in Batches(batch_size)(range(len(seeds)), make):
        yield codes


def _read(recorded: Recorded, seeds: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    """Recorded h of some samples, (batch, steps, *h_shape)."""
    h, rows = recorded.open(), [recorded.seeds.index(seed) for seed in seeds]
    for first in range(0, len(rows), batch_size):
        codes = torch.from_numpy(np.ascontiguousarray(h[:, rows[first : first + batch_size]].swapaxes(0, 1)))
        yield codes.unflatten(-1, recorded.h_shape)


def how_chosen(annotations: Annotations, match: Sequence[str]) -> str:
    """How the examples were chosen, in words."""
    alike = f", alike in {' and '.join(match)}" if match else ""
    return f"{alike}, annotated by {annotations.scorer}"


def difference_meta(
    model: DiffusionModel,
    space: str,
    eta: tuple[float, ...],
    method: str,
    name: str,
    seeds: tuple[int, ...],
    annotator: dict[str, str] | None = None,
) -> DirectionsMeta:
    """The record of one direction of unit "difference"."""
    return DirectionsMeta(
        space=space,
        provenance=model.provenance(eta=eta, annotator=annotator),
        model_id=model.model_id,
        method=method,
        names=(name,),
        unit="difference",
        seeds=seeds,
    )
