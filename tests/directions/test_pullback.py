"""The pullback basis against the Jacobian of h written out in float64, and its projection on another sample's."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.method import Sources
from hspace.directions.pullback import (
    Basis,
    EncoderJacobian,
    find,
    pullback,
    pullback_basis,
    sample_at,
    transported,
)
from hspace.directions.record import Directions
from hspace.runs.parsing import settings_of
from hspace.types import InputError

STEP = 1


@pytest.fixture(scope="module")
def model(make_unet: Callable[..., UNet2DModel], tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    folder = tmp_path_factory.mktemp("tiny") / "eight"
    DDPMPipeline(unet=make_unet(sample_size=8), scheduler=DDPMScheduler()).save_pretrained(folder)
    return load_model(str(folder), num_steps=3, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def basis(model: DiffusionModel) -> Basis:
    return pullback_basis(model, model.latents([4]), k=4, step=STEP, tolerance=1e-7, block_size=8)


@pytest.fixture(scope="module")
def explicit(model: DiffusionModel) -> Tensor:
    """d h / d x_t, (16 * 4 * 4, 3 * 8 * 8)."""
    x_t, t = sample_at(model, model.latents([4]), STEP), model.process.timesteps[STEP]

    x_t.requires_grad_()
    h = model.denoiser.encode(x_t, t).h.flatten()
    return torch.stack([torch.autograd.grad(each, x_t, retain_graph=True)[0].flatten() for each in h.unbind()])


def angle(a: Tensor, b: Tensor) -> float:
    """Largest principal angle of the spans of orthonormal rows."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return float(torch.linalg.matrix_norm(b - (b @ a.T) @ a, ord=2).clamp(max=1).asin())


def test_the_basis_is_the_svd_of_the_explicit_jacobian(basis: Basis, explicit: Tensor) -> None:
    u, s, vt = torch.linalg.svd(explicit)
    assert (basis.s / s[:4] - 1).abs().max() < 1e-5
    assert angle(basis.v, vt[:4]) < 1e-4 and angle(basis.u, u.T[:4]) < 1e-4
    product = basis.v.flatten(1).double() @ explicit.T
    torch.testing.assert_close(product, (basis.s[:, None] * basis.u.flatten(1)).double(), atol=1e-4, rtol=1e-4)


def test_products_are_those_of_the_explicit_jacobian(model: DiffusionModel, explicit: Tensor) -> None:
    x_t = sample_at(model, model.latents([4]), STEP)
    operator = EncoderJacobian(model.denoiser, x_t, model.process.timesteps[STEP])
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(2, *operator.in_shape, generator=generator, dtype=torch.float64)
    u = torch.randn(2, *operator.out_shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(operator.jvp(v).flatten(1), v.flatten(1) @ explicit.T)
    torch.testing.assert_close(operator.vjp(u).flatten(1), u.flatten(1) @ explicit)


def test_a_step_starts_where_the_trajectory_is(model: DiffusionModel) -> None:
    latents, sampler = model.latents([4, 5]), Sampler(eta=0.5)
    h = sample(model, latents, sampler=sampler, record_h=True).h
    assert h is not None
    for step, t in enumerate(model.process.timesteps):
        found = model.denoiser.encode(sample_at(model, latents, step, sampler), t).h
        torch.testing.assert_close(found, h[:, step])


def test_its_h_side_is_directions_of_the_model(model: DiffusionModel, basis: Basis) -> None:
    found = pullback(model, basis)
    found.check(model, eta=1.0)
    assert found.meta.names == ("step 1: 1", "step 1: 2", "step 1: 3", "step 1: 4")
    torch.testing.assert_close(found.norms(), torch.ones(4, 3))
    assert (found.directions == basis.u[:, None]).all() and found.singular_values is basis.s


def test_transport_is_the_projection_on_the_other_basis(basis: Basis) -> None:
    generator = torch.Generator().manual_seed(0)
    other = torch.linalg.qr(torch.randn(256, 4, generator=generator)).Q.T
    vectors, _, survives = transported(basis, replace(basis, u=other.reshape(basis.u.shape)))
    for u, vector, share in zip(basis.u.flatten(1), vectors.flatten(1), survives, strict=True):
        weights = torch.linalg.lstsq(other.T, u).solution
        projected = other.T @ weights
        assert float(share) == pytest.approx(float(projected.square().sum()), rel=1e-4)
        torch.testing.assert_close(vector, projected / projected.norm(), atol=1e-5, rtol=1e-4)
    same, moving, whole = transported(basis, basis)
    torch.testing.assert_close(same, basis.u, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moving, basis.v, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole, torch.ones(4), atol=1e-5, rtol=1e-5)


def test_the_transported_movement_of_x_moves_h_of_a_linear_network_along_the_transported_vector() -> None:
    """h = A x of one sample and B x of the other; of all movements that do, it is the shortest."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)

    def basis_of(matrix: Tensor, k: int) -> Basis:
        u, s, vt = torch.linalg.svd(matrix)
        return Basis(0, 0, u.T[:k].reshape(k, 2, 3), s[:k], vt[:k].reshape(k, 3, 3), torch.zeros(k))

    there = transported(basis_of(first, 2), basis_of(second, 4))
    reached = there.v.flatten(1).double() @ second.T
    torch.testing.assert_close(
        reached / reached.norm(dim=1, keepdim=True), there.u.flatten(1).double(), atol=1e-6, rtol=0
    )
    shortest = reached @ torch.linalg.pinv(second).T
    torch.testing.assert_close(there.v.flatten(1).double(), shortest, atol=1e-6, rtol=0)
    torch.testing.assert_close(there.v.flatten(1).norm(dim=1), torch.ones(2))


def test_what_is_projected_has_no_singular_values_of_its_own(model: DiffusionModel) -> None:
    settings = settings_of({"name": "pullback", "k": 2, "sample": 4, "step": STEP})
    sources = MagicMock(spec=Sources, sampler=Sampler())
    own, other = (find(model, sources, each) for each in (settings, settings.model_copy(update={"onto": 5})))
    assert isinstance(own, Directions) and own.singular_values is not None and own.residuals is not None
    assert isinstance(other, Directions) and other.singular_values is None and other.residuals is None
    assert other.meta.seeds == (4, 5) and len(other.meta.report["survives"]) == 2
    torch.testing.assert_close(other.norms(), torch.ones(2, 3))


def test_what_is_not_there_is_refused(model: DiffusionModel, basis: Basis) -> None:
    first, last = replace(basis, u=basis.u[:1]), replace(basis, u=basis.u[3:], seed=9)
    with pytest.raises(InputError, match="of sample 4 lies in that of sample 9"):
        transported(replace(first, u=_without(first.u, last.u)), last)
    with pytest.raises(InputError, match="one sample, got 2"):
        pullback_basis(model, model.latents([1, 2]), k=1, step=0)
    with pytest.raises(InputError, match="step must be from 0 to 2, got 3"):
        pullback_basis(model, model.latents([1]), k=1, step=3)
    with pytest.raises(ValueError, match="step must be below"):
        settings_of({"name": "pullback", "step": 6}).check(6)


def _without(vectors: Tensor, others: Tensor) -> Tensor:
    a, b = vectors.flatten(1), others.flatten(1)
    return (a - (a @ b.T) @ b).reshape(vectors.shape)
