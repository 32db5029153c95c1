"""Products and singular vectors against the Jacobian written out in float64."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.denoiser import Denoiser, Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.process import PREDICTION_TYPES
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.diffusion.unet import SemanticUNet
from hspace.directions.jacobian import NULLSPACE_RANK, DecoderJacobian, jacobian
from hspace.directions.linearised import FORWARD_MODES, full_precision
from hspace.directions.record import Directions
from hspace.edits.sums import edit
from hspace.types import InputError

STEP = 1
FAST: dict[str, Any] = {"steps": [STEP], "block_size": 16}
EXACT: dict[str, Any] = FAST | {"tolerance": 1e-7}
CLOSE: dict[str, Any] = FAST | {"tolerance": 1e-5}
ONE_BY_ONE: dict[str, Any] = EXACT | {"block_size": 1}


@pytest.fixture(scope="module")
def folder(make_unet: Callable[..., UNet2DModel], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved model of 8 x 8 images, small enough for its Jacobian to be written out."""
    path = tmp_path_factory.mktemp("jacobian")
    DDPMPipeline(unet=make_unet(sample_size=8), scheduler=DDPMScheduler()).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def model(folder: str) -> DiffusionModel:
    return load_model(folder, num_steps=3, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def single_model(folder: str) -> DiffusionModel:
    return load_model(folder, num_steps=3, device="cpu")


@pytest.fixture(scope="module")
def latents() -> Latents:
    return Latents.from_seeds([4], (3, 8, 8), 3)


@pytest.fixture(scope="module")
def encoded(model: DiffusionModel, latents: Latents) -> Encoded:
    return encode(model, latents)


@pytest.fixture(scope="module")
def explicit(model: DiffusionModel, encoded: Encoded) -> Tensor:
    """d output / d h, (3 * 8 * 8, 16 * 4 * 4)."""
    return explicit_jacobian(model.denoiser, encoded)


@pytest.fixture(scope="module")
def mask() -> Tensor:
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[4:6, 2:6] = True
    return inside


def encode(model: DiffusionModel, latents: Latents, eta: float = 1.0) -> Encoded:
    """What the encoder gives at STEP of the sample's own trajectory."""
    steps: dict[int, Encoded] = {}
    sample(model, latents, sampler=Sampler(eta=eta), observe=steps.__setitem__)
    return steps[STEP]


def explicit_jacobian(unet: Denoiser, encoded: Encoded) -> Tensor:
    def decode(h: Tensor) -> Tensor:
        return unet.decode(h, encoded).flatten()

    with sdpa_kernel(SDPBackend.MATH):
        rows: Any = torch.autograd.functional.jacobian(decode, encoded.h, vectorize=True)
    return rows.flatten(1)


def principal_angle(a: Tensor, b: Tensor) -> float:
    """Largest principal angle of two subspaces given by orthonormal rows, in radians."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return float(torch.linalg.matrix_norm(b - (b @ a.T) @ a, ord=2).clamp(max=1).asin())


def check_against_svd(directions: Directions, matrix: Tensor, k: int, scale: float = 1.0) -> None:
    _, s, vh = torch.linalg.svd(matrix)
    assert directions.singular_values is not None and directions.residuals is not None
    assert (directions.singular_values / (scale * s[:k]) - 1).abs().max() <= 1e-5
    assert directions.residuals.max() <= 1e-7
    assert principal_angle(directions.directions[:, 0], vh[:k]) <= 1e-4


@pytest.mark.parametrize("tap", ["before", "middle", "after"])
def test_forward_products_are_derivatives(make_unet: Callable[..., UNet2DModel], latents: Latents, tap: str) -> None:
    network: Any = make_unet(sample_size=8)
    unet = SemanticUNet(network.double(), tap)
    v = torch.randn(2, *unet.h_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        encoded = unet.encode(latents.x_T, 500)
        ahead, behind = (torch.cat([unet.decode(encoded.h + e * w, encoded) for w in v]) for e in (1e-4, -1e-4))
    product = DecoderJacobian(unet, encoded).jvp(v)
    assert (product - (ahead - behind) / 2e-4).abs().max() <= 1e-6 * product.abs().max()


def test_reverse_products_are_those_of_the_explicit_jacobian(
    model: DiffusionModel, encoded: Encoded, explicit: Tensor
) -> None:
    operator = DecoderJacobian(model.denoiser, encoded)
    u = torch.randn(3, *operator.out_shape, dtype=torch.float64)
    assert (operator.vjp(u).flatten(1) - u.flatten(1) @ explicit).abs().max() <= 1e-12


def test_forward_and_reverse_products_are_adjoint(model: DiffusionModel, encoded: Encoded, mask: Tensor) -> None:
    avoid = torch.linalg.qr(torch.randn(16 * 4 * 4, 5, dtype=torch.float64)).Q.T.unflatten(1, (16, 4, 4))
    for options in ({}, {"mask": mask}, {"mask": mask, "avoid": avoid}):
        operator = DecoderJacobian(model.denoiser, encoded, **options)
        v = torch.randn(4, *operator.in_shape, dtype=torch.float64)
        u = torch.randn(4, *operator.out_shape, dtype=torch.float64)
        left, right = (operator.jvp(v) * u).flatten(1).sum(1), (v * operator.vjp(u)).flatten(1).sum(1)
        assert (left - right).abs().max() <= 1e-12 * left.abs().max()


def test_only_the_decoder_runs(model: DiffusionModel, encoded: Encoded) -> None:
    calls: list[str] = []
    unet: Any = model.denoiser.network
    handles = [
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, part in (("encoder", unet.conv_in), ("mid", unet.mid_block), ("decoder", unet.conv_out))
    ]
    operator = DecoderJacobian(model.denoiser, encoded)
    operator.jvp(torch.ones(2, *operator.in_shape))
    operator.vjp(torch.ones(2, *operator.out_shape))
    for handle in handles:
        handle.remove()
    assert calls == ["decoder"]


def test_both_ways_to_a_forward_product_agree(model: DiffusionModel, encoded: Encoded) -> None:
    operator = DecoderJacobian(model.denoiser, encoded)
    v = torch.randn(3, *operator.in_shape, dtype=torch.float64)
    products = []
    for operator.forward_mode in FORWARD_MODES:
        products.append(operator.jvp(v))
    assert (products[0] - products[1]).abs().max() <= 1e-12


class NoSecondDerivative(torch.autograd.Function):
    """SiLU as a fused kernel might be: differentiable once, and 0 where torch.func asks for more."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.sigmoid()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * derivative(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0] * derivative(*ctx.saved_tensors)


def derivative(x: Tensor) -> Tensor:
    return x.sigmoid() * (1 + x * (1 - x.sigmoid()))


class OnlyReverse(NoSecondDerivative):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        raise NotImplementedError("no forward derivative")


class FusedSiLU(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


def test_without_a_second_derivative_forward_mode_takes_over(
    make_unet: Callable[..., UNet2DModel], latents: Latents, caplog: pytest.LogCaptureFixture
) -> None:
    network: Any = make_unet(sample_size=8)
    unet = SemanticUNet(network)
    with torch.no_grad():
        encoded = unet.encode(latents.x_T, 500)
    v = torch.randn(3, *unet.h_shape)
    usual = DecoderJacobian(unet, encoded)
    expected = usual.jvp(v)
    assert usual.forward_mode == "double backward"
    network.conv_act = FusedSiLU(NoSecondDerivative)
    with caplog.at_level(logging.INFO, logger="hspace.directions.linearised"):
        operator = DecoderJacobian(unet, encoded)
        product = operator.jvp(v)
    assert operator.forward_mode == "forward mode"
    assert "no double backward: " in caplog.text
    assert (product - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (operator.jvp(v) - expected).abs().max() <= 1e-5 * expected.abs().max()
    network.conv_act = FusedSiLU(OnlyReverse)
    with pytest.raises(InputError, match="neither a second nor a forward derivative"):
        DecoderJacobian(unet, encoded).jvp(v)


def test_directions_against_an_explicit_svd(model: DiffusionModel, latents: Latents, explicit: Tensor) -> None:
    check_against_svd(jacobian(model, latents, k=6, steps=[STEP], tolerance=1e-7), explicit, 6)


def test_one_vector_at_a_time_finds_what_a_block_does(model: DiffusionModel, latents: Latents) -> None:
    whole = jacobian(model, latents, k=2, **EXACT).directions
    parts = jacobian(model, latents, k=2, **ONE_BY_ONE).directions
    assert (whole - parts).abs().max() <= 1e-4


def test_masked_directions_against_an_explicit_svd(
    model: DiffusionModel, latents: Latents, explicit: Tensor, mask: Tensor
) -> None:
    masked = explicit * mask.expand(3, 8, 8).flatten()[:, None]
    check_against_svd(jacobian(model, latents, k=4, mask=mask, **EXACT), masked, 4)


def test_nullspace_directions_against_an_explicit_svd(
    model: DiffusionModel, latents: Latents, explicit: Tensor, mask: Tensor
) -> None:
    inside = mask.expand(3, 8, 8).flatten()[:, None]
    movers = torch.linalg.svd(explicit * ~inside)[2][:NULLSPACE_RANK]
    projected = explicit * inside @ (torch.eye(explicit.shape[1], dtype=torch.float64) - movers.T @ movers)
    found = jacobian(model, latents, k=3, mask=mask, outside="nullspace", **EXACT)
    check_against_svd(found, projected, 3)
    assert (found.directions[:, 0].flatten(1).double() @ movers.T).abs().max() <= 1e-5

    def leak(v: Tensor) -> Tensor:
        output = v.flatten(1).double() @ explicit.T
        return (output * ~inside[:, 0]).norm(dim=1) / (output * inside[:, 0]).norm(dim=1)

    plain = torch.linalg.svd(explicit * inside)[2][:3]
    assert (leak(found.directions[:, 0]) < leak(plain)).all()


def test_another_mask_or_sample_gives_other_directions(model: DiffusionModel, latents: Latents, mask: Tensor) -> None:
    """A published cache forgot both."""
    first = jacobian(model, latents, k=1, mask=mask, **FAST).directions[:, 0]
    second = jacobian(model, latents, k=1, mask=mask.flip(0), **FAST).directions[:, 0]
    real = replace(latents, seeds=(), x_T=latents.x_T.flip(-1))
    third = jacobian(model, real, k=1, mask=mask, **FAST).directions[:, 0]
    assert principal_angle(first, second) > 0.1
    assert principal_angle(first, third) > 0.01


def test_the_samples_own_noise_is_followed(model: DiffusionModel, latents: Latents) -> None:
    """A published Jacobian was taken along a freshly drawn trajectory."""
    other_z = replace(latents, z=latents.z.flip(-1))
    own = jacobian(model, latents, k=1, **FAST).directions
    assert torch.equal(own, jacobian(model, latents, k=1, **FAST).directions)
    assert principal_angle(own[:, 0], jacobian(model, other_z, k=1, **FAST).directions[:, 0]) > 0.01
    ddim = jacobian(model, latents, k=1, sampler=Sampler(eta=0.0), **FAST).directions
    assert torch.equal(ddim, jacobian(model, other_z, k=1, sampler=Sampler(eta=0.0), **FAST).directions)


def test_singular_values_are_those_of_eps(model: DiffusionModel, latents: Latents) -> None:
    """At step 0 all see the same x_T, so their raw Jacobians are the same."""
    process: Any = model.process
    alpha_bar = process.alpha_bar[process.timesteps[0]]
    expected = {"epsilon": 1.0, "v_prediction": alpha_bar**0.5, "sample": (alpha_bar / (1 - alpha_bar)) ** 0.5}
    expected["flow"] = expected["v_prediction"]
    assert set(expected) == set(PREDICTION_TYPES)
    values = {}
    for prediction_type in PREDICTION_TYPES:
        changed = replace(model, process=replace(model.process, prediction_type=prediction_type))
        found = jacobian(changed, latents, k=1, steps=[0], block_size=16).singular_values
        assert found is not None
        values[prediction_type] = float(found[0])
    for prediction_type, factor in expected.items():
        assert abs(values[prediction_type] / values["epsilon"] / factor - 1) <= 1e-5


def test_every_step_gives_its_own_directions_for_all_steps(model: DiffusionModel, latents: Latents) -> None:
    found = jacobian(model, latents, k=2, block_size=16)
    assert found.directions.shape == (6, 3, 16, 4, 4)
    assert found.meta.names == ("step 0: 1", "step 0: 2", "step 1: 1", "step 1: 2", "step 2: 1", "step 2: 2")
    assert torch.equal(found.directions, found.directions[:, :1].expand(-1, 3, -1, -1, -1))
    assert (found.norms() - 1).abs().max() <= 1e-6
    assert found.meta.unit == "unit norm" and found.meta.method == "jacobian"
    backwards = jacobian(model, latents, k=2, steps=[2, 0], block_size=16)
    assert backwards.meta.names[:2] == ("step 2: 1", "step 2: 2")
    assert torch.equal(backwards.directions, found.directions[[4, 5, 0, 1]])


def test_directions_transfer_to_another_sample_from_a_file(
    single_model: DiffusionModel, latents: Latents, tmp_path: Path
) -> None:
    jacobian(single_model, latents, k=2, **FAST).save(tmp_path / "directions.safetensors")
    loaded = Directions.load(tmp_path / "directions.safetensors")
    other = Latents.from_seeds([9], (3, 8, 8), 3)
    images = edit(single_model, other, loaded, component=1, strengths=[0.0, 5.0])
    plain = sample(single_model, other).x_0
    assert (images[:, 0] - plain).abs().max() <= 1e-5
    assert (images[:, 1] - plain).abs().max() > 1e-2


def test_single_precision_agrees_with_double(
    single_model: DiffusionModel, model: DiffusionModel, latents: Latents
) -> None:
    single = jacobian(single_model, latents, k=1, **CLOSE).directions[:, 0]
    double = jacobian(model, latents, k=1, **EXACT).directions[:, 0]
    assert principal_angle(single, double) <= 1e-3


def test_the_log_says_which_forward_mode_and_how_many_products(
    model: DiffusionModel, latents: Latents, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="hspace.directions.jacobian"):
        jacobian(model, latents, k=1, **FAST)
    assert "step 1: " in caplog.text and "products by double backward" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": [3]}, r"steps must be different indices from 0 to 2, got \[3\]"),
        ({"steps": []}, "steps must be"),
        ({"steps": [1, 1]}, "steps must be"),
        ({"outside": "nullspace"}, "outside=nullspace needs a mask"),
        ({"outside": "nul"}, "outside must be nullspace or null, got nul"),
        ({"mask": torch.ones(4, 4, dtype=torch.bool)}, r"mask must be bool \(8, 8\)"),
        ({"mask": torch.ones(8, 8)}, "mask must be bool"),
        ({"mask": torch.zeros(8, 8, dtype=torch.bool)}, "with something true"),
        ({"k": 0}, "k must be from 1 to"),
        ({"sampler": Sampler(eta=(1.0, 0.5))}, "eta must be one value or 3"),
    ],
)
def test_bad_options(single_model: DiffusionModel, latents: Latents, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"k": 1} | options
    with pytest.raises(InputError, match=message):
        jacobian(single_model, latents, **arguments)


def test_more_than_one_sample_is_refused(single_model: DiffusionModel, latents: Latents) -> None:
    with pytest.raises(InputError, match="a Jacobian is of one sample, got 2"):
        jacobian(single_model, latents.select([0, 0]), k=1)


def test_a_mask_of_one_pixel_has_three_directions(single_model: DiffusionModel, latents: Latents) -> None:
    pixel = torch.zeros(8, 8, dtype=torch.bool)
    pixel[4, 4] = True
    assert len(jacobian(single_model, latents, k=3, mask=pixel, **FAST).directions) == 3
    with pytest.raises(InputError, match="k must be at most 3"):
        jacobian(single_model, latents, k=4, mask=pixel, **FAST)


def test_half_precision_holds_products_however_small(
    folder: str, single_model: DiffusionModel, latents: Latents
) -> None:
    """float16 has no numbers under 6e-8; products are linear, so that their vectors can be of any size."""
    half = load_model(folder, num_steps=3, device="cpu", dtype="float16")
    operators = [DecoderJacobian(each.denoiser, encode(each, latents)) for each in (single_model, half)]
    v = torch.randn(2, *half.h_shape, generator=torch.Generator().manual_seed(0))
    images = [operator.jvp(1e-9 * v) for operator in operators]
    pulled = [operator.vjp(images[0]) for operator in operators]
    for exact, found in (images, pulled):
        assert found.dtype == torch.float32
        assert (found - exact).norm() <= 1e-2 * exact.norm()


@pytest.mark.parametrize(("kind", "prompt"), [("tiny_ldm_dir", ""), ("tiny_sd_dir", "a face")])
def test_latent_and_guided_models(kind: str, prompt: str, request: pytest.FixtureRequest) -> None:
    """Guidance moves both passes' h by one offset, so its Jacobian is that of the guided prediction."""
    latent_model = load_model(
        str(request.getfixturevalue(kind)), num_steps=2, device="cpu", dtype="float64", prompt=prompt, guidance=3.0
    )
    latents = latent_model.latents([4])
    steps: dict[int, Encoded] = {}
    sample(latent_model, latents, observe=steps.__setitem__)
    assert latent_model.cond is None or latent_model.cond.passes == (2 if prompt else 1)
    operator = DecoderJacobian(latent_model.denoiser, steps[1])
    v = torch.randn(1, *operator.in_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ahead, behind = (latent_model.denoiser.decode(steps[1].h + e * v, steps[1]) for e in (1e-4, -1e-4))
    product = operator.jvp(v)
    assert (product - (ahead - behind) / 2e-4).abs().max() <= 1e-5 * product.abs().max()
    mask = torch.ones(latent_model.sample_shape[1:], dtype=torch.bool)
    found = jacobian(latent_model, latents, k=1, steps=[1], mask=mask, block_size=8)
    assert found.directions.shape == (1, 2, *latent_model.h_shape)


TF32: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)


@pytest.fixture
def tf32() -> Iterator[Callable[[tuple[bool, bool]], None]]:
    """Sets whether convolutions and products may use TF32; at the end they are as before."""
    before = [kind.allow_tf32 for kind in TF32]

    def allow(values: tuple[bool, bool]) -> None:
        for kind, value in zip(TF32, values, strict=True):
            kind.allow_tf32 = value

    yield allow
    for kind, value in zip(TF32, before, strict=True):
        kind.allow_tf32 = value


@pytest.mark.parametrize("allowed", [(True, True), (True, False), (False, False)])
def test_full_precision_ends_with_what_it_found_even_after_an_error(
    allowed: tuple[bool, bool], tf32: Callable[[tuple[bool, bool]], None]
) -> None:
    tf32(allowed)
    with pytest.raises(ZeroDivisionError), full_precision():
        assert [kind.allow_tf32 for kind in TF32] == [False, False]
        raise ZeroDivisionError
    assert tuple(kind.allow_tf32 for kind in TF32) == allowed


def test_products_with_the_jacobian_are_computed_in_full_precision(
    single_model: DiffusionModel, latents: Latents, tf32: Callable[[tuple[bool, bool]], None]
) -> None:
    tf32((True, True))
    t = single_model.process.timesteps[STEP]
    encoded = single_model.denoiser.encode(latents.x_T, t, single_model.cond)
    operator, seen = DecoderJacobian(single_model.denoiser, encoded), set[bool]()
    network = single_model.denoiser.network
    hook = network.conv_out.register_forward_hook(lambda *_: seen.update(kind.allow_tf32 for kind in TF32))
    try:
        v = torch.randn(2, *operator.in_shape, generator=torch.Generator().manual_seed(0))
        operator.vjp(operator.jvp(v))
    finally:
        hook.remove()
    assert seen == {False} and all(kind.allow_tf32 for kind in TF32)
