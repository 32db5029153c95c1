# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Image-specific directions: the top right singular vectors of the prediction's Jacobian in h."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.denoiser import Denoiser, Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.krylov import Triplets, top_triplets
from hspace.directions.linearised import NetworkJacobian
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

NULLSPACE_RANK = 32
"""Directions projected off by `outside="nullspace"`: on trained 32 x 32 portraits (h 192 x 8 x 8) the top directions
of a mouth-sized mask then change the outside 2 to 4 times less and the inside about a quarter less."""


class JacobianSettings(Settings):
    """Settings of `method=jacobian`."""

    k: int = Field(4, ge=1)
    """Directions per step, of length 1."""
    sample: int = Field(0, ge=0, lt=MAX_SAMPLES)
    """Seed of the sample they are found on; they are applied to others."""
    steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = (5,)
    """Steps at which they are found, 0 is the noisiest; null: all. Applied at every step."""
    mask: str | Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] | None = None
    """Region of interest: a name (mouth, eyes, ...), a PNG, or [top,left,bottom,right] in fractions."""
    outside: Literal["nullspace"] | None = None
    """`nullspace`: leave what is outside the mask alone."""
    block_size: Annotated[int, Field(ge=1)] | None = None
    """Vectors that go through the decoder at once, which bounds memory."""

    @model_validator(mode="after")
    def _check_outside(self) -> "JacobianSettings":
        if self.outside is not None and self.mask is None:
            raise ValueError("outside=nullspace needs method.mask, to say what outside is")
        return self

    def check(self, num_steps: int) -> None:
        """Checks that the steps are among those of the run.

        Raises:
            ValueError: If one is not.
        """
        if self.steps and max(self.steps) >= num_steps:
            raise ValueError(f"steps must be below diffusion.num_steps={num_steps}, got {max(self.steps)}")


@method("jacobian", settings=JacobianSettings, reads=("mask",), samples=False)
def find(model: DiffusionModel, sources: Sources, settings: JacobianSettings) -> Directions:
    """The directions that change one sample's prediction most, in all or a part of the image.

    Source: Haas et al. 2024, sec. IV-B, figs. 5, 6 and 13.
    """
    mask = None if settings.mask is None else sources.mask(settings.mask, settings.sample)
    return jacobian(
        model, model.latents([settings.sample]), k=settings.k, sampler=sources.sampler, steps=settings.steps, mask=mask,
        outside=settings.outside, block_size=settings.block_size,
    )  # fmt: skip


def jacobian(
    model: DiffusionModel,
    latents: Latents,
    *,
    k: int,
    sampler: Sampler = Sampler(),
    steps: Sequence[int] | None = None,
    mask: Tensor | None = None,
    outside: str | None = None,
    block_size: int | None = None,
    tolerance: float = 1e-4,
) -> Directions:
    """The k directions of h that change the prediction of one sample most, at each of the given steps.

    The sample is followed along its own x_T and z. What is found at one step is applied at all steps: direction
    (step, j) is one unit vector, the same at every step. Any other sample can be edited with it too.

    Args:
        model: The model.
        latents: One sample.
        k: Directions per step.
        sampler: Settings whose eta is taken for the sample's trajectory.
        steps: Indices of steps, where 0 is the noisiest; None finds directions at every step.
        mask: Mask (height, width) on the grid of x_t, true where the prediction counts; None counts all of it.
        outside: `nullspace` searches only directions of h that are orthogonal to the NULLSPACE_RANK ones that change
            the prediction outside the mask most; None ignores what is outside.
        block_size: Number of vectors that go through the decoder together; for None see `top_triplets`.
        tolerance: Largest relative residual |J^T J v - s² v| / s_1² of any direction.

    Returns:
        k * len(steps) directions of unit "unit norm", the first step's first, largest singular value first.
        `singular_values` are of the Jacobian of eps, `residuals` relative; both (k * len(steps),).

    Raises:
        InputError: If there is not exactly one sample, a step or choice does not exist, or k is above the rank of J.

    Source: Haas et al. 2024 (arXiv 2303.11073), sec. IV-B, eqs. 9 and 10.
    """
    chosen = _check_steps(steps, len(model.process.timesteps))
    _check(model, latents, mask, outside)
    solve = partial(top_triplets, tolerance=tolerance, block_size=block_size)
    found: dict[int, Triplets] = {}

    def search(step: int, encoded: Encoded) -> None:
        if step in chosen:
            avoid = None
            if mask is not None and outside is not None:
                avoid = solve(DecoderJacobian(model.denoiser, encoded, ~mask), NULLSPACE_RANK).v
            operator = DecoderJacobian(model.denoiser, encoded, mask, avoid)
            triplets = found[step] = solve(operator, k)
            residual, mode = float(triplets.residuals.max()), operator.forward_mode
            log.info("step %d: %d products by %s, largest residual %.0e", step, triplets.products, mode, residual)

    sample(model, latents, sampler=sampler, observe=search)
    return _directions(model, latents, sampler.eta, {step: found[step] for step in chosen})


class DecoderJacobian(NetworkJacobian):
    """J = d output / d h of one sample at one step, at fixed x_t: the skip connections are constants.

    The output is the network's raw one. Only the decoder runs, once for a block of copies of the sample.

    Source: Haas et al. 2024 (arXiv 2303.11073), sec. IV-B; with a mask eqs. 9 and 10.
    """

    def __init__(
        self, denoiser: Denoiser, encoded: Encoded, mask: Tensor | None = None, avoid: Tensor | None = None
    ) -> None:
        """Set J; nothing is computed yet.

        Args:
            denoiser: Denoiser of the model.
            encoded: One sample at one step.
            mask: Mask (height, width), 1 where the output counts and 0 elsewhere: J becomes M J.
            avoid: Orthonormal directions of h that are projected off, (r, channel, height, width): J becomes
                J (I - A^T A).
        """
        super().__init__(denoiser.network, encoded.h, denoiser.sample_shape)
        self._denoiser, self._encoded = denoiser, encoded
        self._mask = None if mask is None else mask.to(encoded.h)
        self._avoid = None if avoid is None else avoid.to(encoded.h).flatten(1)

    def _function(self, block: int) -> Callable[[Tensor], Tensor]:
        return partial(self._output, self._encoded.select([0] * block))

    def _output(self, encoded: Encoded, offset: Tensor) -> Tensor:
        """The masked outputs as a function of the offset of h."""
        if self._avoid is not None:
            offset = offset - ((offset.flatten(1) @ self._avoid.T) @ self._avoid).unflatten(1, self.in_shape)
        output = self._denoiser.decode(encoded.h + offset, encoded)
        return output if self._mask is None else output * self._mask


def _directions(
    model: DiffusionModel, latents: Latents, eta: float | Sequence[float], found: dict[int, Triplets]
) -> Directions:
    schedule = model.process
    vectors = torch.cat([triplets.v for triplets in found.values()]).float().cpu()
    values = [triplets.s * _eps_per_output(model, step) for step, triplets in found.items()]
    meta = DirectionsMeta(
        space="h",
        provenance=model.provenance(eta=eta),
        model_id=model.model_id,
        method="jacobian",
        names=tuple(f"step {step}: {j + 1}" for step, triplets in found.items() for j in range(len(triplets.s))),
        unit="unit norm",
        seeds=latents.seeds,
    )
    return Directions(
        directions=vectors[:, None].repeat(1, len(schedule.timesteps), *(1,) * (vectors.ndim - 1)),
        meta=meta,
        singular_values=torch.cat(values).float().cpu(),
        residuals=torch.cat([triplets.residuals for triplets in found.values()]).float().cpu(),
    )


def _eps_per_output(model: DiffusionModel, step: int) -> float:
    """|d eps / d output| of one step; eps is affine in the output."""
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    return abs(model.process.to_eps(one, zero, model.process.timesteps[step]).item())


def _check_steps(steps: Sequence[int] | None, num_steps: int) -> tuple[int, ...]:
    chosen = tuple(range(num_steps)) if steps is None else tuple(steps)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= step < num_steps for step in chosen):
        raise InputError(f"steps must be different indices from 0 to {num_steps - 1}, got {list(chosen)}")
    return chosen


def _check(model: DiffusionModel, latents: Latents, mask: Tensor | None, outside: str | None) -> None:
    if len(latents.x_T) != 1:
        raise InputError(f"a Jacobian is of one sample, got {len(latents.x_T)}")
    if outside not in (None, "nullspace"):
        raise InputError(f"outside must be nullspace or null, got {outside}")
    if outside is not None and mask is None:
        raise InputError("outside=nullspace needs a mask, to say what outside is")
    size = model.sample_shape[1:]
    if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != size or not mask.any()):
        raise InputError(f"mask must be bool {size} with something true, got {mask.dtype} {tuple(mask.shape)}")
