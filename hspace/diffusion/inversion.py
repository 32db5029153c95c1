# pyright: strict, reportUnknownMemberType=false
"""Inversion: the noise from which sampling gives a real image back, so that its h can be recorded and edited.

Both kinds use the sampler's own pairs of steps and its own equations. DDIM inversion is for eta 0, edit-friendly
inversion for every other eta.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents, as_seeds, draw
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.system.records import check_floats, check_names, load_record, save_record
from hspace.types import HBatch, HTrajectory, Images, InputError, Seeds

log: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageError:
    """Distances between images and others.

    Attributes:
        rms: Root of the mean square difference of each image, (batch,); images are in [-1, 1].
        largest: Largest absolute difference of each image, (batch,).
    """

    rms: Float[Tensor, " batch"]
    largest: Float[Tensor, " batch"]


def image_error(images: Images, reference: Images) -> ImageError:
    """The differences of images, one number per image."""
    difference = (images - reference).flatten(1)
    return ImageError(difference.square().mean(1).sqrt(), difference.abs().amax(1))


@dataclass(frozen=True)
class Inverted:
    """Real images as a sampler's input, and what was lost on the way.

    The error of reconstruction exists before any edit. What an edit itself changes is its distance from the
    reconstructed images, `image_error(edited, inverted.x_0)`, not from the real ones.

    Attributes:
        latents: Latents that `sample` turns into `x_0` at the same eta.
        h: The h of every step, (batch, steps, *h_shape); None if not recorded.
        x_0: The reconstructed images, (batch, channel, height, width), about [-1, 1].
        reconstruction: Error of `x_0` against the real images.
        without_residual: The same error without `latents.residual`; equal where there is no residual.
    """

    latents: Latents
    h: HTrajectory | None
    x_0: Images
    reconstruction: ImageError
    without_residual: ImageError

    def save(self, path: str | Path) -> None:
        """Write everything as one safetensors file, atomically.

        Raises:
            OSError: If the file cannot be written.
        """
        # Without a residual both errors are equal, and the file holds them once.
        errors = {name: getattr(getattr(self, record), field).clone() for name, (record, field) in ERRORS.items()}
        tensors = {**self.latents.tensors(), "h": self.h, "x_0": self.x_0, **errors}
        save_record(path, tensors, self.latents.facts())

    @classmethod
    def load(cls, path: str | Path) -> "Inverted":
        """Inverse of `save`, of a file that anyone may have written.

        Raises:
            InputError: If the file is missing, or does not hold inverted images.
        """
        return load_record(path, "inversion", _parse_inverted)


ERRORS = {
    "rms": ("reconstruction", "rms"), "largest": ("reconstruction", "largest"),
    "rms_without_residual": ("without_residual", "rms"), "largest_without_residual": ("without_residual", "largest"),
}  # fmt: skip
"""Tensors of a file, and their places in `Inverted`."""


def _parse_inverted(facts: dict[str, Any], tensors: dict[str, Tensor]) -> Inverted:
    """The record of a file that anyone may have written."""
    check_names(tensors, {"x_T", "z", "x_0", *ERRORS}, {"residual", "h"})
    rest = {name: tensor for name, tensor in tensors.items() if name in ("h", "x_0", *ERRORS)}
    latents = Latents.parse(facts, {name: tensor for name, tensor in tensors.items() if name not in rest})
    check_floats(rest)
    batch, steps = latents.z.shape[:2]
    for name, tensor in rest.items():
        wanted = (batch, steps) if name == "h" else (batch,)
        if tuple(tensor.shape[: len(wanted)]) != wanted or (tensor.ndim == len(wanted)) != (name in ERRORS):
            raise InputError(f"{name} must have {' x '.join(map(str, wanted))} rows, got shape {tuple(tensor.shape)}")
    first, second, third, fourth = (rest[name] for name in ERRORS)
    return Inverted(latents, rest.get("h"), rest["x_0"], ImageError(first, second), ImageError(third, fourth))


AWAY = 2.0
"""Factor by which the change of x_t grows over its least where the iteration moves away from its solution."""


@torch.no_grad()
def ddim_inversion(
    model: DiffusionModel, images: Images, *, refine: int = 20, tolerance: float = 1e-5, record_h: bool = False
) -> Inverted:
    """Invert images for eta 0: from clean to noisy, solve every sampling step for its input.

    A step's input x_t solves x_t = step_input(x_{t_prev}, P_t, eps) with P_t and eps predicted at x_t itself. A
    fixed-point iteration from x_{t_prev} finds it (see `Process.step_input`); when it would change x_t of an image by
    twice its least change so far, the moves of that image are halved, without which large steps of a flow run to
    infinity. Without refinement the first iterate is taken, whose error falls with the number of steps. The iteration
    converges where the prediction changes slowly with x_t. Near clean images a network that has learnt to remove what
    it does not know is nearly singular: there the reported error stays. (Newton's method with conjugate gradients
    solved the last step of the embedded model, but stalled at 1e-2 on the one before, at t=100 of 10 steps, after 6
    iterations of 80 products: the image is outside what the network predicts there.)

    Args:
        model: The model to invert.
        images: Real images in [-1, 1], (batch, channel, height, width), of the model's `image_shape`.
        refine: Largest number of iterations after the first, each one pass of the network; 0 is plain DDIM inversion.
        tolerance: Largest change of a value of x_t at which the iteration of a step ends, in units of x_t.
        record_h: Whether to return h.

    Returns:
        Latents whose z is zero, and the error of sampling from them at eta 0.

    Raises:
        InputError: If the images' shape is wrong or `refine` is negative.

    Source: Song et al. 2021 (arXiv 2010.02502), sec. 4.3; Pan et al. 2023 (arXiv 2309.04907) for the fixed point.
    Other implementations take a clean image for t = 0 and end on a noisier grid than they sample on; here the pairs
    are the sampler's.
    """
    if refine < 0:
        raise InputError(f"refine must be >= 0, got {refine}")
    process, x_t = model.process, _to_model_space(model, images)
    trajectory: list[Tensor] = []
    for t, t_prev in reversed(process.pairs()):
        x_prev, largest, h = x_t, float("inf"), None
        weight = x_t.new_ones(len(x_t))
        least = torch.full_like(weight, float("inf"))
        for _ in range(1 + refine):
            x0_hat, eps, h = _predict(model, x_t, t)
            solved = process.step_input(x_prev, x0_hat, eps, t, t_prev)
            change = (solved - x_t).abs().flatten(1).amax(1)
            # Where the iteration moves away from its solution, a part of each move can still lead to it.
            away = change > AWAY * least
            weight, least = torch.where(away, weight / 2, weight), torch.where(away, change, least.minimum(change))
            share = torch.where(change <= tolerance, 1.0, weight)
            x_t = torch.lerp(x_t, solved, share.reshape(-1, 1, 1, 1))
            largest = float(change.max())
            if largest <= tolerance:
                break
        if refine and largest > tolerance:
            log.warning("inversion at t=%g still changed x_t by %.1e after %d iterations", t, largest, 1 + refine)
        assert h is not None
        trajectory.append(h)
    z = torch.zeros_like(x_t).unsqueeze(1).repeat(1, len(process.timesteps), 1, 1, 1)
    latents = Latents(tuple(range(len(images))), x_t, z, provenance=model.provenance(eta=0.0, tap=record_h))
    x_0 = sample(model, latents, sampler=Sampler(eta=0.0)).x_0
    error = image_error(x_0, images.to(x_0))
    return Inverted(latents, torch.stack(trajectory[::-1], dim=1) if record_h else None, x_0, error, error)


@torch.no_grad()
def edit_friendly_inversion(
    model: DiffusionModel,
    images: Images,
    *,
    sampler: Sampler = Sampler(),
    seeds: Seeds | None = None,
    record_h: bool = False,
) -> Inverted:
    """Invert images for any eta but 0: draw every x_t on its own from the forward process, and solve for z.

    Each x_t has its own noise, so that z carries more of the image than the noise of a generated one does. x_{t_prev}
    is then taken as the sampler will compute it, so that rounding does not add up. Where sigma is 0 there is no z to
    solve for: the step keeps its own result, and `latents.residual` holds what is missing at the end; `sample` adds it.

    Args:
        model: The model to invert.
        images: Real images in [-1, 1], (batch, channel, height, width), of the model's `image_shape`.
        sampler: Settings whose eta is taken, not 0 at all steps; sampling must use the same. All images are one pass.
        seeds: Seeds of the noise, one per image; None is 0, 1, …
        record_h: Whether to return h.

    Raises:
        InputError: If the images' shape or the number of seeds is wrong, or eta is 0.

    Source: Huberman-Spiegelglas et al. 2024 (arXiv 2304.06140), alg. 1, with the mean and sigma of eqs. 2-5 of Haas
    et al. 2024 at any eta; the residual of the last step is ours.
    """
    process = model.process
    etas, pairs = process.etas(sampler.eta), process.pairs()
    if not any(etas):
        raise InputError(f"eta must be above 0 at some step, got {sampler.eta}; use ddim_inversion for eta 0")
    seeds = as_seeds(range(len(images)) if seeds is None else seeds)
    if len(seeds) != len(images):
        raise InputError(f"seeds must be one per image, got {len(seeds)} for {len(images)} images")
    x_0 = _to_model_space(model, images)
    noise = draw(seeds, "inversion", (len(pairs), *model.sample_shape)).to(x_0)
    x_t = x_T = process.add_noise(x_0, noise[:, 0], process.timesteps[0])
    zs: list[Tensor] = []
    trajectory: list[Tensor] = []
    for i, (t, t_prev) in enumerate(pairs):
        x0_hat, eps, h = _predict(model, x_t, t)
        mean, sigma = process.posterior(x0_hat, eps, t, t_prev, etas[i])
        drawn = x_0 if t_prev < 0 else process.add_noise(x_0, noise[:, i + 1], t_prev)
        z = (drawn - mean) / sigma if sigma > 0 else torch.zeros_like(mean)
        x_t = mean + sigma * z
        zs.append(z)
        trajectory.append(h)
    residual = x_0 - x_t
    latents = Latents(seeds, x_T, torch.stack(zs, dim=1), residual, model.provenance(eta=etas, tap=record_h))
    back, without = model.codec.decode(x_t + residual), model.codec.decode(x_t)
    errors = image_error(back, images.to(back)), image_error(without, images.to(back))
    return Inverted(latents, torch.stack(trajectory, dim=1) if record_h else None, back, *errors)


def _to_model_space(model: DiffusionModel, images: Images) -> Tensor:
    """The clean sample at which the sampler would have ended, in the dtype of its computations."""
    if tuple(images.shape[1:]) != model.image_shape:
        raise InputError(f"images must be of shape {model.image_shape}, got {tuple(images.shape[1:])}")
    dtype = torch.promote_types(model.dtype, torch.float32)
    return model.codec.encode(images.to(model.device, dtype))


def _predict(model: DiffusionModel, x_t: Images, t: float) -> tuple[Images, Images, HBatch]:
    """The predicted clean image and noise, and h, exactly as `sample` has them."""
    encoded = model.denoiser.encode(x_t, t, model.cond)
    output = model.denoiser.decode(encoded.h, encoded).to(x_t.dtype)
    return model.process.to_x0(output, x_t, t), model.process.to_eps(output, x_t, t), encoded.h
