"""The reverse process is diffusers' own where both do the same, and obeys its identities where only ours does it."""

import json
import math
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.codecs import PixelCodec
from hspace.diffusion.identity import WEIGHTS, Identity
from hspace.diffusion.latents import Latents
from hspace.diffusion.process import Schedule
from hspace.diffusion.recording import Recorded, collect, collect_around
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import adding, reverse, sample
from hspace.diffusion.taps import TAPS
from hspace.diffusion.unet import SemanticUNet
from hspace.types import InputError

# With little noise an untrained network's images stay about [-1, 1], to which a pipeline clips them.
MILD = 0.002


def make_model(unet: UNet2DModel, scheduler: Any, num_steps: int) -> DiffusionModel:
    return DiffusionModel(
        SemanticUNet(unet),
        Schedule.of(scheduler, num_steps),
        PixelCodec(),
        "tiny",
        Identity({WEIGHTS: "0" * 64}),
    )


def noise_of_diffusers(num_steps: int) -> Latents:
    """x_T and z in the order in which a pipeline draws them from a generator seeded with 0."""
    generator = torch.Generator().manual_seed(0)
    x_T, *z = (torch.randn(2, 3, 16, 16, generator=generator) for _ in range(num_steps + 1))
    return Latents((0, 1), x_T, torch.stack(z, dim=1))


def run(pipeline: Any, **options: Any) -> torch.Tensor:
    """Images of a pipeline in [-1, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, generator=torch.Generator().manual_seed(0), output_type="np", **options).images
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


@pytest.fixture(scope="module")
def latents() -> Latents:
    return Latents.from_seeds([0, 1], (3, 16, 16), 3)


@pytest.fixture(scope="module")
def delta_h() -> torch.Tensor:
    return torch.randn(2, 3, 16, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_sampling_is_the_ddim_pipeline(tiny_unet: UNet2DModel, eta: float, prediction_type: Any) -> None:
    scheduler = DDIMScheduler(beta_end=MILD, clip_sample=False, prediction_type=prediction_type)
    theirs = run(DDIMPipeline(tiny_unet, scheduler), num_inference_steps=10, eta=eta)  # pyright: ignore
    model = make_model(tiny_unet, scheduler, 10)
    ours = sample(model, noise_of_diffusers(10), sampler=Sampler(eta=eta)).x_0
    assert (theirs.abs() < 1).float().mean() > 0.3
    assert (ours.clamp(-1, 1) - theirs).abs().max() <= 1e-5


def test_sampling_at_eta_1_is_the_ddpm_pipeline(tiny_unet: UNet2DModel) -> None:
    scheduler = DDPMScheduler(beta_end=MILD, clip_sample=False)
    theirs = run(DDPMPipeline(tiny_unet, scheduler), num_inference_steps=10)
    ours = sample(make_model(tiny_unet, scheduler, 10), noise_of_diffusers(10)).x_0
    assert (theirs.abs() < 1).float().mean() > 0.3
    assert (ours.clamp(-1, 1) - theirs).abs().max() <= 1e-5


def test_the_predicted_image_is_never_clipped(tiny_unet: UNet2DModel, latents: Latents) -> None:
    clipping, free = (
        sample(make_model(tiny_unet, DDPMScheduler(clip_sample=clip), 3), latents) for clip in (True, False)
    )
    assert torch.equal(clipping.x_0, free.x_0)
    assert free.x_0.abs().max() > 1


def test_zero_offsets_change_nothing(tiny_model: DiffusionModel, latents: Latents) -> None:
    plain = sample(tiny_model, latents).x_0
    zero = torch.zeros(1, 3, *tiny_model.h_shape)
    for injection in ("symmetric", "asyrp"):
        assert torch.equal(sample(tiny_model, latents, delta_h=zero, sampler=Sampler(injection=injection)).x_0, plain)


def test_one_offset_serves_the_whole_batch(tiny_model: DiffusionModel, latents: Latents, delta_h: torch.Tensor) -> None:
    one = sample(tiny_model, latents, delta_h=delta_h[:1]).x_0
    assert torch.equal(one, sample(tiny_model, latents, delta_h=delta_h[:1].expand(2, -1, -1, -1, -1)).x_0)
    assert (one - sample(tiny_model, latents).x_0).abs().max() > 1e-3


@pytest.mark.parametrize("injection", ["symmetric", "asyrp"])
def test_injection_is_the_equations_with_a_hooked_network(
    tiny_model: DiffusionModel, latents: Latents, delta_h: torch.Tensor, injection: str
) -> None:
    unet: Any = tiny_model.denoiser.network
    process: Any = tiny_model.process
    alpha_bar = process.alpha_bar
    x = latents.x_T
    for i, (t, t_prev) in enumerate(tiny_model.process.pairs()):
        a, b = alpha_bar[t], alpha_bar[t_prev] if t_prev >= 0 else 1.0
        eps = unet(x, t).sample
        handle = unet.mid_block.register_forward_hook(lambda _, inputs, output, i=i: output + delta_h[:, i])
        eps_edit = unet(x, t).sample
        handle.remove()
        sigma = 0.7 * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
        towards = eps if injection == "asyrp" else eps_edit
        predicted = (x - math.sqrt(1 - a) * eps_edit) / math.sqrt(a)
        x = math.sqrt(b) * predicted + math.sqrt(1 - b - sigma**2) * towards + sigma * latents.z[:, i]
    ours = sample(tiny_model, latents, sampler=Sampler(eta=0.7, injection=injection), delta_h=delta_h).x_0
    assert (ours - x).abs().max() <= 1e-5 * x.abs().max()


@pytest.mark.parametrize(("injection", "decoder_passes"), [("symmetric", 3), ("asyrp", 6)])
def test_both_terms_share_one_encoder_pass(
    tiny_model: DiffusionModel, latents: Latents, delta_h: torch.Tensor, injection: str, decoder_passes: int
) -> None:
    counts = {"conv_in": 0, "conv_out": 0}

    def count(name: str) -> Callable[..., None]:
        return lambda *_: counts.update({name: counts[name] + 1})

    handles = [getattr(tiny_model.denoiser.network, name).register_forward_hook(count(name)) for name in counts]
    sample(tiny_model, latents, delta_h=delta_h, sampler=Sampler(injection=injection))
    for handle in handles:
        handle.remove()
    assert counts == {"conv_in": 3, "conv_out": decoder_passes}


@pytest.mark.parametrize("tap", TAPS)
def test_recorded_h_excludes_the_offset(
    tiny_model: DiffusionModel, latents: Latents, delta_h: torch.Tensor, tap: str
) -> None:
    model = replace(tiny_model, denoiser=SemanticUNet(tiny_model.denoiser.network, tap))
    edited = sample(model, latents, delta_h=delta_h, record_h=True).h
    plain = sample(model, latents, record_h=True).h
    assert edited is not None and plain is not None
    assert tuple(plain.shape) == (2, 3, 16, 8, 8)
    assert torch.equal(edited[:, 0], plain[:, 0])
    assert torch.equal(plain[:, 0], model.denoiser.encode(latents.x_T, model.process.timesteps[0]).h)
    assert (edited[:, 1] - plain[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("injection", ["symmetric", "asyrp"])
def test_replacing_h_by_itself_changes_nothing(tiny_model: DiffusionModel, latents: Latents, injection: str) -> None:
    plain = sample(tiny_model, latents, record_h=True)
    replaced = sample(tiny_model, latents, replace_h=plain.h, sampler=Sampler(injection=injection), record_h=True)
    assert torch.equal(replaced.x_0, plain.x_0)
    assert replaced.h is not None and plain.h is not None and torch.equal(replaced.h, plain.h)


def test_replaced_h_is_what_the_decoder_sees(
    tiny_model: DiffusionModel, latents: Latents, delta_h: torch.Tensor
) -> None:
    unet: Any = tiny_model.denoiser.network
    h = torch.randn(1, 3, *tiny_model.h_shape, generator=torch.Generator().manual_seed(8))
    steps = iter(range(3))
    handle = unet.mid_block.register_forward_hook(lambda _, inputs, output: 0 * output + h[:, next(steps)])
    expected = latents.x_T
    for i, (t, t_prev) in enumerate(tiny_model.process.pairs()):
        eps = unet(expected, t).sample
        x0_hat = tiny_model.process.predict_x0(expected, eps, t)
        mean, sigma = tiny_model.process.posterior(x0_hat, eps, t, t_prev, 1.0)
        expected = mean + sigma * latents.z[:, i]
    handle.remove()
    replaced = sample(tiny_model, latents, replace_h=h, record_h=True)
    assert (replaced.x_0 - expected).abs().max() <= 1e-5 * expected.abs().max()
    both = sample(tiny_model, latents, replace_h=h, delta_h=delta_h).x_0
    assert torch.equal(both, sample(tiny_model, latents, replace_h=h + delta_h).x_0)


def test_every_encoding_is_shown_to_an_observer(tiny_model: DiffusionModel, latents: Latents) -> None:
    seen: dict[int, Any] = {}
    h = sample(tiny_model, latents, record_h=True, observe=seen.__setitem__).h
    assert h is not None and list(seen) == [0, 1, 2]
    for i, encoded in seen.items():
        assert torch.equal(encoded.h, h[:, i])
        assert encoded.record.kwargs["timestep"].tolist() == [tiny_model.process.timesteps[i]] * 2


def test_h_is_recorded_on_request_only(tiny_model: DiffusionModel, latents: Latents) -> None:
    assert sample(tiny_model, latents).h is None


def test_z_is_inert_where_sigma_is_zero(tiny_model: DiffusionModel, latents: Latents) -> None:
    z = latents.z.clone()
    z[:, -1] = torch.nan
    assert torch.equal(sample(tiny_model, replace(latents, z=z)).x_0, sample(tiny_model, latents).x_0)
    nan = torch.full_like(z, torch.nan)
    assert torch.equal(
        sample(tiny_model, replace(latents, z=nan), sampler=Sampler(eta=0.0)).x_0,
        sample(tiny_model, latents, sampler=Sampler(eta=0.0)).x_0,
    )


def test_eta_per_step(tiny_model: DiffusionModel, latents: Latents) -> None:
    mixed = sample(tiny_model, latents, sampler=Sampler(eta=[1.0, 0.0, 0.0])).x_0
    assert not torch.equal(mixed, sample(tiny_model, latents, sampler=Sampler(eta=1.0)).x_0)
    assert torch.equal(mixed, sample(tiny_model, latents, sampler=Sampler(eta=[1.0, 0.0, 1.0])).x_0)


def test_a_sample_hardly_depends_on_its_batch(tiny_model: DiffusionModel, latents: Latents) -> None:
    both = sample(tiny_model, latents).x_0
    for row in range(2):
        assert (sample(tiny_model, latents.select([row])).x_0[0] - both[row]).abs().max() <= 1e-4


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes(tiny_pipeline_dir: Path, tiny_model: DiffusionModel, latents: Latents, dtype: str) -> None:
    """The network computes in the dtype asked for, the process in float32 or better."""
    model = load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu", dtype=dtype)
    samples = sample(model, latents, record_h=True)
    assert samples.h is not None and samples.h.dtype == model.dtype
    assert samples.x_0.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    reference = sample(tiny_model, latents).x_0
    tolerance = 1e-4 if dtype == "float64" else 0.1
    assert (samples.x_0 - reference).abs().max() <= tolerance * reference.abs().max()


def test_not_a_number_names_the_step(
    tiny_model: DiffusionModel, tiny_pipeline_dir: Path, latents: Latents, delta_h: torch.Tensor
) -> None:
    broken = delta_h.clone()
    broken[1, 1, 0, 0, 0] = torch.inf
    with pytest.raises(InputError, match=r"NaN or infinite at step 1 \(t=333\)$"):
        sample(tiny_model, latents, delta_h=broken)
    half = load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu", dtype="float16")
    with pytest.raises(InputError, match=r"NaN or infinite at step 1 \(t=333\); use dtype=float32$"):
        sample(half, latents, delta_h=broken)


@pytest.mark.parametrize("injection", ["symmetric", "asyrp"])
def test_gradients_pass_through_the_whole_trajectory(tiny_pipeline_dir: Path, injection: str) -> None:
    """Of the image in the strength of an edit: as central differences have it, in float64."""
    model = load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu", dtype="float64")
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(1, 3, *model.h_shape, generator=generator).double()
    latents, pixels = model.latents([3]), torch.randn(1, *model.sample_shape, generator=generator).double()

    def along_pixels(strength: torch.Tensor) -> torch.Tensor:
        steps = reverse(model, latents, sampler=Sampler(0.5, injection), edit=adding(strength * direction))
        return (list(steps)[-1].x_t * pixels).sum()

    strength = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    along_pixels(strength).backward()
    with torch.no_grad():
        slope = (along_pixels(strength + 1e-5) - along_pixels(strength - 1e-5)) / 2e-5
    assert strength.grad is not None and strength.grad != 0
    assert torch.isclose(strength.grad, slope, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": Sampler(eta=(1.0, 1.0))}, r"eta must be one value or 3 \(one per step\), got 2"),
        ({"sampler": Sampler(start=3)}, "0 <= start < stop <= 3, got 3 to 3"),
        ({"sampler": Sampler(stop=4)}, "got 0 to 4"),
        ({"delta_h": torch.zeros(1, 4, 16, 8, 8)}, r"delta_h must have shape \(2, 3, 16, 8, 8\).*got \(1, 4,"),
        ({"delta_h": torch.zeros(3, 3, 16, 8, 8)}, r"or 1 in place of 2, got \(3, 3"),
        ({"replace_h": torch.zeros(3, 3, 16, 8, 8)}, r"replace_h must have shape .*got \(3, 3"),
    ],
)
def test_bad_options(tiny_model: DiffusionModel, latents: Latents, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample(tiny_model, latents, **options)


def test_latents_of_another_model(tiny_model: DiffusionModel) -> None:
    with pytest.raises(InputError, match=r"x_T must be samples of shape \(3, 16, 16\), got \(3, 8, 8\)"):
        sample(tiny_model, Latents.from_seeds([0], (3, 8, 8), 3))
    with pytest.raises(InputError, match=r"z must have shape \(1, 3, 3, 16, 16\), got \(1, 4"):
        sample(tiny_model, Latents.from_seeds([0], (3, 16, 16), 4))


def test_collect_streams_what_sampling_records(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    seeds = (4, 0, 9, 2, 7)
    recorded = collect(tiny_model, seeds, tmp_path / "h.npy", sampler=Sampler(eta=0.5, batch_size=2))
    stored = recorded.open()
    assert stored.shape == (3, 5, 16 * 8 * 8) and stored.dtype == np.float32
    h = sample(tiny_model, Latents.from_seeds(seeds, (3, 16, 16), 3), sampler=Sampler(eta=0.5), record_h=True).h
    assert h is not None
    assert np.abs(stored - h.flatten(2).transpose(0, 1).numpy()).max() <= 1e-4
    assert sorted(os.listdir(tmp_path)) == ["h.json", "h.npy"]
    assert Recorded.load(tmp_path / "h.npy") == recorded
    assert recorded.provenance == tiny_model.provenance(eta=0.5)


def test_neighbours_are_collected_like_samples(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    center = Latents.from_seeds([5], (3, 16, 16), 3)
    recorded = collect_around(tiny_model, center, 5, tmp_path / "h.npy", sampler=Sampler(eta=0.5, batch_size=2))
    h = sample(tiny_model, center.neighbours(range(5)), sampler=Sampler(eta=0.5), record_h=True).h
    assert h is not None
    assert np.abs(recorded.open() - h.flatten(2).transpose(0, 1).numpy()).max() <= 1e-4
    assert recorded.seeds == (5,) * 5
    with pytest.raises(InputError, match="neighbours need one sample and n >= 1, got 2 samples and n=5"):
        collect_around(tiny_model, Latents.from_seeds([5, 6], (3, 16, 16), 3), 5, tmp_path / "h.npy")


def test_a_recording_is_complete_or_absent(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got -1"):
        collect(tiny_model, [0, 1, -1], tmp_path / "h.npy", sampler=Sampler(batch_size=1))
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="batch_size and the number of samples must be >= 1, got 64 and 0"):
        collect(tiny_model, [], tmp_path / "h.npy")


def test_a_full_disk_is_an_error_that_names_the_file(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            collect(tiny_model, [0, 1], tmp_path / "h.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "h.npy")
    assert os.listdir(tmp_path) == []


def _set_fact(folder: Path, **values: Any) -> None:
    facts = json.loads((folder / "h.json").read_text())
    (folder / "h.json").write_text(json.dumps(facts | values))


def _save_array(folder: Path, array: np.ndarray) -> None:
    np.save(folder / "h.npy", array, allow_pickle=True)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no array": (lambda f: (f / "h.npy").unlink(), "is not a readable .npy"),
    "no facts": (lambda f: (f / "h.json").unlink(), "does not describe a recording"),
    "cut array": (lambda f: (f / "h.npy").write_bytes((f / "h.npy").read_bytes()[:500]), "is not a readable .npy"),
    "pickled array": (lambda f: _save_array(f, np.array([{}, {}], dtype=object)), "is not a readable .npy"),
    "float64": (lambda f: _save_array(f, np.zeros((3, 1, 1024))), "must hold float32"),
    "other shape": (lambda f: _save_array(f, np.zeros((3, 2, 1024), np.float32)), "must hold float32"),
    "broken facts": (lambda f: (f / "h.json").write_text("{"), "does not describe a recording"),
    "missing fact": (lambda f: (f / "h.json").write_text("{}"), "does not describe a recording"),
    "facts of a list": (lambda f: (f / "h.json").write_text("[]"), "does not describe a recording"),
    "no seeds": (lambda f: _set_fact(f, seeds="many"), "does not describe a recording"),
    "no provenance": (lambda f: _set_fact(f, provenance="deep"), "does not describe a recording"),
    "no shape": (lambda f: _set_fact(f, h_shape="flat"), "does not describe a recording"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_recordings(tiny_model: DiffusionModel, tmp_path: Path, fault: str) -> None:
    collect(tiny_model, [0], tmp_path / "h.npy")
    break_it, message = BROKEN[fault]
    break_it(tmp_path)
    with pytest.raises(InputError, match=message):
        Recorded.load(tmp_path / "h.npy")
