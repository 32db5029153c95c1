"""Models are loaded from real files; every broken or unsupported one gives one line that says what is wrong."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import LDMPipeline  # pyright: ignore[reportPrivateImportUsage]
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from hspace.diffusion import checkpoints
from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.identity import WEIGHTS
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.system.hashes import weights_sha256
from hspace.types import InputError


def test_a_pipeline_comes_back_as_it_was_saved(
    tiny_pipeline_dir: Path, tiny_unet: UNet2DModel, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_model(str(tiny_pipeline_dir), device="cpu")
    assert capfd.readouterr() == ("", "")
    loaded = model.denoiser.network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tiny_unet.state_dict().items())
    assert (model.model_id, model.h_shape, model.sample_shape) == ("pipeline", (16, 8, 8), (3, 16, 16))
    assert model.process.timesteps == (900, 800, 700, 600, 500, 400, 300, 200, 100, 0)
    assert not model.denoiser.network.training
    assert not any(parameter.requires_grad for parameter in model.denoiser.network.parameters())


def test_ddim_pipeline_keeps_its_scheduler(tiny_unet: UNet2DModel, tmp_path: Path) -> None:
    scheduler = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=False)
    DDIMPipeline(unet=tiny_unet, scheduler=scheduler).save_pretrained(tmp_path / "ddim")  # pyright: ignore
    schedule: Any = load_model(str(tmp_path / "ddim"), num_steps=4, device="cpu").process
    assert schedule.prediction_type == "v_prediction"
    assert schedule.timesteps == (999, 749, 499, 249)
    assert schedule.final_alpha_bar == schedule.alpha_bar[0]
    assert load_model(str(tmp_path / "ddim"), num_steps=4, spacing="leading", device="cpu").process.timesteps[0] == 750


def test_hash_is_over_name_shape_and_float32_bytes(tiny_pipeline_dir: Path, tiny_unet: UNet2DModel) -> None:
    digest = hashlib.sha256()
    state = tiny_unet.state_dict()
    for name in sorted(state):
        digest.update(name.encode() + str(tuple(state[name].shape)).encode() + state[name].numpy().tobytes())
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        model = load_model(str(tiny_pipeline_dir), device="cpu", dtype=dtype)
        assert model.identity.parts[WEIGHTS] == digest.hexdigest()
        assert model.dtype == getattr(torch, dtype)


def test_hash_is_of_what_is_stored(make_unet: Callable[..., UNet2DModel], tmp_path: Path) -> None:
    half = make_unet().half()
    half.save_pretrained(tmp_path / "half")
    assert load_model(str(tmp_path / "half"), device="cpu").identity.parts[WEIGHTS] == weights_sha256(half)
    half.get_parameter("conv_out.bias").data += 1
    assert load_model(str(tmp_path / "half"), device="cpu").identity.parts[WEIGHTS] != weights_sha256(half)


def test_bare_unet_folder_assumes_ddpm_and_says_so(
    tiny_unet: UNet2DModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_unet.save_pretrained(tmp_path / "bare")
    with caplog.at_level(logging.WARNING):
        model = load_model(str(tmp_path / "bare"), device="cpu")
    assert "DDPM's linear schedule" in caplog.text
    assert model.process.prediction_type == "epsilon"


def test_old_layout_with_pickled_weights_at_the_root(
    tiny_pipeline_dir: Path, tiny_unet: UNet2DModel, tiny_model: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for part in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        shutil.copy(tiny_pipeline_dir / part, folder)
    torch.save(tiny_unet.state_dict(), folder / "diffusion_pytorch_model.bin")
    assert load_model(str(folder), device="cpu").identity.parts[WEIGHTS] == tiny_model.identity.parts[WEIGHTS]
    assert capfd.readouterr() == ("", "")


def test_embedded_model(tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hspace.diffusion.checkpoints.package_path", lambda name: tmp_path / name)
    with pytest.raises(InputError, match="weights of the embedded model portraits are not installed"):
        load_model(device="cpu")
    shutil.copytree(tiny_pipeline_dir, tmp_path / "weights" / "portraits" / "ddpm")
    assert load_model(device="cpu").model_id == "portraits"


def test_hub_model_in_the_cache_needs_no_network(
    tiny_pipeline_dir: Path, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--tiny--faces"
    shutil.copytree(tiny_pipeline_dir, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = load_model("tiny/faces", device="cpu")
    assert (model.model_id, model.identity.parts[WEIGHTS]) == ("tiny/faces", tiny_model.identity.parts[WEIGHTS])


@pytest.mark.parametrize(
    ("files", "calls"),
    [
        (["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"], [(None, set())]),
        (["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin"], [(None, set())]),
        (
            ["unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"],
            [("fp16", set())],
        ),
        (["unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors"], [("fp16", set())]),
        (
            ["unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
             "text_encoder/model.fp16.safetensors", "safety_checker/model.bf16.safetensors"],
            [(None, {"text_encoder"}), ("fp16", {"unet"})],
        ),
        (["diffusion_pytorch_model.bin"], [(None, set())]),
    ],
)  # fmt: skip
def test_variants_are_fetched_of_parts_that_have_no_plain_files(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], calls: list[Any]
) -> None:
    folder = shutil.copytree(tiny_pipeline_dir, tmp_path / "hub")
    names = {
        "unet": "UNet2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "safety_checker": "Checker",
    }
    edit_json(folder / "model_index.json", **{part: ["diffusers", kind] for part, kind in names.items()})
    asked: list[Any] = []

    def download(model: str, **options: Any) -> str:
        left_out = {part for part, value in options.items() if part in names and value is None} - {"safety_checker"}
        asked.append((options.get("variant"), left_out))
        return str(folder)

    monkeypatch.setattr("hspace.diffusion.checkpoints.why_unreachable", lambda model: None)
    monkeypatch.setattr("hspace.diffusion.checkpoints.hf_hub_download", lambda *_, **__: folder / "model_index.json")
    monkeypatch.setattr("hspace.diffusion.checkpoints.list_repo_files", lambda *_, **__: ["README.md", *files])
    monkeypatch.setattr(DiffusionPipeline, "download", download)
    assert checkpoints._download("tiny/faces", None) == folder
    assert asked == calls


def test_diffusers_fetches_a_variant_of_some_parts_and_plain_files_of_the_others(
    tiny_sd_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a repository whose text encoder has only fp16, and whose network has both."""
    folder = shutil.copytree(tiny_sd_dir, tmp_path / "hub")
    unet, text = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "text_encoder"
    shutil.copy(unet, unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (text / "model.safetensors").rename(text / "model.fp16.safetensors")
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    commit = tmp_path / "cache" / ("a" * 40)
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files], sha="a" * 40)

    def fetch(file: str) -> str:
        (commit / file).parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(folder / file, commit / file))

    def snapshot(*_: Any, allow_patterns: list[str], ignore_patterns: list[str], **__: Any) -> str:
        for file in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            fetch(file)
        return str(commit)

    theirs = "diffusers.pipelines.pipeline_utils"
    monkeypatch.setattr("hspace.diffusion.checkpoints.why_unreachable", lambda model: None)
    monkeypatch.setattr("hspace.diffusion.checkpoints.list_repo_files", lambda *_, **__: files)
    monkeypatch.setattr("hspace.diffusion.checkpoints.hf_hub_download", lambda _, file, **__: fetch(file))
    monkeypatch.setattr(f"{theirs}.hf_hub_download", lambda _, file, **__: fetch(file))
    monkeypatch.setattr(f"{theirs}.model_info", lambda *_, **__: info)
    # Older releases do not ask the hub for it.
    monkeypatch.setattr(f"{theirs}._resolve_revision", lambda *_, **__: "a" * 40, raising=False)
    monkeypatch.setattr(f"{theirs}.snapshot_download", snapshot)
    model = load_model("tiny/text", device="cpu", prompt="a man")
    assert model.revision == "a" * 40
    weights = {str(path.relative_to(commit)) for path in commit.rglob("*.safetensors")}
    assert {"text_encoder/model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors"} <= weights
    assert "unet/diffusion_pytorch_model.fp16.safetensors" not in weights


def test_latent_diffusion_is_diffusers_own(tiny_ldm_dir: Path) -> None:
    model = load_model(str(tiny_ldm_dir), num_steps=3, device="cpu")
    assert (model.sample_shape, model.image_shape) == ((3, 8, 8), (3, 16, 16))
    assert model.cond is None
    latents = model.latents([0, 1])
    pipeline = LDMPipeline.from_pretrained(tiny_ldm_dir)
    pipeline.set_progress_bar_config(disable=True)
    x_t: Any = latents.x_T
    pipeline.scheduler.set_timesteps(3)
    for t in pipeline.scheduler.timesteps:
        x_t = pipeline.scheduler.step(pipeline.unet(x_t, t).sample, t, x_t, eta=0.0).prev_sample
    theirs = pipeline.vqvae.decode(x_t / pipeline.vqvae.config.scaling_factor).sample
    assert (sample(model, latents, sampler=Sampler(eta=0.0)).x_0 - theirs).abs().max() <= 1e-5


def test_vq_model_that_names_no_scaling_factor_has_none(tiny_ldm_dir: Path, tmp_path: Path) -> None:
    """CompVis/ldm-celebahq-256 names none, and diffusers' default spoils its images."""
    assert load_model(str(tiny_ldm_dir), device="cpu").codec.scale == 0.18215  # pyright: ignore
    shutil.copytree(tiny_ldm_dir, tmp_path / "ldm")
    config = tmp_path / "ldm" / "vqvae" / "config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "scaling_factor"}))
    assert load_model(str(tmp_path / "ldm"), device="cpu").codec.scale == 1.0  # pyright: ignore


@pytest.mark.parametrize(
    ("prompt", "guidance"), [("a red man", 7.5), ("a red man", 1.0), ("a red man", 0.5), ("", 7.5)]
)
def test_stable_diffusion_is_diffusers_own(
    tiny_sd_dir: Path, prompt: str, guidance: float, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_model(str(tiny_sd_dir), num_steps=4, device="cpu", prompt=prompt, guidance=guidance)
    assert capfd.readouterr() == ("", "")
    assert (model.sample_shape, model.image_shape) == ((4, 8, 8), (3, 16, 16))
    assert model.process.timesteps == (751, 501, 251, 1)
    process: Any = model.process
    assert process.final_alpha_bar == process.alpha_bar[0]

    latents = model.latents([0, 1])
    pipeline: Any = DiffusionPipeline.from_pretrained(tiny_sd_dir, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    cond, uncond = pipeline.encode_prompt(prompt, "cpu", 2, True)
    scheduler: Any = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(4)
    x_t: Any = latents.x_T
    for i, t in enumerate(scheduler.timesteps):
        without, with_prompt = pipeline.unet(torch.cat([x_t, x_t]), t, torch.cat([uncond, cond])).sample.chunk(2)
        eps = without + guidance * (with_prompt - without)
        x_t = scheduler.step(eps, t, x_t, eta=1.0, variance_noise=latents.z[:, i]).prev_sample
    theirs = pipeline.vae.decode(x_t / 0.18215).sample
    assert (sample(model, latents, sampler=Sampler(eta=1.0)).x_0 - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("portrait", "did you mean portraits"),
        ("xyz", "known models: portraits"),
        ("./no/such/folder", "./no/such/folder is neither a known model nor a folder"),
        ("no-owner/no-model", "no-owner/no-model is not a folder, and the hub does not give such a model"),
    ],
)
def test_unknown_models(model: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        load_model(model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, float64, float16, bfloat16, got int8"),
        ({"device": "tpu"}, "device must be auto or one this machine has (.*), got tpu"),
        ({"tap": "deep"}, "tap must be one of"),
        ({"num_steps": 0}, "num_steps must be in"),
        ({"prompt": "a man"}, "pipeline takes no prompt, got 'a man'"),
    ],
)
def test_bad_arguments(tiny_pipeline_dir: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(str(tiny_pipeline_dir), **arguments)


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _cut_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _drop_a_tensor(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["mid_block.resnets.0.norm2.bias"]
    save_file(tensors, weights)


def _pickle_with_code(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": os.getcwd}, folder / "unet" / "diffusion_pytorch_model.bin")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no model": (lambda f: (f / "model_index.json").unlink(), "neither model_index.json nor config.json"),
    "broken index": (lambda f: (f / "model_index.json").write_text("{"), "model_index.json cannot be read"),
    "list as index": (lambda f: (f / "model_index.json").write_text("[]"), "must hold a JSON object, got list"),
    "no unet": (lambda f: (f / "model_index.json").write_text("{}"), "names neither unet nor transformer"),
    "latent": (
        lambda f: edit_json(f / "model_index.json", vqvae=["diffusers", "VQModel"]),
        "config.json cannot be read",
    ),
    "conditional": (
        lambda f: edit_json(f / "model_index.json", unet=["diffusers", "UNet2DConditionModel"]),
        "is not of a known family .*; its parts are: unet UNet2DConditionModel",
    ),
    "two text encoders": (
        lambda f: edit_json(f / "model_index.json", text_encoder_2=["transformers", "CLIPTextModel"]),
        "its parts are: text_encoder_2 CLIPTextModel, unet UNet2DModel",
    ),
    "other class": (lambda f: edit_json(f / "unet/config.json", _class_name="VQModel"), "got VQModel"),
    "other scheduler": (
        lambda f: edit_json(f / "scheduler/scheduler_config.json", _class_name="Nonsense"),
        "unknown scheduler Nonsense",
    ),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler_config.json cannot be read"),
    "no weights": (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(), "cannot be read"),
    "cut weights": (_cut_weights, "the weights of .* cannot be read"),
    "pickled code": (_pickle_with_code, "the weights of .* cannot be read"),
    "missing tensor": (_drop_a_tensor, "do not fit its config.json: 1 tensors, e.g. mid_block.resnets.0.norm2.bias"),
    "other width": (
        lambda f: edit_json(f / "unet/config.json", block_out_channels=[8, 32]),
        "size mismatch|expected shape",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_folders(tiny_pipeline_dir: Path, tmp_path: Path, fault: str, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_pipeline_dir, folder)
    break_it, message = BROKEN[fault]
    break_it(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
