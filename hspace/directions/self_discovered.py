# pyright: strict, reportUnknownMemberType=false
"""Self-discovered vectors: the constant offset of h under which a frozen network explains images of a concept best."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.directions.annotations import extremes
from hspace.directions.examples import difference_meta, how_chosen
from hspace.directions.learning import LearningSettings, clean_samples, epochs, learn, one_pass, spread_of
from hspace.directions.method import Sources, method
from hspace.directions.positions import everywhere, num_channels
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, check_sides
from hspace.system.shards import row_batches
from hspace.types import InputError, Seeds


class SelfDiscoveredSettings(LearningSettings):
    """Settings of `method=self_discovered`."""

    attribute: str = "glasses"
    """Attribute that the images show: see `hspace list attributes`."""
    prompt: str | None = None
    """Prompt with the concept, for a model of prompts; null: the annotator chooses the images."""
    k: int = Field(50, ge=1)
    """Images that show the concept."""
    num_samples: int = Field(500, ge=2, le=MAX_SAMPLES)
    """Annotated samples to choose them from, where there is no prompt."""
    per_step: bool = False
    """Whether each step has a vector of its own; an update then takes a batch at every step."""

    @model_validator(mode="after")
    def _check_examples(self) -> "SelfDiscoveredSettings":
        if self.prompt is None:
            check_sides(self.k, self.num_samples)
        return self

    def count(self) -> int:
        """Number of directions."""
        return 1


@method("self_discovered", settings=SelfDiscoveredSettings, reads=("annotations",))
def find(model: DiffusionModel, sources: Sources, settings: SelfDiscoveredSettings) -> Directions:
    """One vector of channels, added at all positions, by which the frozen network explains images of a concept.

    Source: Li et al. 2024 (arXiv 2311.17216), sec. 3; without a prompt, the annotator chooses the images.
    """
    sampler = sources.sampler
    if settings.prompt is None:
        annotations = sources.annotations(settings.num_samples)
        chosen = extremes(annotations, settings.attribute, settings.k).plus
        how, annotator, showing = how_chosen(annotations, ()), annotations.provenance.annotator, model
    else:
        chosen, how, annotator = sources.seeds(settings.k), f", images of {settings.prompt!r}"[:150], None
        showing = model.with_prompt(settings.prompt, 1.0 if model.cond is None else model.cond.guidance)
    found = self_discovered(
        model, clean_samples(showing, chosen, sampler), name=settings.attribute, updates=settings.updates,
        rate=settings.rate, batch=settings.batch, per_step=settings.per_step, seeds=chosen, sampler=sampler,
    )  # fmt: skip
    provenance = replace(found.meta.provenance, annotator=annotator)
    return replace(found, meta=replace(found.meta, method=f"{found.meta.method}{how}", provenance=provenance))


def self_discovered(
    model: DiffusionModel,
    x_0: Tensor,
    *,
    name: str,
    updates: int = 300,
    rate: float = 0.02,
    batch: int = 8,
    per_step: bool = False,
    seeds: Seeds = (),
    sampler: Sampler = Sampler(),
) -> Directions:
    """The offset c of h that minimises |eps - eps_theta(x_t, t; h + c)|² over images that show a concept.

    The network is frozen, and sees noised images of the concept without being told of it (without guidance, and of a
    model of prompts under a prompt that does not name it). What it lacks to predict their noise is what c learns.

    Args:
        model: The model, under the condition that does not name the concept.
        x_0: Images of the concept in the model's own space, (n, *sample_shape); see `learning.clean_samples`.
        name: Name of the concept.
        updates: Updates by Adam, whose rate falls to 0 in equal steps.
        rate: Adam's first rate, in standard deviations of h.
        batch: Images of an update, all at one step.
        per_step: Whether each step has a vector of its own; an update then takes a batch at every step.
        seeds: Seeds of the images, if they were generated.
        sampler: Settings whose eta and batch size are taken.

    Returns:
        One direction of unit "learnt offset", the same at every position, and at every step unless `per_step`. Its
        report holds the loss without and with it, on the same images and noise.

    Raises:
        InputError: If there is no image, or they are not of the model's shape.

    Source: Li et al. 2024 (arXiv 2311.17216), eq. 3. Ours: model times are those that the process visits, since a
    direction has no others; the rate is in standard deviations of h, and falls; images may be chosen by a scorer.
    """
    if len(x_0) == 0 or tuple(x_0.shape[1:]) != model.sample_shape:
        raise InputError(f"images must be (n, {', '.join(map(str, model.sample_shape))}), got {tuple(x_0.shape)}")
    generator, steps = torch.Generator().manual_seed(0), range(len(model.process.timesteps))
    task = DenoisingTask(model, sampler.batch_size)
    scale = task.spread(x_0[:batch], steps, generator)
    rows = epochs(len(x_0), batch, generator)

    def draws(visited: Sequence[int]) -> list[tuple[int, Tensor, Tensor]]:
        batches = ((step, x_0[next(rows)]) for step in visited)
        return [(step, images, torch.randn(images.shape, generator=generator)) for step, images in batches]

    def gradient(vectors: Tensor, update: int) -> tuple[float, Tensor]:
        drawn = int(torch.randint(len(steps), (), generator=generator))
        return task.gradient(vectors, draws(steps if per_step else [drawn]), scale)

    held = draws(steps)
    start = torch.zeros(len(steps) if per_step else 1, num_channels(model.h_shape))
    vectors, _ = learn(start, gradient, updates=updates, rate=rate)
    before, after = (task.gradient(each, held, scale)[0] for each in (start, vectors))
    meta = difference_meta(
        model, "h", model.process.etas(sampler.eta), f"self-discovered{' per step' if per_step else ''}", name,
        tuple(map(int, seeds)),
    )  # fmt: skip
    report = {"loss_without": before, "loss_with": after, "rate_in_h": rate * scale}
    offsets = everywhere(scale * vectors, model.h_shape).expand(len(steps), *model.h_shape)
    return Directions(offsets[None].contiguous(), replace(meta, unit="learnt offset", report=report))


class DenoisingTask:
    """The squared error of the noise that a frozen network predicts under an offset of h, and its gradient."""

    def __init__(self, model: DiffusionModel, batch_size: int) -> None:
        """Take the model; guidance is left out, and at most `batch_size` images go through the network at once."""
        self.model = model
        self.batch_size = batch_size
        self._cond = one_pass(model.cond)

    def loss(self, offset: Tensor, step: int, x_0: Tensor, noise: Tensor) -> Tensor:
        """Mean of |eps - eps_theta(x_t, t; h + offset)|², for an offset (channels,) of every position."""
        model, t = self.model, self.model.process.timesteps[step]
        x_t = model.process.add_noise(x_0, noise, t).to(model.device)
        with torch.no_grad():
            encoded = model.denoiser.encode(x_t, t, self._cond)
        added = everywhere(offset, model.h_shape).to(encoded.h)
        output = model.denoiser.decode(encoded.h + added, encoded).to(x_t.dtype)
        return (noise.to(x_t) - model.process.to_eps(output, x_t, t)).square().mean()

    def gradient(
        self, vectors: Tensor, draws: Sequence[tuple[int, Tensor, Tensor]], scale: float = 1.0
    ) -> tuple[float, Tensor]:
        """The mean loss of draws of (step, images, noise) at `scale` times the vectors, (1 or steps, channels)."""
        total, slope = 0.0, torch.zeros_like(vectors)
        for step, x_0, noise in draws:
            row = step if len(vectors) > 1 else 0
            for rows in row_batches(len(x_0), self.batch_size):
                with torch.enable_grad():
                    offset = vectors[row].detach().requires_grad_()
                    part = slice(rows.start, rows.stop)
                    share = len(rows) / len(x_0) / len(draws)
                    loss = share * self.loss(scale * offset, step, x_0[part], noise[part])
                slope[row] += torch.autograd.grad(loss, offset)[0]
                total += loss.item()
        return total, slope

    @torch.no_grad()
    def spread(self, x_0: Tensor, steps: Sequence[int], generator: torch.Generator) -> float:
        """Standard deviation of h over all channels, positions and steps, of noised images."""
        model = self.model

        def pieces() -> Iterator[tuple[int, Tensor]]:
            for step in steps:
                t = model.process.timesteps[step]
                x_t = model.process.add_noise(x_0, torch.randn(x_0.shape, generator=generator), t).to(model.device)
                for rows in row_batches(len(x_0), self.batch_size):
                    yield step, model.denoiser.encode(x_t[rows.start : rows.stop], t, self._cond).h

        return spread_of(pieces())
