# pyright: strict, reportUnknownMemberType=false
"""A small network f_t(h) whose output is added to h, trained by the gradient of a scorer (Asyrp): an operator."""

import math
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.directions.aims import Objective, score_aim
from hspace.directions.annotations import Annotations
from hspace.directions.method import Sources, method
from hspace.directions.operators import (
    STRENGTHS,
    WIDTHS,
    Operator,
    network_change,
    network_shapes,
    operator_meta,
)
from hspace.directions.positions import num_channels
from hspace.directions.training import Delta, TrainingSettings, train
from hspace.types import Scorer


class TrainedNetworkSettings(TrainingSettings):
    """Settings of `method=trained_network`."""

    strengths: ClassVar[tuple[float, float] | None] = STRENGTHS

    width: int = Field(32, ge=WIDTHS, le=4096)
    """Channels of the hidden layer, a multiple of 16."""

    @model_validator(mode="after")
    def _check_width(self) -> "TrainedNetworkSettings":
        if self.width % WIDTHS:
            raise ValueError(f"width must be a multiple of {WIDTHS}, got {self.width}")
        return self


@method("trained_network", settings=TrainedNetworkSettings, reads=("annotations",))
def find(model: DiffusionModel, sources: Sources, settings: TrainedNetworkSettings) -> Operator:
    """A small network of h, one for all steps, trained by the annotator's gradient on the predicted image.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3.3, with any scorer's loss beside CLIP's.
    """
    scorer = sources.annotator()
    settings.check_annotator(model, scorer)
    annotations = sources.annotations(settings.num_samples)
    return trained_network(
        model, scorer, annotations, settings.attribute, aim=settings.objective(scorer, annotations),
        width=settings.width, updates=settings.updates, rate=settings.rate, batch=settings.batch,
        sampler=sources.sampler,
    )  # fmt: skip


def trained_network(
    model: DiffusionModel,
    scorer: Scorer,
    annotations: Annotations,
    attribute: str,
    *,
    aim: Objective | None = None,
    width: int = 32,
    updates: int = 60,
    rate: float = 0.02,
    batch: int = 8,
    sampler: Sampler = Sampler(),
) -> Operator:
    """A network whose output, added to h, lets the scorer see an attribute rise in the predicted image P_t.

    At every position x of the centred h: f_t(x) = W2 silu(GroupNorm(W1 x + e_t)) + b. What a sample gets thus depends
    on its own h, which an offset (`trained`) does not know. Losses and gradients are those of `trained`.

    Args:
        model: The model of the annotations.
        scorer: The annotator, which must give gradients; judge the result with another one.
        annotations: Its scores of the samples to train on.
        attribute: Attribute that is to rise.
        aim: What is trained for, see `aims.score_aim` and `aims.text_aim`; None lets the score rise by one
            standard deviation and holds all others.
        width: Channels of the hidden layer, a multiple of 16.
        updates: Updates by Adam, whose rate falls to 0 in equal steps; each goes through a batch of trajectories.
        rate: Adam's first rate.
        batch: Samples of an update.
        sampler: Settings whose eta, injection and batch size are taken; all steps are edited.

    Returns:
        An operator, with the report of `trained`. Strength 1 is what was trained.

    Raises:
        InputError: As `trained` does.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3.3, figs. 3 and 4. Ours: a learnt vector for each step e_t in
    place of an embedding of time, since an operator has no other times; h is centred and in its standard deviation; the
    network begins at no change, W2 = b = 0; a narrower hidden layer.
    """
    shapes = network_shapes(num_channels(model.h_shape), width, len(model.process.timesteps))
    found = train(
        "trained_network", model, scorer, annotations,
        score_aim(scorer, annotations, attribute) if aim is None else aim,
        lambda mean, scale: (_start(shapes), _delta(shapes, mean, scale)),
        updates=updates, rate=rate, batch=batch, sampler=sampler,
    )  # fmt: skip
    settings = {"attribute": attribute, "width": width, "updates": updates, "rate": rate, "batch": batch}
    meta = operator_meta(model, annotations, attribute, "trained network", settings)
    provenance = model.provenance(
        eta=model.process.etas(sampler.eta), injection=sampler.injection, annotator=annotations.provenance.annotator
    )
    meta = replace(meta, provenance=provenance, report=found.report)
    made = _of_h(parts(found.parameters, shapes), found.scale)
    return Operator(
        meta, "network", found.mean, inner=made["inner"], times=made["times"], norm=made["norm"], outer=made["outer"],
        bias=made["bias"],
    )  # fmt: skip


Shapes = dict[str, tuple[int, ...]]
"""Shape of each part of the network by name."""


def parts(parameters: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """The parts in one vector of parameters."""
    found: dict[str, Tensor] = {}
    start = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        found[name] = parameters[start : start + size].reshape(shape)
        start += size
    return found


def _start(shapes: Shapes) -> Tensor:
    """Parameters of no change: random W1, W2 and b of 0."""
    made = {name: torch.zeros(shape) for name, shape in shapes.items()}
    made["norm"][0] = 1
    width, channels = shapes["inner"]
    made["inner"] = torch.randn(width, channels, generator=torch.Generator().manual_seed(0)) / channels**0.5
    return torch.cat([part.flatten() for part in made.values()])


def _delta(shapes: Shapes, mean: Tensor, scale: float) -> Delta:
    """The change of h by a vector of the network's parameters."""

    def delta(parameters: Tensor, step: int, h: Tensor) -> Tensor:
        return network_change(_of_h(parts(parameters, shapes), scale), step, h - mean[step].to(h))

    return delta


def _of_h(made: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A network of h in its standard deviation as one of h itself."""
    factors = {"inner": 1 / scale, "outer": scale, "bias": scale}
    return {name: factors.get(name, 1.0) * part for name, part in made.items()}
