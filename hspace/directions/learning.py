"""Learning of offsets by gradients: common parts of the methods that train something on a frozen network."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import torch
from pydantic import Field
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.denoiser import Conditioning
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import Edit, reverse
from hspace.directions.settings import Settings
from hspace.system.progress import bar
from hspace.system.shards import in_batches
from hspace.types import Seeds

Gradient = Callable[[Tensor, int], tuple[float, Tensor]]
"""A loss and its gradient, as a function of the parameters and the number of the update."""


class LearningSettings(Settings):
    """Settings of the learning."""

    updates: int = Field(300, ge=1, le=1_000_000)
    """Updates by Adam, whose rate falls to 0 in equal steps."""
    rate: float = Field(0.02, gt=0)
    """Adam's first rate, in standard deviations of h."""
    batch: int = Field(8, ge=1)
    """Samples of an update; at most `batch_size` of them go through the network at once."""


def learn(start: Tensor, gradient: Gradient, *, updates: int, rate: float) -> tuple[Tensor, list[float]]:
    """Adam with a rate that falls linearly to 0; the learnt parameters, and the loss before each update."""
    parameters = start.clone()
    optimiser = torch.optim.Adam([parameters], lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda update: 1 - update / updates)
    losses: list[float] = []
    for update in bar(range(updates), stage="learn"):
        loss, parameters.grad = gradient(parameters, update)
        losses.append(loss)
        optimiser.step()
        schedule.step()
    return parameters, losses


def epochs(n: int, batch: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of rows without end: every row of n once, in a random order, then again."""
    rows: list[int] = []
    while True:
        while len(rows) < batch:
            rows += torch.randperm(n, generator=generator).tolist()
        yield rows[:batch]
        rows = rows[batch:]


def spread_of(pieces: Iterable[tuple[int, Tensor]]) -> float:
    """Root of the mean over steps of the variance of h over samples, channels and positions.

    Args:
        pieces: A step, and h of some samples at it; how the samples of a step are divided makes no difference.

    Examples:
        >>> pieces = (0, [1.0, 2.0]), (0, [3.0]), (1, [0.0, 2.0])
        >>> round(spread_of((step, torch.tensor(h)) for step, h in pieces) ** 2, 6)
        1.5
    """
    moments: defaultdict[int, Tensor] = defaultdict(lambda: torch.zeros(3, dtype=torch.float64))
    for step, h in pieces:
        x = h.float().cpu().double()
        moments[step] += torch.stack([x.new_tensor(x.numel()), x.sum(), x.square().sum()])
    count, total, squares = torch.stack([*moments.values()]).unbind(1)
    return float(((squares - total.square() / count) / (count - 1)).mean().sqrt())


def one_pass(cond: Conditioning | None) -> Conditioning | None:
    """The condition without the second pass of guidance; a guidance that is an input stays."""
    if cond is None:
        return None
    return Conditioning(cond.prompt, {name: value[:1] for name, value in cond.inputs.items()})


def clean_samples(model: DiffusionModel, seeds: Seeds, sampler: Sampler, edit: Edit | None = None) -> Tensor:
    """Generated samples in the model's own space, (n, *sample_shape) float32 on the CPU."""

    @torch.no_grad()
    def make(rows: range) -> Tensor:
        latents: Latents = model.latents([seeds[row] for row in rows])
        x_0 = latents.x_T
        for step in reverse(model, latents, sampler=sampler, edit=edit):
            x_0 = step.x_t
        return x_0.float().cpu()

    return in_batches(range(len(seeds)), sampler.batch_size, make)
