# pyright: strict, reportUnknownMemberType=false
"""Training of edits of h by the gradient of a loss on the predicted image; what for is in `directions.aims`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents, seed_range
from hspace.diffusion.recording import trajectories
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import Edit, reverse, sample
from hspace.directions.aims import Objective, score_aim, scores_of, text_aim, unit_of
from hspace.directions.annotations import Annotations, scores_and_keys
from hspace.directions.learning import LearningSettings, epochs, learn, spread_of
from hspace.directions.settings import MAX_SAMPLES
from hspace.metrics.interval import mean_interval
from hspace.system.shards import row_batches
from hspace.types import InputError, Scorer

LEAST_FRESH = 10
"""Samples that are not trained on: with fewer no effect has an interval."""

Delta = Callable[[Tensor, int, Tensor], Tensor]
"""The change of h, (batch, *h_shape), by the parameters, the index of the step, and h of the step."""


class TrainingSettings(LearningSettings):
    """Settings of methods that are trained by the annotator's gradient."""

    attribute: str = "glasses"
    """Attribute that the edit is to raise: see `hspace list attributes`."""
    loss: Literal["score", "direction"] = "score"
    """`score`: the annotator's score rises; `direction`: the image moves as two prompts differ, for clip:MODEL."""
    prompts: tuple[str, str] | None = None
    """Prompts with and without the attribute, for `loss=direction`; null: the annotator's own."""
    rise: float = Field(1.0, gt=0)
    """Wanted rise of the annotator's score at strength 1, in standard deviations; not of `loss=direction`."""
    conditions: tuple[str, ...] | None = None
    """Attributes that are held; null: all others."""
    hold: float = Field(1.0, ge=0)
    """Weight of the mean squared change of what is held, in standard deviations, or as a cosine."""
    likeness: float = Field(1.0, ge=0)
    """Weight of the mean absolute change of the predicted image."""
    num_samples: int = Field(500, ge=20, le=MAX_SAMPLES)
    """Annotated samples, whose spread is the unit; a tenth, at least ten, is kept for the report."""
    updates: int = Field(60, ge=1, le=1_000_000)
    """Updates by Adam, whose rate falls to 0 in equal steps."""

    @model_validator(mode="after")
    def _check_prompts(self) -> "TrainingSettings":
        if self.prompts is not None and self.loss != "direction":
            raise ValueError(f"prompts are read by loss=direction alone, got loss={self.loss}")
        return self

    def count(self) -> int:
        """Number of directions."""
        return 1

    def check_annotator(self, model: DiffusionModel, scorer: Scorer) -> None:
        """Checks, before samples are drawn, that the annotator can say what is trained for, and gives gradients.

        Raises:
            InputError: If it does not.
        """
        if self.loss == "direction":
            text_aim(scorer, self.attribute, prompts=self.prompts, conditions=self.conditions)
        check_gradient(model, scorer, model.latents(seed_range("discovery", 1)), self.name)

    def objective(self, scorer: Scorer, annotations: Annotations) -> Objective:
        """What the settings train for.

        Raises:
            InputError: If the annotator cannot say it.
        """
        if self.loss == "direction":
            return text_aim(
                scorer, self.attribute, prompts=self.prompts, conditions=self.conditions, hold=self.hold,
                likeness=self.likeness,
            )  # fmt: skip
        return score_aim(
            scorer, annotations, self.attribute, target=self.rise, conditions=self.conditions, hold=self.hold,
            likeness=self.likeness,
        )  # fmt: skip


def split(annotations: Annotations) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Seeds to train on, and a tenth, at least ten, that are kept.

    Raises:
        InputError: If there are too few samples.
    """
    if len(annotations.seeds) < 2 * LEAST_FRESH:
        raise InputError(f"training needs at least {2 * LEAST_FRESH} annotated samples, got {len(annotations.seeds)}")
    fresh = max(LEAST_FRESH, len(annotations.seeds) // 10)
    return annotations.seeds[:-fresh], annotations.seeds[-fresh:]


class TrainingTask:
    """The loss of edits of h over trajectories, and its gradient by the edit's parameters."""

    def __init__(self, model: DiffusionModel, aim: Objective, delta: Delta, sampler: Sampler) -> None:
        """Take the model, what is trained for, how parameters change h, and how trajectories are sampled."""
        self.model = model
        self.aim = aim
        self.delta = delta
        self.sampler = sampler

    def gradient(self, parameters: Tensor, latents: Latents) -> tuple[float, Tensor]:
        """The mean loss over samples and steps, and the gradient: the sum of what each step's loss has of its own."""
        total, slope, steps = 0.0, torch.zeros_like(parameters), len(self.model.process.timesteps)
        for rows in row_batches(len(latents.seeds), self.sampler.batch_size):
            share = len(rows) / len(latents.seeds) / steps
            for loss, part in self._steps(parameters, latents.select(rows)):
                total += share * loss
                slope += share * part
        return total, slope

    def _steps(self, parameters: Tensor, latents: Latents) -> Iterator[tuple[float, Tensor]]:
        """The mean loss of every step and its gradient; what came before the step counts as given."""
        model, process = self.model, self.model.process
        dtype = torch.promote_types(model.dtype, torch.float32)
        plain = self.predicted(latents, None)
        x_t = latents.x_T.to(model.device, dtype)
        with torch.no_grad():
            for step in reverse(model, latents, sampler=self.sampler, edit=self.edit(parameters)):
                with torch.enable_grad():
                    trained = parameters.detach().requires_grad_()
                    h = step.encoded.h + self._change(trained, step.index, step.encoded.h)
                    output = model.denoiser.decode(h, step.encoded).to(dtype)
                    edited = process.to_x0(output, x_t, process.timesteps[step.index])
                    loss = self.aim.loss(model, edited, plain[step.index]).mean()
                yield loss.item(), torch.autograd.grad(loss, trained)[0]
                x_t = step.x_t

    def edit(self, parameters: Tensor) -> Edit:
        """The edit of h that parameters make."""
        return lambda step, encoded: encoded.h + self._change(parameters, step, encoded.h)

    def _change(self, parameters: Tensor, step: int, h: Tensor) -> Tensor:
        return self.delta(parameters.to(h.device), step, h.float()).to(h)

    @torch.no_grad()
    def predicted(self, latents: Latents, edit: Edit | None) -> list[Tensor]:
        """P_t of every step, (batch, *sample_shape) each, in the model's own space."""
        return [step.x0_hat for step in reverse(self.model, latents, sampler=self.sampler, edit=edit)]

    @torch.no_grad()
    def effects(
        self, parameters: Tensor, latents: Latents, scorer: Scorer, annotations: Annotations
    ) -> dict[str, list[float | None]]:
        """The scorer's mean change of each score in the final images, in standard deviations: value, low and high.

        Over the samples that show the attribute before and after; None where they are fewer than ten.
        """
        changes: list[Tensor] = []
        sd = unit_of(annotations)
        for rows in row_batches(len(latents.seeds), self.sampler.batch_size):
            some = latents.select(rows)
            edits = (self.edit(parameters), None)
            images = (sample(self.model, some, sampler=self.sampler, edit=each).x_0.float().cpu() for each in edits)
            (edited, after), (plain, before) = (scores_and_keys(scorer, each) for each in images)
            shown = scorer.visible(edited) & scorer.visible(plain)
            changes.append(torch.where(shown, (after - before) / sd, torch.nan))
        columns = torch.cat(changes).double().numpy().T
        intervals = [mean_interval(column) for column in columns]
        return {
            name: [None if value != value else float(value) for value in (each.value, each.low, each.high)]
            for name, each in zip(annotations.attributes, intervals, strict=True)
        }


def check_gradient(model: DiffusionModel, scorer: Scorer, latents: Latents, name: str) -> None:
    """Check that gradients pass through a scorer.

    Raises:
        InputError: If they do not.
    """
    with torch.enable_grad():
        x_0 = latents.select([0]).x_T.detach().requires_grad_()
        scores = scores_of(scorer, torch.ones(()), model.codec.decode(x_0))
    if not scores.requires_grad:
        raise InputError(f"method={name} needs an annotator that gives gradients, and {scorer.id} gives none")


@torch.no_grad()
def moments(model: DiffusionModel, latents: Latents, sampler: Sampler) -> tuple[Tensor, float]:
    """Mean of h of unedited trajectories, (steps, *h_shape), and its spread; see `learning.spread_of`."""
    h = trajectories(model, latents, sampler).float()
    return h.mean(dim=0), spread_of(enumerate(h.unbind(1)))


@dataclass(frozen=True)
class Trained:
    """What a training has found.

    Attributes:
        parameters: The learnt parameters, in the shape of those that it began with.
        mean: Mean of h of unedited trajectories, (steps, *h_shape).
        scale: Standard deviation of h, over samples and places.
        report: Loss before the first and the last update, the annotator, and under `effects` what it sees at strength 1
            in final images of samples that were not trained on: by attribute in standard deviations, with intervals.
    """

    parameters: Tensor
    mean: Tensor
    scale: float
    report: dict[str, Any]


def train(
    name: str,
    model: DiffusionModel,
    scorer: Scorer,
    annotations: Annotations,
    aim: Objective,
    begin: Callable[[Tensor, float], tuple[Tensor, Delta]],
    *,
    updates: int,
    rate: float,
    batch: int,
    sampler: Sampler,
) -> Trained:
    """Train the parameters of an edit of h, at all steps, on the samples of annotations.

    Args:
        name: The method's name, for messages.
        model: The model of the annotations.
        scorer: The annotator.
        annotations: Its scores; a tenth of the samples, at least ten, is kept for the report.
        aim: What is trained for.
        begin: From the mean and standard deviation of h, the first parameters and how parameters change h.
        updates: Updates by Adam.
        rate: Adam's first rate.
        batch: Samples of an update.
        sampler: Settings whose eta, injection and batch size are taken.

    Raises:
        InputError: If the annotations are of another model or fewer than 20, or no gradient passes through the scorer.
    """
    annotations.check(model)
    (seeds, kept), whole = split(annotations), replace(sampler, start=0, stop=None)
    rows = epochs(len(seeds), batch, torch.Generator().manual_seed(0))

    def some() -> Latents:
        return model.latents([seeds[row] for row in next(rows)])

    check_gradient(model, scorer, some(), name)
    mean, scale = moments(model, some(), whole)
    start, delta = begin(mean, scale)
    task = TrainingTask(model, aim, delta, whole)
    found, losses = learn(start, lambda given, _: task.gradient(given, some()), updates=updates, rate=rate)
    effects = task.effects(found, model.latents(kept), scorer, annotations)
    report = {"loss_first": losses[0], "loss_last": losses[-1], "annotator": annotations.scorer, "effects": effects}
    return Trained(found, mean, scale, report)
