"""Inverted images come back: edit-friendly ones exactly at any eta, DDIM ones as closely as the steps are solved."""

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from pipelines import PIPELINES, autoencoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.codecs import PixelCodec
from hspace.diffusion.inversion import Inverted, ddim_inversion, edit_friendly_inversion, image_error
from hspace.diffusion.latents import Latents, draw
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.types import InputError

diffusers: Any = import_module("diffusers")
"""Any, since its stubs export nothing."""

Load = Callable[..., DiffusionModel]


def damp(model: DiffusionModel, last: str = "conv_out") -> DiffusionModel:
    """Let the output depend less on x_t: an untrained network changes too fast with it for a fixed point."""
    model.denoiser.network.get_parameter(f"{last}.weight").mul_(0.02)
    return model


@pytest.fixture(scope="module")
def load_pixel(tiny_pipeline_dir: Path) -> Load:
    return lambda n: damp(load_model(str(tiny_pipeline_dir), num_steps=n, device="cpu", dtype="float64"))


def save_v(folder: Path, **betas: Any) -> Path:
    """A model that predicts v and whose first step starts from noise alone, or by `betas` from next to noise alone."""
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False,
        **(betas or {"rescale_betas_zero_snr": True}),
    )  # fmt: skip
    diffusers.DDIMPipeline(networks.unet(), scheduler).save_pretrained(folder)
    return folder


def save_flow(folder: Path) -> Path:
    """Stable Diffusion 3 whose latents have the shape of the images here."""
    pytest.importorskip("transformers")
    pipeline, config = PIPELINES["sd3"](), dict(networks.sd3()[0].config)
    network = diffusers.SD3Transformer2DModel(**config | {"sample_size": 16, "in_channels": 3, "out_channels": 3})
    pipeline.register_modules(transformer=networks.wake(network), vae=autoencoder(latent_channels=3))
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["diffusion", "v from noise alone", "flow"])
def load(request: pytest.FixtureRequest, load_pixel: Load, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Models of (3, 16, 16) of each kind of process, in which images are what they are."""
    if request.param == "diffusion":
        return load_pixel
    flow = request.param == "flow"
    folder = (save_flow if flow else save_v)(tmp_path_factory.mktemp("inversion") / "model")
    given: dict[str, Any] = {"device": "cpu", "dtype": "float64"} | (
        {"prompt": "a man", "guidance": 2.0} if flow else {}
    )

    def load(n: int) -> DiffusionModel:
        model = load_model(str(folder), num_steps=n, **given)
        assert model.process.levels()[0][0] == 0, "it starts from noise alone"
        return replace(damp(model, "proj_out" if flow else "conv_out"), codec=PixelCodec())

    return load


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth images in [-1, 1], float64."""
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")


def largest(inverted: Inverted) -> float:
    return float(inverted.reconstruction.largest.max())


def trajectory(model: DiffusionModel, latents: Latents, eta: Any) -> list[torch.Tensor]:
    """Every x_t that sampling passes through, the clean one without its residual."""
    schedule, etas, x_t = model.process, model.process.etas(eta), latents.x_T
    passed = [x_t]
    for i, (t, t_prev) in enumerate(schedule.pairs()):
        encoded = model.denoiser.encode(x_t, t, model.cond)
        output = model.denoiser.decode(encoded.h, encoded)
        x0_hat, eps = schedule.to_x0(output, x_t, t), schedule.to_eps(output, x_t, t)
        mean, sigma = schedule.posterior(x0_hat, eps, t, t_prev, etas[i])
        x_t = mean + sigma * latents.z[:, i]
        passed.append(x_t)
    return passed


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0, (1.0, 0.1, 0.7, 0.3, 1.0)])
def test_edit_friendly_passes_through_every_drawn_x_t(load: Load, images: torch.Tensor, eta: Any) -> None:
    model = load(5)
    inverted = edit_friendly_inversion(model, images, sampler=Sampler(eta=eta), seeds=[3, 8], record_h=True)
    noise = draw([3, 8], "inversion", (5, 3, 16, 16)).double()
    passed = trajectory(model, inverted.latents, eta)
    for i, t in enumerate(model.process.timesteps):
        drawn = model.process.add_noise(images, noise[:, i], t)
        assert (passed[i] - drawn).abs().max() <= 1e-8

    # The last step has no z: without the residual, what comes back is the network's last prediction.
    assert inverted.latents.residual is not None
    assert (sample(model, inverted.latents, sampler=Sampler(eta=eta)).x_0 - images).abs().max() <= 1e-6
    without = sample(model, replace(inverted.latents, residual=None), sampler=Sampler(eta=eta)).x_0
    assert (image_error(without, images).rms - inverted.without_residual.rms).abs().max() <= 1e-8
    assert (without - passed[-1]).abs().max() <= 1e-8
    assert inverted.reconstruction.largest.max() <= 1e-6 < 1e-4 < inverted.without_residual.largest.min()

    h = sample(model, inverted.latents, sampler=Sampler(eta=eta), record_h=True).h
    assert h is not None and inverted.h is not None and (h - inverted.h).abs().max() <= 1e-8


def test_steps_without_noise_are_taken_as_they_fall(load: Load, images: torch.Tensor) -> None:
    model = load(4)
    eta = (1.0, 0.0, 1.0, 0.0)
    inverted = edit_friendly_inversion(model, images, sampler=Sampler(eta=eta))
    assert torch.equal(inverted.latents.z[:, 1], torch.zeros_like(images))
    assert (sample(model, inverted.latents, sampler=Sampler(eta=eta)).x_0 - images).abs().max() <= 1e-6


def test_noise_of_an_image_is_its_own(load: Load, images: torch.Tensor) -> None:
    model = load(3)
    both = edit_friendly_inversion(model, images, seeds=[5, 6]).latents
    alone = edit_friendly_inversion(model, images[1:], seeds=[6]).latents
    assert (both.z[1:] - alone.z).abs().max() <= 1e-8
    other = edit_friendly_inversion(model, images[1:], seeds=[7]).latents
    assert (other.x_T - alone.x_T).abs().max() > 0.1
    generated = Latents.from_seeds([6], (3, 16, 16), 3)
    assert abs(torch.corrcoef(torch.stack([alone.x_T.flatten(), generated.x_T.double().flatten()]))[0, 1]) < 0.2


def test_a_residual_goes_with_its_sample(load: Load, images: torch.Tensor) -> None:
    model = load(3)
    latents = edit_friendly_inversion(model, images, sampler=Sampler(eta=0.5)).latents.select([1, 0, 1]).to("cpu")
    assert (sample(model, latents, sampler=Sampler(eta=0.5)).x_0 - images[[1, 0, 1]]).abs().max() <= 1e-6


@pytest.mark.parametrize("num_steps", [2, 5, 20])
def test_ddim_comes_back_at_any_number_of_steps(load: Load, images: torch.Tensor, num_steps: int) -> None:
    model = load(num_steps)
    # With v the noise of a step depends on x_t itself, so that two steps take more than a hundred rounds.
    inverted = ddim_inversion(model, images, refine=400, tolerance=1e-10, record_h=True)
    again = sample(model, inverted.latents, sampler=Sampler(eta=0.0), record_h=True)
    assert largest(inverted) <= 1e-4
    assert torch.equal(again.x_0, inverted.x_0)
    assert again.h is not None and inverted.h is not None and (again.h - inverted.h).abs().max() <= 1e-4
    assert inverted.latents.residual is None


def test_ddim_error_falls_with_the_number_of_steps(load: Load, images: torch.Tensor) -> None:
    errors = [largest(ddim_inversion(load(num_steps), images, refine=0)) for num_steps in (16, 32, 64)]
    # A flow's steps grow towards its noise, so that its error falls a little more slowly.
    factor = 1.7 if load(2).process.prediction_type == "flow" else 1.8
    assert errors[0] > factor * errors[1] > factor**2 * errors[2]


def test_generated_images_return_to_their_noise(load: Load) -> None:
    """The pairs are the sampler's own, so that a converged inversion ends on the very x_T."""
    model = load(5)
    latents = model.latents([4])
    image = sample(model, latents, sampler=Sampler(eta=0.0)).x_0
    inverted = ddim_inversion(model, image, refine=100, tolerance=1e-12)
    assert (inverted.latents.x_T - latents.x_T).abs().max() <= 1e-6


def test_a_step_from_next_to_noise_alone_is_solved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its eps is nearly x_t itself: an iteration that holds eps would hardly move, and report small changes."""
    folder = save_v(tmp_path / "model", beta_schedule="squaredcos_cap_v2")
    model = damp(load_model(str(folder), num_steps=5, device="cpu", dtype="float64"))
    assert 0 < model.process.levels()[0][0] < 0.01
    latents = model.latents([4])
    image = sample(model, latents, sampler=Sampler(eta=0.0)).x_0
    inverted = ddim_inversion(model, image, refine=60)
    assert "t=999" not in caplog.text
    assert (inverted.latents.x_T - latents.x_T).abs().max() <= 1e-3


def test_an_image_is_inverted_alone_as_among_others(tmp_path: Path) -> None:
    """Its moves are not halved because those of another image lead away from their solution."""
    model = load_model(str(save_v(tmp_path / "model")), num_steps=3, device="cpu", dtype="float64")
    model.denoiser.network.get_parameter("conv_out.weight").mul_(0.3)
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    images = torch.cat([noise.sign(), torch.full_like(noise, 0.2)])
    both, alone = ddim_inversion(model, images).latents, ddim_inversion(model, images[:1]).latents
    assert (both.x_T[0] - alone.x_T[0]).abs().max() <= 1e-6


def test_steps_that_are_not_solved_are_named(
    load_pixel: Load, images: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ddim_inversion(load_pixel(2), images, refine=1, tolerance=0.0)
    assert "inversion at t=500 still changed x_t by" in caplog.text


def test_float32(tiny_pipeline_dir: Path, images: torch.Tensor) -> None:
    model = damp(load_model(str(tiny_pipeline_dir), num_steps=5, device="cpu"))
    assert largest(ddim_inversion(model, images.float(), tolerance=1e-6)) <= 1e-4
    inverted = edit_friendly_inversion(model, images.float())
    assert (sample(model, inverted.latents).x_0 - images).abs().max() <= 1e-4


def test_latent_models(tiny_ldm_dir: Path, tiny_sd_dir: Path, images: torch.Tensor) -> None:
    """What is lost is then what the autoencoder loses; with a final alpha_bar below 1 the last step has noise too."""
    for folder in (tiny_ldm_dir, tiny_sd_dir):
        model = damp(load_model(str(folder), num_steps=3, device="cpu", dtype="float64"))
        lost = image_error(model.codec.decode(model.codec.encode(images)), images)
        for inverted in (ddim_inversion(model, images, tolerance=1e-9), edit_friendly_inversion(model, images)):
            assert (inverted.reconstruction.rms - lost.rms).abs().max() <= 1e-4
    assert inverted.latents.residual is not None and inverted.latents.residual.abs().max() <= 1e-8


def test_guided_inversion(tiny_sd_dir: Path, images: torch.Tensor) -> None:
    model = load_model(str(tiny_sd_dir), num_steps=3, device="cpu", dtype="float64", prompt="a man", guidance=4.0)
    inverted = edit_friendly_inversion(model, images, sampler=Sampler(eta=0.5))
    lost = model.codec.decode(model.codec.encode(images))
    assert (sample(model, inverted.latents, sampler=Sampler(eta=0.5)).x_0 - lost).abs().max() <= 1e-6


def test_errors_are_per_image() -> None:
    zeros = torch.zeros(2, 1, 2, 2)
    images = zeros.clone()
    images[1, 0, 0, 0] = -2.0
    error = image_error(images, zeros)
    assert error.rms.tolist() == [0.0, 1.0]
    assert error.largest.tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: edit_friendly_inversion(m, x, sampler=Sampler(eta=0)), "got 0; use ddim_inversion for eta 0"),
        (lambda m, x: edit_friendly_inversion(m, x, sampler=Sampler(eta=(0.0, 0.0))), "use ddim_inversion"),
        (lambda m, x: edit_friendly_inversion(m, x, seeds=[1]), "seeds must be one per image, got 1 for 2 images"),
        (lambda m, x: edit_friendly_inversion(m, x, seeds=[-1, 0]), "seeds must be integers >= 0, got -1"),
        (lambda m, x: edit_friendly_inversion(m, x[:, :, :8]), r"images must be of shape \(3, 16, 16\), got"),
        (lambda m, x: ddim_inversion(m, x, refine=-1), "refine must be >= 0, got -1"),
    ],
)
def test_mistakes(load_pixel: Load, images: torch.Tensor, call: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(load_pixel(2), images)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_inversion_is_read_back_and_gives_its_images(tiny_pipeline_dir: Path, tmp_path: Path, eta: float) -> None:
    model = damp(load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu"))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inverted = (
        edit_friendly_inversion(model, images, sampler=Sampler(eta=eta), record_h=True)
        if eta
        else ddim_inversion(model, images, record_h=True)
    )
    path = tmp_path / "inverted.safetensors"
    inverted.save(path)
    loaded = Inverted.load(path)
    assert inverted.h is not None and loaded.h is not None and torch.equal(loaded.h, inverted.h)
    assert torch.equal(loaded.x_0, inverted.x_0)
    assert torch.equal(loaded.reconstruction.rms, inverted.reconstruction.rms)
    assert torch.equal(loaded.without_residual.largest, inverted.without_residual.largest)
    assert loaded.latents.provenance == model.provenance(eta=eta)
    assert torch.equal(
        sample(model, loaded.latents, sampler=Sampler(eta=eta)).x_0,
        sample(model, inverted.latents, sampler=Sampler(eta=eta)).x_0,
    )
    for name, shape in (("x_0", (1, 3, 16, 16)), ("h", (2, 4, 1)), ("rms", (2, 2))):
        wrong = load_file(path) | {name: torch.ones(shape)}
        save_file(wrong, tmp_path / "bad.safetensors", metadata=metadata_of(path))
        with pytest.raises(InputError, match=f"{name} must have"):
            Inverted.load(tmp_path / "bad.safetensors")


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()
