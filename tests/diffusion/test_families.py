"""Every family of checkpoints is read as diffusers saved it, and samples what diffusers' own pipeline does."""

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from pipelines import PIPELINES, PROMPTS, autoencoder, save, save_as
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hspace.cli import main
from hspace.diffusion import denoiser as denoiser_module
from hspace.diffusion import reading
from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.denoiser import CutDenoiser
from hspace.diffusion.families import PipelineFamily, families
from hspace.diffusion.inversion import edit_friendly_inversion
from hspace.diffusion.latents import Latents
from hspace.diffusion.reading import read_module
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.jacobian import jacobian
from hspace.types import InputError

diffusers: Any = import_module("diffusers")
"""Any, since its stubs export nothing."""

pytest.importorskip("transformers")
Folder = Callable[[str], Path]
STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("families")
    return lambda name: save(name, root / name)


def load(folder: Folder, name: str, **options: Any) -> DiffusionModel:
    settings = {"num_steps": STEPS, "device": "cpu", "prompt": PROMPTS.get(name, ""), "guidance": 4.0} | options
    return load_model(str(folder(name)), **settings)


GUIDED: dict[str, dict[str, Any]] = {
    "stable_diffusion": {},
    "sdxl": {},
    "pixart": {"height": 16, "width": 16, "use_resolution_binning": False, "clean_caption": False},
    "sd3": {"height": 16, "width": 16},
    "flux": {"height": 16, "width": 16},
}


@pytest.mark.parametrize("steps", [STEPS, 8])
@pytest.mark.parametrize("name", GUIDED)
def test_a_prompt_gives_the_pipelines_own_image(folder: Folder, name: str, steps: int) -> None:
    model, pipeline = load(folder, name, num_steps=steps), diffusers.DiffusionPipeline.from_pretrained(folder(name))
    pipeline.set_progress_bar_config(disable=True)
    latents = model.latents([5])
    x_T: Any = latents.x_T
    if name == "flux":
        x_T = diffusers.FluxPipeline._pack_latents(x_T, 1, 4, 8, 8)
    theirs = pipeline(
        PROMPTS[name], num_inference_steps=steps, guidance_scale=4.0, latents=x_T, output_type="pt", **GUIDED[name]
    ).images
    ours = (sample(model, latents, sampler=Sampler(eta=0.0)).x_0 / 2 + 0.5).clamp(0, 1)
    assert (ours - theirs).abs().max() <= 2e-5
    assert ours.std() > 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PIPELINES)
def test_half_precision_is_read_as_such_and_has_the_bits_of_a_cast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    kind = getattr(torch, dtype)
    save_as(name, PIPELINES[name]().to(dtype=kind), tmp_path)

    def loaded() -> tuple[DiffusionModel, dict[str, Tensor]]:
        model = load_model(str(tmp_path), num_steps=STEPS, device="cpu", dtype=dtype, prompt=PROMPTS.get(name, ""))
        network = model.denoiser.network
        return model, {**dict(network.named_parameters()), **dict(network.named_buffers())}

    (ours, own), read = loaded(), reading._stored
    part = "transformer" if (tmp_path / "transformer").is_dir() else "unet"
    assert read(tmp_path / part, None) == {kind}
    monkeypatch.setattr(reading, "_stored", lambda *_: set())
    plain, cast = loaded()
    assert own.keys() == cast.keys() and all(torch.equal(own[key], cast[key]) for key in own)
    assert all(each.dtype == kind for each in own.values() if each.is_floating_point())
    assert ours.identity == plain.identity
    assert torch.equal(image_of(ours, ours.latents([3])), image_of(plain, plain.latents([3])))


def test_half_precision_is_not_taken_for_another_dtype_nor_for_a_mixture(tmp_path: Path) -> None:
    """The lesser one would lose digits, and what a network computes when it is made would have too few."""
    save_as("dit", PIPELINES["dit"]().to(dtype=torch.bfloat16), tmp_path)
    file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    for dtype in (torch.float32, torch.float16):
        module = read_module(tmp_path, "transformer", "DiTTransformer2DModel", "dit", dtype)
        assert module.dtype == torch.float32
    tensors = load_file(file)
    first = min(tensors)
    save_file(tensors | {first: tensors[first].float()}, file, {"format": "pt"})
    assert read_module(tmp_path, "transformer", "DiTTransformer2DModel", "dit", torch.bfloat16).dtype == torch.float32


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_shifted_times_are_those_of_the_pipeline_at_another_size_and_number_of_steps(
    tmp_path: Path, name: str, steps: int
) -> None:
    """Both by the number of tokens, as the schedulers of FLUX and of SD 3.5 medium have it."""
    pipeline, size = PIPELINES[name](), 32
    pipeline.vae.register_to_config(sample_size=size)
    if name == "sd3":
        config = {**pipeline.transformer.config, "sample_size": size // 2, "pos_embed_max_size": size // 4}
        pipeline.register_modules(transformer=diffusers.SD3Transformer2DModel(**config))
    shifting = {"use_dynamic_shifting": True, "base_image_seq_len": 16, "max_image_seq_len": 128, "max_shift": 2.0}
    pipeline.register_modules(scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shifting))
    pipeline.save_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    pipeline("a man", num_inference_steps=steps, height=size, width=size, output_type="latent")
    model = load_model(str(tmp_path), num_steps=steps, device="cpu", prompt="a man")
    assert model.image_shape == (3, size, size)
    assert model.process.timesteps == pytest.approx(pipeline.scheduler.timesteps.tolist(), rel=1e-6)


def test_pixart_alpha_is_told_from_sigma_by_its_pipeline_and_reads_fewer_words(folder: Folder, tmp_path: Path) -> None:
    sigma = PIPELINES["pixart"]()
    alpha = diffusers.PixArtAlphaPipeline(**sigma.components)
    alpha.save_pretrained(tmp_path / "alpha")
    model = load_model(str(tmp_path / "alpha"), num_steps=STEPS, device="cpu", prompt="a man", guidance=4.0)
    assert model.cond is not None and model.cond.inputs["encoder_hidden_states"].shape[:2] == (2, 120)
    other = load(folder, "pixart").cond
    assert other is not None and other.inputs["encoder_hidden_states"].shape[:2] == (2, 300)
    alpha.set_progress_bar_config(disable=True)
    latents = model.latents([5])
    theirs = alpha("a man", num_inference_steps=STEPS, guidance_scale=4.0, latents=latents.x_T, output_type="pt",
                   **GUIDED["pixart"]).images  # fmt: skip
    ours = (sample(model, latents, sampler=Sampler(eta=0.0)).x_0 / 2 + 0.5).clamp(0, 1)
    assert (ours - theirs).abs().max() <= 2e-5


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_class_gives_the_pipelines_own_image(folder: Folder, guidance: float) -> None:
    model, pipeline = load(folder, "dit", guidance=guidance), diffusers.DiTPipeline.from_pretrained(folder("dit"))
    pipeline.set_progress_bar_config(disable=True)
    x_T = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(
        [3], guidance_scale=guidance, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images  # fmt: skip
    ours = sample(model, Latents((0,), x_T, torch.zeros(1, STEPS, 4, 8, 8)), sampler=Sampler(eta=0.0)).x_0
    assert ((ours / 2 + 0.5).clamp(0, 1) - torch.from_numpy(theirs).permute(0, 3, 1, 2)).abs().max() <= 2e-5
    assert torch.equal(sample(load(folder, "dit", guidance=guidance, prompt="3"), model.latents([1])).x_0,
                       sample(model, model.latents([1])).x_0)  # fmt: skip


def test_a_class_and_a_learnt_variance_take_the_step_of_ddpm(folder: Folder) -> None:
    """The mean, that is; the variance is ours at any eta."""
    model = load(folder, "classes", num_steps=1000)
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    latents = Latents((1,), model.latents([1]).x_T, torch.zeros(1, 1000, *model.sample_shape))
    encoded = model.denoiser.encode(latents.x_T, 999, model.cond)
    network: Any = model.denoiser.network
    whole = network(latents.x_T, 999, class_labels=torch.tensor([3])).sample
    ours = model.denoiser.decode(encoded.h, encoded)
    assert whole.shape[1] == 6 and torch.equal(ours, whole[:, :3])
    x0_hat, eps = model.process.to_x0(ours, latents.x_T, 999), model.process.to_eps(ours, latents.x_T, 999)
    mean, sigma = model.process.posterior(x0_hat, eps, 999, 998, 1.0)
    noise = torch.randn(latents.x_T.shape, generator=torch.Generator().manual_seed(0))
    theirs: Any = scheduler.step(ours, 999, latents.x_T, generator=torch.Generator().manual_seed(0))
    assert (mean + sigma * noise - theirs.prev_sample).abs().max() <= 1e-5


@pytest.mark.parametrize("name", PIPELINES)
def test_the_cut_gives_the_bits_of_the_whole_network(folder: Folder, name: str) -> None:
    model = load(folder, name)
    denoiser: Any = model.denoiser
    x_t, t, cond = model.latents([1, 2]).x_T, model.process.timesteps[1], model.cond
    rows = {} if cond is None else cond.rows(2, x_t)
    both = x_t if cond is None else torch.cat([x_t] * cond.passes)
    whole = denoiser.wiring.output(denoiser.network(**denoiser.wiring.inputs(both, t, rows), return_dict=False)[0])
    if len(whole) == 4:
        whole = whole[2:] + 4.0 * (whole[:2] - whole[2:])
    encoded = denoiser.encode(x_t, t, cond)
    assert encoded.h.shape == (2, *model.h_shape)
    assert torch.equal(denoiser.decode(encoded.h, encoded), whole)
    selected = encoded.select([1, 1, 0])
    assert (denoiser.decode(selected.h, selected) - whole[[1, 1, 0]]).abs().max() <= 1e-4 * whole.abs().max()


@pytest.mark.parametrize("name", PIPELINES)
def test_shapes_of_a_large_network_are_found_without_a_pass(
    folder: Folder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: Any = load(folder, name).denoiser
    monkeypatch.setattr(denoiser_module, "LARGE", 1)
    passes: list[nn.Module] = []
    for module in small.network.modules():
        module.register_forward_hook(lambda module, *_: passes.append(module))
    large = CutDenoiser(small.network, small.tap, small.wiring)
    assert (large.h_shape, large._shapes, large._per_row) == (small.h_shape, small._shapes, small._per_row)
    assert not any(weight.is_meta for weight in large.network.parameters())
    assert passes and all(weight.is_meta for module in passes for weight in module.parameters())


def test_a_small_network_has_channels_last_and_its_features_row_by_row(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features and images are to 1e-4 those of the network as it was saved."""

    def weight(model: DiffusionModel) -> Tensor:
        network: Any = model.denoiser.network
        return network.conv_in.weight

    model = load(folder, "classes")
    monkeypatch.setattr(denoiser_module, "LARGE", 1)
    plain = load(folder, "classes")
    assert weight(plain).is_contiguous() and torch.equal(weight(plain), weight(model))
    assert not weight(model).is_contiguous() and weight(model).is_contiguous(memory_format=torch.channels_last)
    assert model.identity == plain.identity
    encoded = model.denoiser.encode(model.latents([1, 2]).x_T, 500, model.cond)
    assert encoded.h.is_contiguous() and model.denoiser.decode(encoded.h, encoded).is_contiguous()
    ours, theirs = (sample(each, each.latents([1, 2]), record_h=True) for each in (model, plain))
    assert ours.h is not None and theirs.h is not None
    assert (ours.h - theirs.h).abs().max() <= 1e-4 and (ours.x_0 - theirs.x_0).abs().max() <= 1e-4


def test_guidance_is_two_passes_or_one_number(folder: Folder) -> None:
    true, distilled = load(folder, "sd3"), load(folder, "flux")
    assert true.cond is not None and true.cond.passes == 2
    assert distilled.cond is not None and distilled.cond.passes == 1 and distilled.cond.inputs["guidance"].item() == 4
    for model in (true, distilled):
        latents = model.latents([0])
        other = model.with_prompt("a man", 1.0)
        assert (sample(model, latents).x_0 - sample(other, latents).x_0).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sd3", "flux"])
@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
def test_edit_friendly_inversion_of_a_flow_is_exact(folder: Folder, name: str, eta: float) -> None:
    model = load(folder, name, dtype="float64")
    x_0 = model.codec.decode(torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64))
    inverted = edit_friendly_inversion(model, x_0.clamp(-1, 1), sampler=Sampler(eta=eta))
    back = sample(model, inverted.latents, sampler=Sampler(eta=eta)).x_0
    assert (back - inverted.x_0).abs().max() <= 1e-9
    assert inverted.latents.residual is not None


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_every_dtype_samples_what_float32_does(folder: Folder, name: str, dtype: str) -> None:
    reference = sample(load(folder, name), load(folder, name).latents([1])).x_0
    model = load(folder, name, dtype=dtype)
    images = sample(model, model.latents([1])).x_0
    far = {"bfloat16": 0.5, "float16": 0.1, "float64": 1e-3}[dtype]
    assert (images - reference).abs().mean() <= far * reference.abs().mean()


@pytest.mark.parametrize("name", ["dit", "pixart", "sd3", "flux", "sdxl"])
def test_the_jacobian_of_tokens(folder: Folder, name: str) -> None:
    model = load(folder, name, dtype="float64", num_steps=2)
    latents = model.latents([1])
    found = jacobian(model, latents, k=1, steps=[1], block_size=2, tolerance=1e-3)
    assert found.directions.shape == (1, 2, *model.h_shape)
    encodings: dict[int, Any] = {}
    sample(model, latents, observe=encodings.__setitem__)
    v, encoded, process, t = found.directions[:, 0].double(), encodings[1], model.process, model.process.timesteps[1]
    with torch.no_grad():
        ahead, behind = (model.denoiser.decode(encoded.h + e * v, encoded) for e in (1e-4, -1e-4))
    zero = torch.zeros_like(ahead)
    change = (process.to_eps(ahead, zero, t) - process.to_eps(behind, zero, t)).norm() / 2e-4
    assert found.singular_values is not None and abs(change / found.singular_values[0] - 1) <= 1e-3


def test_grey_images_are_shown_with_three_channels(folder: Folder) -> None:
    model = load(folder, "grey")
    images = sample(model, model.latents([1])).x_0
    assert images.shape[1:] == model.image_shape == (3, 16, 16) and torch.equal(images[:, 0], images[:, 2])
    assert model.codec.encode(images).shape == (1, 1, 16, 16)


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def with_old_names(folder: Path) -> Path:
    """A pipeline whose attention has the names of the first releases, as google/ddpm-celebahq-256 has them."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    renamed = {}
    for key, tensor in tensors.items():
        found = [(new, old) for new, old in OLD_NAMES.items() if f".{new}." in key]
        renamed[key.replace(*found[0]) if found else key] = tensor
    assert sum("proj_attn" in key for key in renamed) >= 4, "weights and biases of every attention"
    save_file(renamed, path)
    return folder


def test_old_layouts(folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = load(folder, "pixel")
    flat = shutil.copytree(folder("pixel"), tmp_path / "flat")
    for file in [*(flat / "unet").iterdir(), *(flat / "scheduler").iterdir()]:
        file.rename(flat / file.name)
    (flat / "unet").rmdir()
    (flat / "scheduler").rmdir()
    named = with_old_names(shutil.copytree(folder("pixel"), tmp_path / "named"))
    pickled, half, split = tmp_path / "pickled", tmp_path / "half", tmp_path / "split"
    pipeline: Any = diffusers.DDPMPipeline.from_pretrained(folder("pixel"))
    pipeline.save_pretrained(pickled, safe_serialization=False)
    pipeline.save_pretrained(split, max_shard_size="20KB")
    pipeline.to(torch.float16).save_pretrained(half, variant="fp16")
    latents = plain.latents([3])
    reference = sample(plain, latents).x_0
    for other in (flat, named, pickled, split):
        model = load_model(str(other), num_steps=STEPS, device="cpu")
        assert model.identity == plain.identity
        # Where tensors lie in memory decides the kernels, and so the last bits.
        assert (sample(model, latents).x_0 - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert len(list((split / "unet").glob("*.safetensors"))) > 1
    close = sample(load_model(str(half), num_steps=STEPS, device="cpu"), latents).x_0
    assert "exists in fp16 only, which is read" in caplog.messages[-1]
    assert 0 < (close - reference).abs().max() <= 0.1


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "10KB"}, {"safe_serialization": False}])
@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl", "pixart", "sd3", "flux"])
def test_text_encoders_that_exist_in_half_precision_only(
    folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, options: dict[str, Any]
) -> None:
    plain = load(folder, name)
    PIPELINES[name]().to(torch.float16).save_pretrained(tmp_path / name, variant="fp16", **options)
    half = load_model(str(tmp_path / name), num_steps=STEPS, device="cpu", prompt=PROMPTS[name], guidance=4.0)
    assert any(message.startswith("the text_encoder of ") for message in caplog.messages)
    latents = plain.latents([3])
    assert 0 < (sample(half, latents).x_0 - sample(plain, latents).x_0).abs().max() <= 0.05


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("text_encoder/model.safetensors", "the text encoder of .* cannot be read"),
        ("text_encoder/config.json", "the text encoder of .* cannot be read"),
        ("tokenizer", r"the tokenizer of .* cannot be read: .* has none of tokenizer\.json, vocab\.json"),
        ("vae/config.json", "vae/config.json cannot be read"),
    ],
)
def test_a_missing_file_is_one_line_that_names_the_part(
    folder: Folder, tmp_path: Path, name: str, file: str, message: str
) -> None:
    broken = shutil.copytree(folder(name), tmp_path / "broken")
    shutil.rmtree(broken / file) if (broken / file).is_dir() else (broken / file).unlink()
    with pytest.raises(InputError, match=message) as caught:
        load_model(str(broken), device="cpu", prompt="a man")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="it would be used")
@pytest.mark.parametrize(("name", "part"), [("pixart", "tokenizer"), ("flux", "tokenizer_2")])
def test_a_tokenizer_of_sentencepiece_alone_says_what_it_needs(
    folder: Folder, tmp_path: Path, name: str, part: str
) -> None:
    copy = shutil.copytree(folder(name), tmp_path / "copy")
    (copy / part / "tokenizer.json").rename(copy / part / "spiece.model")
    with pytest.raises(InputError, match=f"the {part.replace('_', ' ')} of .* pip install sentencepiece"):
        load_model(str(copy), device="cpu", prompt="a man")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dit", {"prompt": "kind 1001"}, "a number from 0 to 999 or a name, got 'kind 1001'"),
        ("classes", {"prompt": ""}, "needs a class for its prompt, a number from 0 to 4"),
        ("pixel", {"prompt": "a man"}, "takes no prompt"),
        ("sd3", {"spacing": "leading"}, "this is flow matching: leave it out"),
        ("sd3", {"tap": "after"}, "no mid block; it has block:0 to block:3"),
        ("flux", {"guidance": -1.0}, "guidance must be a number >= 0"),
        ("pixel", {"family": "sdxxl"}, "unknown family 'sdxxl'"),
    ],
)
def test_mistakes(folder: Folder, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, name, **options)


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("pixel", "block:0"), ("pixel", "module:nowhere"), ("dit", "before"), ("dit", "block:9"),
        ("sd3", "block:0.cross"), ("flux", "after+block:1"),
    ],
)  # fmt: skip
def test_a_tap_that_a_family_refuses_is_one_line_before_any_work(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, tap: str
) -> None:
    prompt = [f"model.prompt='{PROMPTS[name]}'"] if name in PROMPTS else []
    words = [f"model.path={folder(name)}", f"model.tap={tap}", *prompt, "device=cpu", "tracking.mode=disabled"]
    capsys.readouterr()  # diffusers says that it saves
    assert main([*words, f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hspace: error: ") and err.count("\n") == 1
    assert any(reason in err for reason in (" has no ", " is not there", "tap must be "))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("sd3", "module:transformer_blocks.1[0]"),
        ("sdxl", "module:mid_block.attentions.0.transformer_blocks.0.attn2.to_k"),
        ("flux", "module:context_embedder+block:1"),
    ],
)
def test_h_whose_size_depends_on_the_prompt_is_refused(folder: Folder, name: str, tap: str) -> None:
    with pytest.raises(
        InputError, match=r"the size of h at this tap depends on the prompt: it is \(\d+, \d+\), not \(1, "
    ) as caught:
        load(folder, name, tap=tap)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tap"),
    [("sdxl", "module:add_time_proj"), ("flux", "module:pos_embed[0]"), ("flux", "mod+module:pos_embed[0]")],
)
def test_h_that_is_not_one_per_sample_is_refused(folder: Folder, name: str, tap: str) -> None:
    with pytest.raises(InputError, match="h at this tap is not one per sample"):
        load(folder, name, tap=tap)


def pipeline_image(folder: Path, name: str, latents: Tensor, left_out: tuple[str, ...] = (), **options: Any) -> Tensor:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **dict.fromkeys(left_out))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPTS[name], num_inference_steps=STEPS, guidance_scale=4.0, latents=latents, output_type="pt",
        **GUIDED[name] | options,
    ).images  # fmt: skip


def image_of(model: DiffusionModel, latents: Latents) -> Tensor:
    return (sample(model, latents, sampler=Sampler(eta=0.0)).x_0 / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("missing", [("text_encoder_3",), ("text_encoder_3", "tokenizer_3")])
@pytest.mark.parametrize("named", [True, False])
def test_stable_diffusion_3_without_t5(folder: Folder, tmp_path: Path, missing: tuple[str, ...], named: bool) -> None:
    pipeline = PIPELINES["sd3"]()
    pipeline.register_modules(**dict.fromkeys(missing))
    pipeline.save_pretrained(tmp_path / "sd3")
    index = tmp_path / "sd3" / "model_index.json"
    told = json.loads(index.read_text())
    assert all(told[part] == [None, None] for part in missing)
    model = load_model(str(tmp_path / "sd3"), num_steps=STEPS, device="cpu", prompt="a man", guidance=4.0)
    latents = model.latents([5])
    theirs, ours = pipeline_image(tmp_path / "sd3", "sd3", latents.x_T, missing), image_of(model, latents)
    assert (ours - theirs).abs().max() <= 2e-5
    assert (ours - image_of(load(folder, "sd3"), latents)).abs().max() > 1e-4
    if not named:
        index.write_text(json.dumps({part: value for part, value in told.items() if part not in missing}))
        other = load_model(str(tmp_path / "sd3"), num_steps=STEPS, device="cpu", prompt="a man", guidance=4.0)
        assert torch.equal(image_of(other, latents), ours) and other.identity == model.identity


def test_stable_diffusion_3_needs_its_other_parts(folder: Folder, tmp_path: Path) -> None:
    broken = shutil.copytree(folder("sd3"), tmp_path / "broken")
    index = json.loads((broken / "model_index.json").read_text())
    for part in ("text_encoder_2", "tokenizer_3"):
        (broken / "model_index.json").write_text(json.dumps(index | {part: [None, None]}))
        with pytest.raises(InputError, match="not of a known family"):
            load_model(str(broken), device="cpu")


def test_a_class_goes_by_each_of_its_names(folder: Folder, tmp_path: Path) -> None:
    named = shutil.copytree(folder("dit"), tmp_path / "named")
    index = json.loads((named / "model_index.json").read_text())
    names = {"2": "lynx, catamount", "3": "crane", "7": "crane", "8": "7"}
    (named / "model_index.json").write_text(json.dumps(index | {"id2label": index["id2label"] | names}))
    model, theirs = load_model(str(named), num_steps=STEPS, device="cpu"), diffusers.DiTPipeline.from_pretrained(named)
    for prompt in ("lynx", "catamount", "crane", "kind 5"):
        cond = model.with_prompt(prompt, 1.0).cond
        assert cond is not None and cond.inputs["class_labels"].tolist() == theirs.get_label_ids([prompt])
    for prompt, number in (("lynx, catamount", 2), ("7", 7), ("3", 3)):
        cond = model.with_prompt(prompt, 1.0).cond
        assert cond is not None and cond.inputs["class_labels"].tolist() == [number]


def test_statistics_of_an_autoencoder_are_applied_as_by_the_pipeline(folder: Folder, tmp_path: Path) -> None:
    pipeline = PIPELINES["sdxl"]()
    statistics = {"latents_mean": [-1.6, 1.1, 0.3, 0.5], "latents_std": [8.4, 5.8, 4.6, 5.9]}
    pipeline.register_modules(vae=autoencoder(**statistics, scaling_factor=0.5))
    pipeline.save_pretrained(tmp_path / "xl")
    model = load_model(str(tmp_path / "xl"), num_steps=STEPS, device="cpu", prompt="a man", guidance=4.0)
    latents = model.latents([5])
    assert (image_of(model, latents) - pipeline_image(tmp_path / "xl", "sdxl", latents.x_T)).abs().max() <= 2e-5
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(each).view(1, 4, 1, 1) for each in statistics.values())
    theirs = (pipeline.vae.encode(images).latent_dist.mean - mean) * 0.5 / std
    assert (model.codec.encode(images) - theirs).abs().max() <= 1e-6
    assert set(model.codec.parts) - set(load(folder, "sdxl").codec.parts) == {"statistics"}
    config = tmp_path / "xl" / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latents_std": [1.0]}))
    with pytest.raises(InputError, match=r"latents_mean and latents_std of .* must be 4 numbers each"):
        load_model(str(tmp_path / "xl"), device="cpu")


def test_an_image_that_is_not_square_is_told_both_sides(tmp_path: Path) -> None:
    pipeline = PIPELINES["sdxl"]()
    config = dict(pipeline.unet.config) | {"sample_size": (8, 16)}
    pipeline.register_modules(unet=networks.wake(diffusers.UNet2DConditionModel(**config)))
    pipeline.save_pretrained(tmp_path / "xl")
    model = load_model(str(tmp_path / "xl"), num_steps=STEPS, device="cpu", prompt="a man", guidance=4.0)
    assert model.cond is not None and model.cond.inputs["time_ids"].tolist() == [[16, 32, 0, 0, 16, 32]] * 2
    latents = model.latents([5])
    theirs = pipeline_image(tmp_path / "xl", "sdxl", latents.x_T, height=16, width=32)
    assert (image_of(model, latents) - theirs).abs().max() <= 2e-5


@pytest.mark.parametrize(("size", "told"), [(None, "null"), ([16, 16], r"\[16, 16\]")])
def test_flux_whose_autoencoder_names_no_side(folder: Folder, tmp_path: Path, size: Any, told: str) -> None:
    broken = shutil.copytree(folder("flux"), tmp_path / "flux")
    config = broken / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": size}))
    with pytest.raises(InputError, match=rf"sample_size in vae/config.json of .* must be the images' side, got {told}"):
        load_model(str(broken), device="cpu")


def test_models_that_are_of_no_family(folder: Folder, tmp_path: Path) -> None:
    for channels in (2, 4):
        other, path = PIPELINES["pixel"](), tmp_path / str(channels)
        other.unet = diffusers.UNet2DModel(
            **(dict(other.unet.config) | {"in_channels": channels, "out_channels": channels})
        )
        other.save_pretrained(path)
        with pytest.raises(InputError, match=f"a model of pixels must have 1 or 3 channels, got {channels}"):
            load_model(str(path), device="cpu")
    odd = shutil.copytree(folder("dit"), tmp_path / "odd")
    index = (odd / "model_index.json").read_text().replace("DiTTransformer2DModel", "SanaTransformer2DModel")
    (odd / "model_index.json").write_text(index)
    with pytest.raises(InputError, match=r"not of a known family \(pixel, latent, .*transformer SanaTransf"):
        load_model(str(odd), device="cpu")


def test_families_are_listed_with_their_meaning() -> None:
    assert {"pixel", "sdxl", "flux"} <= set(families.names())
    assert all(isinstance(families.get(name), PipelineFamily) for name in families.names())
