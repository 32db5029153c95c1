# pyright: strict, reportUnknownMemberType=false
"""The pullback basis: what h changes by most when x_t does, and its transport to other samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.denoiser import Conditioning, Denoiser
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import reverse
from hspace.directions.krylov import top_triplets
from hspace.directions.learning import one_pass
from hspace.directions.linearised import NetworkJacobian
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.types import InputError


class PullbackSettings(Settings):
    """Settings of `method=pullback`."""

    k: int = Field(4, ge=1)
    """Directions, of length 1."""
    sample: int = Field(0, ge=0, lt=MAX_SAMPLES)
    """Seed of the sample whose basis it is; the directions are applied to others."""
    step: int = Field(5, ge=0)
    """Step at which the basis is found, 0 is the noisiest. Applied at every step."""
    onto: int | None = Field(None, ge=0, lt=MAX_SAMPLES)
    """Seed of a sample to whose basis the directions are transported; null leaves them."""
    block_size: int | None = Field(None, ge=1)
    """Vectors that go through the encoder at once, which bounds memory."""

    def count(self) -> int:
        """Number of directions."""
        return self.k

    def check(self, num_steps: int) -> None:
        """Checks that the step is among those of the run.

        Raises:
            ValueError: If it is not.
        """
        if self.step >= num_steps:
            raise ValueError(f"step must be below diffusion.num_steps={num_steps}, got {self.step}")


@method("pullback", settings=PullbackSettings, samples=False, varying=True)
def find(model: DiffusionModel, sources: Sources, settings: PullbackSettings) -> Directions:
    """What h of one sample changes by most when x_t changes, and the same at another sample.

    Source: Park et al. 2023 (arXiv 2307.12868), sec. 3.2 and 3.4; they edit x_t at one step, here h is edited.
    """

    def basis(seed: int) -> Basis:
        return pullback_basis(
            model, model.latents([seed]), k=settings.k, step=settings.step, sampler=sources.sampler,
            block_size=settings.block_size,
        )  # fmt: skip

    found = basis(settings.sample)
    directions = pullback(model, found, sampler=sources.sampler)
    if settings.onto is None:
        return directions
    there = transported(found, basis(settings.onto))
    meta = replace(
        directions.meta,
        names=tuple(f"{name}, onto sample {settings.onto}" for name in directions.meta.names),
        seeds=tuple(dict.fromkeys((settings.sample, settings.onto))),
        report={"survives": there.survives.tolist()},
    )
    return Directions(_at_all_steps(model, there.u), meta)


@dataclass(frozen=True)
class Basis:
    """The leading singular triplets of J = d h / d x_t of one sample at one step, J v = s u.

    Attributes:
        step: Index of the step.
        seed: Seed of the sample.
        u: In h, (k, *h_shape), orthonormal.
        s: Singular values, (k,), descending.
        v: In x, (k, *sample_shape), orthonormal.
        residuals: Relative residuals, (k,).
    """

    step: int
    seed: int
    u: Tensor
    s: Tensor
    v: Tensor
    residuals: Tensor


class EncoderJacobian(NetworkJacobian):
    """J = d h / d x_t of one sample at one model time, as products; of guided passes the conditioned one.

    Source: Park et al. 2023 (arXiv 2307.12868), sec. 3.2.
    """

    def __init__(self, denoiser: Denoiser, x_t: Tensor, t: float, cond: Conditioning | None = None) -> None:
        """Set J; nothing is computed yet.

        Args:
            denoiser: Denoiser of the model.
            x_t: One sample, (1, *sample_shape).
            t: Its model time.
            cond: Condition of the model.
        """
        super().__init__(denoiser.network, x_t.to(denoiser.network.dtype), denoiser.h_shape)
        self._denoiser, self._t, self._cond = denoiser, t, one_pass(cond)

    def _function(self, block: int) -> Callable[[Tensor], Tensor]:
        return lambda offset: self._denoiser.encode(self._point + offset, self._t, self._cond).h


def pullback_basis(
    model: DiffusionModel,
    latents: Latents,
    *,
    k: int,
    step: int,
    sampler: Sampler = Sampler(),
    tolerance: float = 1e-4,
    block_size: int | None = None,
) -> Basis:
    """The k directions of x_t that change h of one sample most, and what they change it by.

    Args:
        model: The model.
        latents: One sample.
        k: Number of directions.
        step: Index of the step, where 0 is the noisiest.
        sampler: Settings whose eta is taken for the sample's trajectory.
        tolerance: Largest relative residual of any direction; see `top_triplets`.
        block_size: Number of vectors that go through the encoder together; for None see `top_triplets`.

    Raises:
        InputError: If there is not exactly one sample, the step does not exist, or k is above the rank of J.

    Source: Park et al. 2023 (arXiv 2307.12868), sec. 3.2: the pullback metric of h is J^T J.
    """
    if len(latents.seeds) != 1:
        raise InputError(f"a pullback basis is of one sample, got {len(latents.seeds)}")
    x_t, t = sample_at(model, latents, step, sampler), model.process.timesteps[step]
    operator = EncoderJacobian(model.denoiser, x_t, t, model.cond)
    found = top_triplets(operator, k, tolerance=tolerance, block_size=block_size)
    u, s, v, residuals = (each.float().cpu() for each in (found.u, found.s, found.v, found.residuals))
    return Basis(step, latents.seeds[0], u, s, v, residuals)


def check_step(model: DiffusionModel, step: int) -> None:
    """Check the index of a step.

    Raises:
        InputError: If the model takes no such step.
    """
    if not 0 <= step < len(model.process.timesteps):
        raise InputError(f"step must be from 0 to {len(model.process.timesteps) - 1}, got {step}")


@torch.no_grad()
def sample_at(model: DiffusionModel, latents: Latents, step: int, sampler: Sampler = Sampler()) -> Tensor:
    """The x_t that a step of the unedited trajectory starts from, (batch, *sample_shape).

    Raises:
        InputError: If the model takes no such step.
    """
    check_step(model, step)
    x_t = latents.x_T.to(model.device)
    if step > 0:
        for each in reverse(model, latents, sampler=sampler):
            x_t = each.x_t
            if each.index == step - 1:
                break
    return x_t


def pullback(model: DiffusionModel, basis: Basis, *, sampler: Sampler = Sampler()) -> Directions:
    """The h side of a basis as directions, the same at every step.

    Args:
        model: The model of the basis.
        basis: Basis of one sample.
        sampler: Settings whose eta the sample was drawn with.

    Returns:
        k directions of unit "unit norm", with the singular values of d h / d x_t.

    Source: Park et al. 2023 (arXiv 2307.12868). They move x_t along v at one step, by what the network makes of it;
    ours adds u, the change of h that v causes, to h at every edited step, as all directions of h are added.
    `edit.start` and `edit.stop` keep it to the step of the basis.
    """
    return Directions(
        _at_all_steps(model, basis.u),
        Directions.of(
            model, basis.u, names=[f"step {basis.step}: {j + 1}" for j in range(len(basis.u))], unit="unit norm",
            method="pullback", eta=sampler.eta, seeds=(basis.seed,),
        ).meta,
        singular_values=basis.s, residuals=basis.residuals,
    )  # fmt: skip


class Transported(NamedTuple):
    """The vectors of a basis at another sample, each of length 1.

    Attributes:
        u: In h, (k, *h_shape).
        v: In x, (k, *sample_shape): the shortest movement of x_t by which the other sample's h moves along u; see
            `hspace.edits.paths.moved`.
        survives: Share of the squared length of each vector in h that survives, (k,) in [0, 1].
    """

    u: Tensor
    v: Tensor
    survives: Tensor


def transported(basis: Basis, to: Basis) -> Transported:
    """A basis at another sample: u' = U U^T u, its projection on that sample's own basis, and v' = V S^-1 U^T u.

    It is a projection, not a transport that keeps lengths: what lies outside the other basis is lost. Of the other
    sample J v' = u', before both become unit vectors.

    Args:
        basis: Basis of one sample.
        to: Basis of the other sample, best at the same step.

    Raises:
        InputError: If nothing of a vector survives.

    Source: Park et al. 2023 (arXiv 2307.12868), sec. 3.4.
    """
    here, there = basis.u.flatten(1).double(), to.u.flatten(1).double()
    weights = here @ there.T
    survives = weights.square().sum(dim=1) / here.square().sum(dim=1)
    if not (survives > torch.finfo(torch.float32).eps).all():
        raise InputError(f"nothing of the basis of sample {basis.seed} lies in that of sample {to.seed}")
    sides = weights @ there, (weights / to.s.double()) @ to.v.flatten(1).double()
    u, v = (
        F.normalize(side).float().reshape(-1, *like.shape[1:]) for side, like in zip(sides, (to.u, to.v), strict=True)
    )
    return Transported(u, v, survives.clamp(max=1).float())


def _at_all_steps(model: DiffusionModel, vectors: Tensor) -> Tensor:
    """(k, *h_shape) to (k, steps, *h_shape)."""
    return vectors[:, None].repeat(1, len(model.process.timesteps), *(1,) * (vectors.ndim - 1))
