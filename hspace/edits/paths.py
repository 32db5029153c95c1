# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Movements of x_t at one step by the geometry of h: along a pullback vector, and along the shortest path of h."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.directions.learning import one_pass
from hspace.directions.pullback import check_step, sample_at
from hspace.types import Images, InputError

Features = Callable[[Tensor], Tensor]
"""What is measured in: (points, ...) to (points, ...)."""


@dataclass(frozen=True)
class Geodesic:
    """A path of x_t whose steps are short in h.

    Attributes:
        points: The path with its two ends, (points, *sample_shape).
        length: Length of the path in h, the sum of the distances of neighbours.
        straight: Length in h of the straight line of x_t with as many points.
        energy: Sum of the squared distances before every update and after the last one.
    """

    points: Tensor
    length: float
    straight: float
    energy: tuple[float, ...]


def geodesic(
    model: DiffusionModel,
    ends: Latents,
    *,
    step: int,
    points: int = 8,
    updates: int = 50,
    sampler: Sampler = Sampler(),
) -> Geodesic:
    """The path between two samples at one step that is shortest in h, with `points` places on it.

    Args:
        model: The model.
        ends: Two samples.
        step: Index of the step at which they are joined, where 0 is the noisiest.
        points: Number of places, the ends among them.
        updates: Most updates of the path.
        sampler: Settings whose eta is taken for the two trajectories up to the step.

    Returns:
        The path on the CPU; lengths are in h.

    Raises:
        InputError: If there are not two samples, the step does not exist, or a number is out of range.

    Source: Park et al. 2023 (arXiv 2307.12868), sec. 3.1 and appendix D: the metric of x_t is that of h, so that a path
    is as long as it is in h.
    """
    if len(ends.seeds) != 2:
        raise InputError(f"a geodesic joins two samples, got {len(ends.seeds)}")
    x_t, t, cond = sample_at(model, ends, step, sampler), model.process.timesteps[step], one_pass(model.cond)

    def features(x: Tensor) -> Tensor:
        return model.denoiser.encode(x, t, cond).h.float()

    return shortest_path(features, x_t[0].float(), x_t[1].float(), points=points, updates=updates)


def shortest_path(features: Features, start: Tensor, end: Tensor, *, points: int, updates: int) -> Geodesic:
    """The points between two ends that minimise the sum of the squared distances of neighbours in `features`.

    Such points lie evenly on the path that is shortest there. L-BFGS begins with the straight line, and its line search
    lets no update make the sum larger.

    Args:
        features: What distances are measured in.
        start: One end, of any shape.
        end: The other end, of the same shape.
        points: Number of places, the ends among them.
        updates: Most updates.

    Raises:
        InputError: If there are fewer than three points or no update.

    Examples:
        >>> path = shortest_path(lambda x: x, torch.zeros(2), torch.ones(2), points=3, updates=5)
        >>> path.points[1].tolist(), round(path.length, 3)
        ([0.5, 0.5], 1.414)
    """
    if points < 3 or updates < 1:
        raise InputError(f"a geodesic needs 3 points or more and 1 update or more, got {points} and {updates}")
    shares = torch.linspace(0, 1, points).to(start).reshape(-1, *(1,) * start.ndim)
    line = (1 - shares) * start + shares * end
    inner = line[1:-1].clone().requires_grad_()
    with torch.no_grad():
        h = features(line)
    # The ends do not move, so that what is measured of them stays.
    straight, first, last = _length(h), h[:1], h[-1:]
    optimiser = torch.optim.LBFGS([inner], max_iter=1, line_search_fn="strong_wolfe")

    def path() -> Tensor:
        return torch.cat([first, features(inner), last])

    def closure() -> float:
        with torch.enable_grad():
            found = _energy(path())
            inner.grad = torch.autograd.grad(found, inner)[0].contiguous()  # LBFGS views it as one row
        return found.item()

    energies = [float(optimiser.step(closure)) for _ in range(updates)]
    with torch.no_grad():
        h = path()
    energies.append(_energy(h).item())
    return Geodesic(torch.cat([line[:1], inner.detach(), line[-1:]]).cpu(), _length(h), straight, tuple(energies))


@torch.no_grad()
def moved(model: DiffusionModel, x_t: Tensor, v: Tensor, *, step: int, strength: float, probe: float = 1.0) -> Tensor:
    """x_t moved along a direction of itself by what the network makes of it: x + s (eps(x + d v / |v|) - eps(x)).

    Args:
        model: The model.
        x_t: Samples at a step, (batch, *sample_shape); see `pullback.sample_at`.
        v: Direction of x_t, such as one of a pullback basis, (*sample_shape).
        step: Index of the step.
        strength: s.
        probe: d, the length of the movement that the network is asked about.

    Raises:
        InputError: If the direction is zero, or the step does not exist.

    Source: Park et al. 2023 (arXiv 2307.12868), sec. 3.3, x-space guidance.
    """
    check_step(model, step)
    if not v.norm() > 0:
        raise InputError("a direction to move along must not be zero")
    unit = (v / v.norm()).to(x_t)
    return x_t + strength * (_noise(model, x_t + probe * unit, step) - _noise(model, x_t, step))


@torch.no_grad()
def onwards(model: DiffusionModel, x_t: Tensor, *, step: int) -> Images:
    """The images that samples at a step lead to without further noise (DDIM), (batch, channel, height, width).

    Raises:
        InputError: If the step does not exist.
    """
    check_step(model, step)
    process = model.process
    for index, (t, t_prev) in enumerate(process.pairs()):
        if index >= step:
            output = _output(model, x_t, index)
            x_t, _ = process.posterior(process.to_x0(output, x_t, t), process.to_eps(output, x_t, t), t, t_prev, 0.0)
    return model.codec.decode(x_t).float().cpu()


def _noise(model: DiffusionModel, x_t: Tensor, step: int) -> Tensor:
    return model.process.to_eps(_output(model, x_t, step), x_t, model.process.timesteps[step])


def _output(model: DiffusionModel, x_t: Tensor, step: int) -> Tensor:
    encoded = model.denoiser.encode(x_t, model.process.timesteps[step], model.cond)
    return model.denoiser.decode(encoded.h, encoded).to(x_t.dtype)


def _energy(h: Tensor) -> Tensor:
    """Sum of the squared distances of neighbours of (points, ...)."""
    return (h[1:] - h[:-1]).square().sum()


def _length(h: Tensor) -> float:
    """Sum of the distances of neighbours of (points, ...)."""
    return float((h[1:] - h[:-1]).flatten(1).double().norm(dim=1).sum())
