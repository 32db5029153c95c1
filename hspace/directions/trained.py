# pyright: strict, reportUnknownMemberType=false
"""Trained offsets of h: one per step, by the gradient of a scorer on the predicted image (Asyrp)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import Edit, adding, reverse
from hspace.directions.annotations import Annotations
from hspace.directions.examples import difference_meta
from hspace.directions.learning import LearningSettings, epochs, learn, spread_of
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES
from hspace.metrics.interval import mean_interval
from hspace.system.shards import row_batches
from hspace.types import InputError, LogitScorer, Scorer

LEAST_FRESH = 10
"""Samples that are not trained on: with fewer no effect has an interval."""


class TrainedSettings(LearningSettings):
    """Settings of `method=trained`."""

    attribute: str = "glasses"
    """Attribute that the direction is to raise: see `hspace list attributes`."""
    rise: float = Field(1.0, gt=0)
    """Wanted rise of the annotator's score at strength 1, in standard deviations."""
    conditions: tuple[str, ...] | None = None
    """Attributes that are held; null: all others."""
    hold: float = Field(1.0, ge=0)
    """Weight of the mean squared change of what is held, in standard deviations."""
    likeness: float = Field(1.0, ge=0)
    """Weight of the mean absolute change of the predicted image."""
    num_samples: int = Field(500, ge=20, le=MAX_SAMPLES)
    """Annotated samples, whose spread is the unit; a tenth, at least ten, is kept for the report."""
    updates: int = Field(60, ge=1, le=1_000_000)
    """Updates by Adam, whose rate falls to 0 in equal steps."""

    def count(self) -> int:
        """Number of directions."""
        return 1


@method("trained", settings=TrainedSettings, reads=("annotations",))
def find(model: DiffusionModel, sources: Sources, settings: TrainedSettings) -> Directions:
    """One offset of h per step, trained by the annotator's gradient on the predicted image.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3.3, with vectors in place of a network, and any scorer's loss.
    """
    return trained(
        model, sources.annotator(), sources.annotations(settings.num_samples), settings.attribute,
        target=settings.rise, conditions=settings.conditions, hold=settings.hold, likeness=settings.likeness,
        updates=settings.updates, rate=settings.rate, batch=settings.batch, sampler=sources.sampler,
    )  # fmt: skip


@dataclass(frozen=True)
class Aim:
    """What an offset is trained for: a loss of the predicted image before and after it.

    The scores are those that the annotator sorts by, in standard deviations over the annotated samples.

    Attributes:
        scorer: The annotator, through which gradients must pass.
        column: Index of the attribute that is to rise.
        held: Indices of the attributes that are to stay.
        sd: Standard deviation of each score, (attributes,).
        target: Wanted rise, in standard deviations.
        hold: Weight of the held attributes.
        likeness: Weight of the change of the image.
    """

    scorer: Scorer
    column: int
    held: tuple[int, ...]
    sd: Tensor
    target: float
    hold: float
    likeness: float

    def scores(self, images: Tensor) -> Tensor:
        """Scores of images in standard deviations, (batch, attributes)."""
        images = images.float().cpu()
        read = self.scorer.logits if isinstance(self.scorer, LogitScorer) else self.scorer
        return read(images) / self.sd

    def loss(self, model: DiffusionModel, edited: Tensor, plain: Tensor) -> Tensor:
        """The loss of each sample, (batch,), of predicted images in the model's own space.

        (rise - target)² + hold · mean of (change of a held score)² + likeness · mean of |P' - P|.
        """
        change = self.scores(model.codec.decode(edited)) - self.scores(model.codec.decode(plain))
        missing = (change[:, self.column] - self.target).square()
        held = change[:, list(self.held)].square().mean(dim=1) if self.held else torch.zeros_like(missing)
        likeness = (edited - plain).abs().flatten(1).mean(dim=1)
        return missing + self.hold * held + self.likeness * likeness.to(missing)


def trained(
    model: DiffusionModel,
    scorer: Scorer,
    annotations: Annotations,
    attribute: str,
    *,
    target: float = 1.0,
    conditions: Sequence[str] | None = None,
    hold: float = 1.0,
    likeness: float = 1.0,
    updates: int = 60,
    rate: float = 0.02,
    batch: int = 8,
    sampler: Sampler = Sampler(),
) -> Directions:
    """One offset of h per step under which the scorer sees an attribute rise in the predicted image P_t.

    At every step of an edited trajectory, P_t is compared with that of the same sample's unedited trajectory. The
    gradient of a step passes through its own decoder alone, as published: the network up to the tap, and earlier steps,
    count as given.

    Args:
        model: The model of the annotations.
        scorer: The annotator, which must give gradients; judge the result with another one.
        annotations: Its scores of the samples to train on.
        attribute: Attribute that is to rise.
        target: Wanted rise at strength 1, in standard deviations.
        conditions: Attributes that are held; None holds all others.
        hold: Weight of the mean squared change of the held scores, in standard deviations.
        likeness: Weight of the mean absolute change of P_t.
        updates: Updates by Adam, whose rate falls to 0 in equal steps; each goes through a batch of trajectories.
        rate: Adam's first rate, in standard deviations of h.
        batch: Samples of an update.
        sampler: Settings whose eta, injection and batch size are taken; all steps are edited.

    Returns:
        One direction of unit "target". Its report holds what the annotator sees at strength 1 in the final images of
        samples that were not trained on: `effects` by attribute in standard deviations, with intervals. The judge's
        effect beside it shows the gap between the scorer that trained and one that did not.

    Raises:
        InputError: If the annotations are of another model or fewer than 20, an attribute is unknown or does not vary,
            or no gradient passes through the scorer.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3.3 and eq. 9. Ours: a vector per step in place of a network; a
    scorer with a target, and a penalty on other attributes, in place of CLIP's direction; rates that fall.
    """
    annotations.check(model)
    if len(annotations.seeds) < 2 * LEAST_FRESH:
        raise InputError(f"training needs at least {2 * LEAST_FRESH} annotated samples, got {len(annotations.seeds)}")
    aim = _aim(scorer, annotations, attribute, target, conditions, hold, likeness)
    task = TrainingTask(model, aim, replace(sampler, start=0, stop=None))
    fresh = max(LEAST_FRESH, len(annotations.seeds) // 10)
    seeds, kept = annotations.seeds[:-fresh], annotations.seeds[-fresh:]
    rows = epochs(len(seeds), batch, torch.Generator().manual_seed(0))

    def some() -> Latents:
        return model.latents([seeds[row] for row in next(rows)])

    task.check_gradient(some())
    scale = task.spread(some())
    start = torch.zeros(len(model.process.timesteps), *model.h_shape)
    offsets, losses = learn(start, lambda given, _: task.gradient(given, some(), scale), updates=updates, rate=rate)
    effects = task.effects(scale * offsets, model.latents(kept), annotations.attributes)
    how = f"trained by {annotations.scorer}"
    eta = model.process.etas(sampler.eta)
    meta = difference_meta(model, "h", eta, how, attribute, annotations.seeds, annotations.provenance.annotator)
    report = {"loss_first": losses[0], "loss_last": losses[-1], "annotator": annotations.scorer, "effects": effects}
    return Directions((scale * offsets)[None], replace(meta, unit="target", report=report))


class TrainingTask:
    """The loss of offsets of h, (steps, *h_shape), over trajectories, and its gradient."""

    def __init__(self, model: DiffusionModel, aim: Aim, sampler: Sampler) -> None:
        """Take the model, what the offsets are trained for, and how trajectories are sampled."""
        self.model = model
        self.aim = aim
        self.sampler = sampler

    def gradient(self, offsets: Tensor, latents: Latents, scale: float = 1.0) -> tuple[float, Tensor]:
        """The mean loss over samples and steps at `scale` times the offsets; each step's gradient is its own."""
        total, slope = 0.0, torch.zeros_like(offsets)
        for rows in row_batches(len(latents.seeds), self.sampler.batch_size):
            share = len(rows) / len(latents.seeds) / len(offsets)
            loss, part = self._gradient(scale * offsets, latents.select(rows))
            total += share * loss
            slope += share * scale * part
        return total, slope

    def _gradient(self, offsets: Tensor, latents: Latents) -> tuple[float, Tensor]:
        """The sum over steps of the mean loss of one pass, and the gradient of each step's loss by its own offset."""
        model, process, total, slopes = self.model, self.model.process, 0.0, list[Tensor]()
        dtype = torch.promote_types(model.dtype, torch.float32)
        placed = offsets.to(model.device, model.dtype)
        plain = self._predicted(latents, None)
        x_t = latents.x_T.to(model.device, dtype)
        with torch.no_grad():
            for step in reverse(model, latents, sampler=self.sampler, edit=adding(placed[None])):
                with torch.enable_grad():
                    offset = placed[step.index].detach().requires_grad_()
                    output = model.denoiser.decode(step.encoded.h + offset, step.encoded).to(dtype)
                    edited = process.to_x0(output, x_t, process.timesteps[step.index])
                    loss = self.aim.loss(model, edited, plain[step.index]).mean()
                slopes.append(torch.autograd.grad(loss, offset)[0].to(offsets))
                total += loss.item()
                x_t = step.x_t
        return total, torch.stack(slopes)

    @torch.no_grad()
    def _predicted(self, latents: Latents, edit: Edit | None) -> list[Tensor]:
        """P_t of every step, (batch, *sample_shape) each, in the model's own space."""
        return [step.x0_hat for step in reverse(self.model, latents, sampler=self.sampler, edit=edit)]

    @torch.no_grad()
    def spread(self, latents: Latents) -> float:
        """Standard deviation of h over all channels, positions and steps of unedited trajectories."""
        parts = (latents.select(rows) for rows in row_batches(len(latents.seeds), self.sampler.batch_size))
        steps = (step for part in parts for step in reverse(self.model, part, sampler=self.sampler))
        return spread_of((step.index, step.encoded.h) for step in steps)

    @torch.no_grad()
    def effects(self, offsets: Tensor, latents: Latents, attributes: Sequence[str]) -> dict[str, list[float | None]]:
        """The scorer's mean change of each score in the final images, in standard deviations: value, low and high."""
        changes: list[Tensor] = []
        edit = adding(offsets[None].to(self.model.device, self.model.dtype))
        for rows in row_batches(len(latents.seeds), self.sampler.batch_size):
            some = latents.select(rows)
            edited, plain = (self.model.codec.decode(self._predicted(some, each)[-1]) for each in (edit, None))
            changes.append(self.aim.scores(edited) - self.aim.scores(plain))
        columns = torch.cat(changes).double().numpy().T
        intervals = [mean_interval(column) for column in columns]
        return {
            name: [None if value != value else float(value) for value in (each.value, each.low, each.high)]
            for name, each in zip(attributes, intervals, strict=True)
        }

    def check_gradient(self, latents: Latents) -> None:
        """Check that gradients pass through the scorer.

        Raises:
            InputError: If they do not.
        """
        with torch.enable_grad():
            x_0 = latents.select([0]).x_T.detach().requires_grad_()
            scores = self.aim.scores(self.model.codec.decode(x_0))
        if not scores.requires_grad:
            raise InputError(
                f"method=trained needs an annotator that gives gradients, and {self.aim.scorer.id} gives none"
            )


def _aim(
    scorer: Scorer,
    annotations: Annotations,
    attribute: str,
    target: float,
    conditions: Sequence[str] | None,
    hold: float,
    likeness: float,
) -> Aim:
    column = annotations.column(attribute)
    others = [name for name in annotations.attributes if name != attribute] if conditions is None else conditions
    columns = zip(annotations.sort_keys.unbind(1), annotations.visible.unbind(1), strict=True)
    sd = torch.stack([values[shown].std() if shown.sum() > 1 else torch.tensor(0.0) for values, shown in columns])
    held = tuple(annotations.column(name) for name in others)
    if not sd[column] > 0:
        raise InputError(f"{attribute} must vary over the samples, got the same score for all of them")
    # A score that never varies is not a condition; it is read as it is.
    return Aim(scorer, column, held, torch.where(sd > 0, sd, torch.ones_like(sd)), target, hold, likeness)
