# pyright: strict, reportUnknownMemberType=false
"""The reverse process, with an optional edit of h at every step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.denoiser import Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.types import HForBatch, HTrajectory, Images, InputError

ALIKE = 1e-5
"""Difference of two samples' h, relative to its size, under which there is only rounding."""


@dataclass(frozen=True)
class Samples:
    """Results of the reverse process.

    Attributes:
        x_0: Images, (batch, channel, height, width), about [-1, 1], not clipped.
        h: The h that the network computed at every step, before any edit, (batch, steps, *h_shape); None if it was not
            recorded.
    """

    x_0: Images
    h: HTrajectory | None


Edit = Callable[[int, Encoded], Tensor]
"""An edit: what takes the place of the h of a step, (batch, *h_shape), as a function of the step and its h."""


LiveEdit = Callable[[int, Tensor, Encoded], Tensor]
"""The same as a function of the step, its x_t (batch, *sample_shape), and its h."""


@dataclass(frozen=True)
class Step:
    """Results of one step of the reverse process.

    Attributes:
        index: Index of the step; 0 is the noisiest.
        encoded: Results of the network up to the tap at the step's x_t, before any edit.
        x0_hat: Predicted clean image P_t, edited, in the model's space.
        x_t: The less noisy sample that the step leads to; the clean one at the last step.
    """

    index: int
    encoded: Encoded
    x0_hat: Tensor
    x_t: Tensor


def adding(offsets: HForBatch) -> Edit:
    """The edit that adds offsets of h, (1 or batch, steps, *h_shape), to the h that its own trajectory computes."""
    return lambda step, encoded: encoded.h + offsets[:, step]


def replacing(h: HForBatch) -> Edit:
    """The edit that puts other features, (1 or batch, steps, *h_shape), in the place of h."""
    return lambda step, encoded: h[:, step].expand_as(encoded.h)


def reverse(
    model: DiffusionModel,
    latents: Latents,
    *,
    sampler: Sampler = Sampler(),
    edit: Edit | None = None,
    live: LiveEdit | None = None,
) -> Iterator[Step]:
    """The reverse process, step by step; gradients can pass through it, and it can be ended at any step.

    The network computes in the model's dtype, the process around it in float32 or better.

    Args:
        model: The model, whose process says which steps are taken.
        latents: x_T and z of the batch. Where sigma is 0 (eta 0, or the last step) z is not read.
        sampler: Settings whose eta, injection and edited steps are taken.
        edit: Function of the step and its h that gives the edited h; None leaves h.
        live: Such a function of the step's x_t too, in the place of `edit`.

    Raises:
        InputError: If eta is not one value or one per step, the edited steps are not among those of the process, or h
            is edited in two ways.

    Source: Haas et al. 2024 (arXiv 2303.11073), eqs. 2-5; Kwon et al. 2023 (arXiv 2210.10960), eq. 5, for Asyrp.
    """
    if edit is not None and live is not None:
        raise InputError("give an edit or a live one, not both")
    process, denoiser = model.process, model.denoiser
    etas, window = process.etas(sampler.eta), sampler.window(len(process.timesteps))
    dtype, device = torch.promote_types(model.dtype, torch.float32), model.device
    x_t, z = latents.x_T.to(device, dtype), latents.z.to(device)
    for i, (t, t_prev) in enumerate(process.pairs()):
        encoded = denoiser.encode(x_t, t, model.cond)
        h = encoded.h
        if i in window and live is not None:
            h = live(i, x_t, encoded)
        elif i in window and edit is not None:
            h = edit(i, encoded)
        output = usual = denoiser.decode(h, encoded).to(dtype)
        if sampler.injection == "asyrp" and h is not encoded.h:
            usual = denoiser.decode(encoded.h, encoded).to(dtype)
        x0_hat = process.to_x0(output, x_t, t)
        mean, sigma = process.posterior(x0_hat, process.to_eps(usual, x_t, t), t, t_prev, etas[i])
        x_t = mean + sigma * z[:, i] if sigma > 0 else mean
        yield Step(i, encoded, x0_hat, x_t)
        # What a step has encoded is let go before the next one is.
        del encoded, h


@torch.no_grad()
def sample(
    model: DiffusionModel,
    latents: Latents,
    *,
    sampler: Sampler = Sampler(),
    edit: Edit | None = None,
    live: LiveEdit | None = None,
    delta_h: HForBatch | None = None,
    replace_h: HForBatch | None = None,
    record_h: bool = False,
    observe: Callable[[int, Encoded], None] | None = None,
) -> Samples:
    """Run the reverse process to images; see `reverse`.

    Args:
        model: The model, whose process says which steps are taken.
        latents: x_T and z of the batch. Where sigma is 0 (eta 0, or the last step) z is not read.
        sampler: Settings whose eta, injection and edited steps are taken; the batch is one pass.
        edit: Function of the step and its h that gives the edited h; None leaves h.
        live: Such a function of the step's x_t too, in the place of `edit`.
        delta_h: Short for an edit that adds offsets, (1 or batch, steps, *h_shape).
        replace_h: Short for an edit that replaces h, shaped the same; `delta_h` is added to it.
        record_h: Whether to return h.
        observe: Function that is called with the index of every step and the encoder's results at its x_t.

    Raises:
        InputError: If a shape or choice is wrong, or h is edited in two ways.
        NotFinite: If an image becomes NaN or infinite; step and seed are named.
    """
    latents.fit(model.provenance(eta=sampler.eta, tap=False))
    _check_inputs(model, latents, {"delta_h": delta_h, "replace_h": replace_h})
    if (edit is not None or live is not None) and (delta_h is not None or replace_h is not None):
        raise InputError("give an edit, or delta_h and replace_h, not both")
    delta_h, replace_h = (h if h is None else h.to(model.device, model.dtype) for h in (delta_h, replace_h))
    trajectory: list[Tensor] = []
    finite: list[Tensor] = []
    x_t = latents.x_T
    for step in reverse(model, latents, sampler=sampler, edit=edit or _edit(delta_h, replace_h), live=live):
        x_t = step.x_t
        if observe is not None:
            observe(step.index, step.encoded)
        # Read once after the loop, so that a GPU need not wait at every step.
        finite.append(x_t.isfinite().flatten(1).all(dim=1))
        if record_h:
            trajectory.append(step.encoded.h)
        del step
    if latents.residual is not None:
        x_t = x_t + latents.residual.to(x_t)
    x_0 = model.codec.decode(x_t)
    finite[-1] &= x_0.isfinite().flatten(1).all(dim=1)
    _check_finite(torch.stack(finite).cpu(), model, latents.seeds)
    return Samples(x_0, torch.stack(trajectory, dim=1) if record_h else None)


@torch.no_grad()
def h_varies(model: DiffusionModel, other: DiffusionModel | None = None) -> bool:
    """Whether h of two samples differs; what modulates a network by its time and prompt is the same for all of them.

    By one pass of each up to the tap, at the first step.

    Args:
        model: The model, under its condition.
        other: The same under another condition, which the second sample gets; None gives it the first one's.
    """
    t, x_T = model.process.timesteps[0], Latents.from_seeds([0, 1], model.sample_shape, 1).x_T.to(model.device)
    pairs = (model, x_T[:1]), (other or model, x_T[1:])
    one, two = (each.denoiser.encode(x, t, each.cond).h.float() for each, x in pairs)
    return bool((one - two).norm() > ALIKE * one.norm())


def _edit(delta_h: Tensor | None, replace_h: Tensor | None) -> Edit | None:
    """The edit that the short forms mean."""
    if replace_h is None:
        return None if delta_h is None else adding(delta_h)
    return replacing(replace_h) if delta_h is None else replacing(replace_h + delta_h)


def _check_inputs(model: DiffusionModel, latents: Latents, trajectories: Mapping[str, Tensor | None]) -> None:
    batch, steps = len(latents.x_T), len(model.process.timesteps)
    if tuple(latents.x_T.shape[1:]) != model.sample_shape:
        raise InputError(f"x_T must be samples of shape {model.sample_shape}, got {tuple(latents.x_T.shape[1:])}")
    if tuple(latents.z.shape) != (batch, steps, *model.sample_shape):
        raise InputError(f"z must have shape {(batch, steps, *model.sample_shape)}, got {tuple(latents.z.shape)}")
    expected = (batch, steps, *model.h_shape)
    for name, h in trajectories.items():
        if h is not None and (len(h) not in (1, batch) or tuple(h.shape[1:]) != expected[1:]):
            raise InputError(f"{name} must have shape {expected}, or 1 in place of {batch}, got {tuple(h.shape)}")


class NotFinite(InputError):
    """A sample became NaN or infinite; `row` says which of the batch."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[type["NotFinite"], tuple[int, str]]:
        """Another process may have raised it."""
        return type(self), (self.row, str(self))


def _check_finite(finite: Tensor, model: DiffusionModel, seeds: Sequence[int]) -> None:
    """Raises NotFinite for the first step, and its first sample, at which `finite`, (steps, batch) bool, is False."""
    if not finite.all():
        step, row = map(int, torch.nonzero(~finite)[0])
        where = f"at step {step} (t={model.process.timesteps[step]:g})"
        hint = "; use dtype=float32" if model.dtype.itemsize == 2 else ""
        raise NotFinite(row, f"the image of seed {seeds[row]} became NaN or infinite {where}{hint}")
