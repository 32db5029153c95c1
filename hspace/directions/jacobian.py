# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Image-specific directions: the top right singular vectors of the prediction's Jacobian in h."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.cut import forward_derivatives
from hspace.diffusion.denoiser import Denoiser, Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.convolution import LeanConvolutions
from hspace.directions.krylov import Triplets, top_triplets
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

FORWARD_MODES = ("double backward", "forward mode")
"""Ways to get J v. The first, reverse mode through a reverse pass that is kept, costs the tangents only and is two to
three times faster than forward mode, which repeats the decoder itself in every product; the second serves networks
with an operation that has no second derivative."""

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


class DecoderJacobian:
    """J = d output / d h of one sample at one step, at fixed x_t: the skip connections are constants.

    The output is the network's raw one. Only the decoder runs, once for a block of copies of the sample, and what
    derivatives need of it is kept: as many activations as the block has vectors.

    Attributes:
        in_shape: (channel, height, width) of h.
        out_shape: (channel, height, width) of the output.
        dtype: Dtype of products, the model's or at least float32.
        forward_mode: The first of FORWARD_MODES that works; None before the first forward product.

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
        self.in_shape: tuple[int, ...] = tuple(encoded.h.shape[1:])
        self.out_shape: tuple[int, int, int] = denoiser.sample_shape
        self.device: torch.device = encoded.h.device
        self.dtype: torch.dtype = torch.promote_types(encoded.h.dtype, torch.float32)
        self.forward_mode: str | None = None
        self._denoiser, self._encoded = denoiser, encoded
        self._mask = None if mask is None else mask.to(encoded.h)
        self._avoid = None if avoid is None else avoid.to(encoded.h).flatten(1)
        self._linear: _Linearised | None = None

    def jvp(self, v: Tensor) -> Tensor:
        """J v, (block, *in_shape) to (block, *out_shape), by `forward_mode`.

        Raises:
            InputError: If none of FORWARD_MODES works for the decoder.
        """
        return self._first_jvp(v) if self.forward_mode is None else self._jvp(v, self.forward_mode)

    def vjp(self, u: Tensor) -> Tensor:
        """J^T u, (block, *out_shape) to (block, *in_shape), in one batched reverse pass."""
        linear = self._linearised(len(u))
        return _gradient(linear.output, linear.offset, u).to(self.dtype)

    def _jvp(self, v: Tensor, forward_mode: str) -> Tensor:
        if forward_mode == "double backward":
            linear = self._linearised(len(v))
            return _gradient(linear.pulled, linear.cotangent, v).to(self.dtype)
        output, origin = partial(self._output, self._encoded), torch.zeros_like(self._encoded.h)

        def along(tangent: Tensor) -> Tensor:
            return torch.func.jvp(output, (origin,), (tangent,))[1]

        with forward_derivatives(self._denoiser.network):
            product = torch.vmap(along)(v[:, None].to(origin))
        return product[:, 0].to(self.dtype)

    def _first_jvp(self, v: Tensor) -> Tensor:
        """J v by the first of FORWARD_MODES with <J v, J v> = <J^T J v, v>, which is kept for all later products.

        Without a second derivative some operations raise, and others make the product 0.
        """
        for mode in FORWARD_MODES:
            try:
                product = self._jvp(v, mode)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                log.info("no %s: %s", mode, str(error).splitlines()[0])
                continue
            square = product.square().sum()
            if (square - (self.vjp(product) * v).sum()).abs() <= 0.05 * square:
                self.forward_mode = mode
                return product
            log.info("no %s: it is not adjoint to the reverse product", mode)
        raise InputError("the network has an operation with neither a second nor a forward derivative")

    def _linearised(self, block: int) -> "_Linearised":
        """The decoder at `block` copies of the sample; kept until another size is asked for."""
        if self._linear is None or len(self._linear.offset) != block:
            self._linear = None
            self._linear = _Linearised(self._output, self._encoded.select([0] * block))
        return self._linear

    def _output(self, encoded: Encoded, offset: Tensor) -> Tensor:
        """The masked outputs as a function of the offset of h."""
        if self._avoid is not None:
            offset = offset - ((offset.flatten(1) @ self._avoid.T) @ self._avoid).unflatten(1, self.in_shape)
        output = self._denoiser.decode(encoded.h + offset, encoded)
        return output if self._mask is None else output * self._mask


class _Linearised:
    """A decoder's output at offset 0 with its derivatives' graphs.

    Attributes:
        offset: 0, (block, *in_shape).
        output: (block, *out_shape), to be differentiated by `offset`.
    """

    def __init__(self, output: Callable[[Encoded, Tensor], Tensor], encoded: Encoded) -> None:
        self.offset = torch.zeros_like(encoded.h, requires_grad=True)
        # Fused attention has no second or forward derivative; sampling keeps it.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), LeanConvolutions():
            self.output = output(encoded, self.offset)

    @cached_property
    def cotangent(self) -> Tensor:
        """0, shaped like `output`; `pulled` is linear in it, so that any value would do."""
        return torch.zeros_like(self.output, requires_grad=True)

    @cached_property
    def pulled(self) -> Tensor:
        """J^T cotangent, to be differentiated by `cotangent`: its transpose is v -> J v."""
        with torch.enable_grad():
            return torch.autograd.grad(self.output, self.offset, self.cotangent, create_graph=True)[0]


def _gradient(output: Tensor, by: Tensor, vectors: Tensor) -> Tensor:
    """The transpose of d output / d by, applied to `vectors`; the graph stays."""
    return torch.autograd.grad(output, by, vectors.to(output), retain_graph=True)[0]


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
