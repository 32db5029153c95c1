# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Samples mixed with each other: swap of h, vector arithmetic and interpolation.

The h that a sample gets from another one is that of the other's own, unedited trajectory at the same step.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.recording import trajectories
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.supervised import from_pairs
from hspace.edits.sums import Edits, edit
from hspace.system.shards import in_batches
from hspace.types import Images, InputError

MIXED = ("h", "x_T", "both")
PARALLEL = 1e-4
"""Sine of the angle below which two vectors are mixed linearly, since the arc between them is straight or undefined."""


def swap(
    model: DiffusionModel,
    latents: Latents,
    donors: Latents,
    *,
    sampler: Sampler = Sampler(),
) -> Images:
    """Samples with the h of their donors at the edited steps; x_T and z stay their own.

    Args:
        model: The model to sample.
        latents: The samples.
        donors: Equally many samples, whose h is taken.
        sampler: Settings of the sampling and of the steps at which h is swapped.

    Returns:
        Images, (batch, channel, height, width), on the CPU.

    Raises:
        InputError: If the numbers of samples and donors differ.

    Source: Haas et al. 2024, fig. 2a.
    """
    _check_partners(latents, donors)

    def make(rows: range) -> Images:
        h = sample(model, donors.select(rows), sampler=sampler, record_h=True).h
        return sample(model, latents.select(rows), sampler=sampler, replace_h=h).x_0.cpu()

    return in_batches(range(len(latents.seeds)), sampler.batch_size, make)


def arithmetic(
    model: DiffusionModel,
    latents: Latents,
    plus: Latents,
    minus: Latents,
    *,
    strengths: Sequence[float],
    sampler: Sampler = Sampler(),
) -> Edits:
    """Samples with strength · (h of `plus` - h of `minus`) added at the edited steps.

    Args:
        model: The model to sample.
        latents: The samples to edit.
        plus: One sample that has what the edit adds.
        minus: One sample that lacks it, of the same person or of another.
        strengths: Factors of the difference; the paper uses 1/5.
        sampler: Settings of the sampling and of the edited steps; a row is a sample at one strength.

    Returns:
        Images, (batch, strengths, channel, height, width), on the CPU.

    Raises:
        InputError: If `plus` or `minus` is not one sample, or an argument is out of range.

    Source: Haas et al. 2024, fig. 2b.
    """
    if len(plus.seeds) != 1 or len(minus.seeds) != 1:
        raise InputError(f"arithmetic takes one sample of each kind, got {len(plus.seeds)} and {len(minus.seeds)}")
    h_plus, h_minus = ({"pair": trajectories(model, latents, sampler)[0]} for latents in (plus, minus))
    difference = from_pairs(model, h_plus, h_minus, name="difference", eta=sampler.eta, seeds=plus.seeds + minus.seeds)
    return edit(model, latents, difference, component=0, strengths=strengths, sampler=sampler)


def interpolate(
    model: DiffusionModel,
    first: Latents,
    second: Latents,
    *,
    weights: Sequence[float],
    space: str = "both",
    spherical: bool = True,
    sampler: Sampler = Sampler(),
) -> Edits:
    """Samples between pairs of samples. Memory: 8 · batch · steps · d bytes of h.

    Args:
        model: The model to sample.
        first: Samples at weight 0.
        second: Equally many samples, at weight 1.
        weights: Places between the two, in [0, 1].
        space: Space of the interpolation: `h`, which replaces the computed one while x_T and z are the first sample's;
            `x_T`, with z, while h follows by itself; or `both`.
        spherical: Whether to follow the great arc at each step, which keeps the norm of noise, instead of the straight
            line.
        sampler: Settings of the sampling and of the steps at which h is replaced; a row is a sample at one weight.

    Returns:
        Images, (batch, weights, channel, height, width), on the CPU.

    Raises:
        InputError: If `first` and `second` have different numbers of samples, or an argument is out of range.
    """
    _check_partners(first, second)
    if space not in MIXED:
        raise InputError(f"space must be one of {', '.join(MIXED)}, got {space}")
    if not weights or not all(0 <= weight <= 1 for weight in weights):
        raise InputError(f"weights must be in [0, 1] and at least one, got {list(weights)}")
    h = None if space == "x_T" else [trajectories(model, latents, sampler) for latents in (first, second)]

    def make(rows: range) -> Images:
        pairs = [row // len(weights) for row in rows]
        weight = torch.tensor([weights[row % len(weights)] for row in rows])
        ours, theirs = first.select(pairs), second.select(pairs)
        noise = ours if space == "h" else _between_noise(ours, theirs, weight, spherical)
        mixed = None if h is None else between(h[0][pairs], h[1][pairs], weight, spherical, len(model.h_shape))
        return sample(model, noise, sampler=sampler, replace_h=mixed).x_0.cpu()

    rows = range(len(first.seeds) * len(weights))
    return in_batches(rows, sampler.batch_size, make).unflatten(0, (-1, len(weights)))


def between(first: Tensor, second: Tensor, weight: Tensor, spherical: bool, axes: int = 3) -> Tensor:
    """Points between two batches of vectors at weights (batch,); the last `axes` axes hold one vector.

    Source: Shoemake 1985, for the great arc: sin((1 - w) θ) / sin θ · first + sin(w θ) / sin θ · second.

    Examples:
        >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> between(x, y, torch.tensor([0.5]), spherical=True, axes=1)
        tensor([[0.7071, 0.7071]])
    """
    weight = weight.to(first).reshape(-1, *(1,) * (first.ndim - 1))
    straight = torch.lerp(first, second, weight)
    if not spherical:
        return straight
    cosine = torch.cosine_similarity(first.flatten(-axes).double(), second.flatten(-axes).double(), dim=-1)
    angle = cosine.clamp(-1, 1).arccos().reshape(*cosine.shape, *(1,) * axes)
    sine = angle.sin()
    arc = ((1 - weight) * angle).sin() / sine * first + (weight * angle).sin() / sine * second
    return torch.where(sine < PARALLEL, straight, arc.to(first))


def _between_noise(first: Latents, second: Latents, weight: Tensor, spherical: bool) -> Latents:
    x_T, z = (between(a, b, weight, spherical) for a, b in ((first.x_T, second.x_T), (first.z, second.z)))
    # The residual of an inverted image is mixed linearly, since it is not noise.
    zero = torch.zeros_like(x_T)
    ours, theirs = (zero if latents.residual is None else latents.residual for latents in (first, second))
    return replace(first, x_T=x_T, z=z, residual=between(ours, theirs, weight, False))


def _check_partners(first: Latents, second: Latents) -> None:
    if len(first.seeds) != len(second.seeds):
        raise InputError(f"every sample needs a partner, got {len(first.seeds)} samples and {len(second.seeds)}")
