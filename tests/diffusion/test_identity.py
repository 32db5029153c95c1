"""Whatever pictures depend on changes a model's identity, and nothing else does."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import move_tensor, set_value, swap_words
from diffusers.models.unets.unet_2d import UNet2DModel
from pipelines import PIPELINES, PROMPTS, save
from safetensors.torch import load_file, save_file

from hspace.cli import main
from hspace.diffusion import identity as identity_module
from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.identity import Identity
from hspace.system import hashes

Folders = dict[str, Path]


@pytest.fixture(scope="session")
def folders(tiny_pipeline_dir: Path, tiny_ldm_dir: Path, tiny_sd_dir: Path) -> Folders:
    return {"pixel": tiny_pipeline_dir, "latent": tiny_ldm_dir, "text": tiny_sd_dir}


@pytest.fixture
def copied(folders: Folders, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model, under one name, that a test may change."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(folders[kind], tmp_path / "model", dirs_exist_ok=True))

    return copy


def identity_of(folder: Path, **options: Any) -> Identity:
    return load_model(str(folder), num_steps=2, device="cpu", **options).identity


NETWORK = {
    "attention_head_dim": 4, "norm_eps": 1e-4, "act_fn": "gelu", "freq_shift": 1, "flip_sin_to_cos": False,
    "norm_num_groups": 2, "center_input_sample": True, "mid_block_scale_factor": 2.0, "sample_size": 32,
    "downsample_padding": 0,
}  # fmt: skip
PARTS = [
    ("latent", "vqvae", "config.json", {"scaling_factor": 0.5}, "scaling.config"),
    ("latent", "vqvae", "config.json", {"norm_num_groups": 2}, "autoencoder.config"),
    ("text", "vae", "config.json", {"scaling_factor": 0.5}, "scaling.config"),
    ("text", "vae", "config.json", {"act_fn": "relu"}, "autoencoder.config"),
    ("text", "unet", "config.json", {"cross_attention_norm": "layer_norm", "norm_eps": 1e-4}, "network.config"),
    ("text", "text_encoder", "config.json", {"hidden_act": "gelu"}, "text_encoder.config"),
    ("text", "tokenizer", "tokenizer_config.json", {"model_max_length": 7}, "tokenizer.config"),
    ("pixel", "scheduler", "scheduler_config.json", {"beta_end": 0.01}, "scheduler.config"),
    ("pixel", "scheduler", "scheduler_config.json", {"prediction_type": "v_prediction"}, "scheduler.config"),
]


@pytest.mark.parametrize(("name", "value"), NETWORK.items())
def test_every_setting_of_the_network_counts(copied: Callable[[str], Path], name: str, value: Any) -> None:
    folder = copied("pixel")
    before = identity_of(folder)
    set_value(folder / "unet" / "config.json", **{name: value})
    after = identity_of(folder)
    assert differing(before, after) == {"network.config"}
    assert before.sha256 != after.sha256


@pytest.mark.parametrize(("kind", "part", "file", "changes", "role"), PARTS)
def test_every_other_part_counts(
    copied: Callable[[str], Path], kind: str, part: str, file: str, changes: dict[str, Any], role: str
) -> None:
    folder = copied(kind)
    before = identity_of(folder)
    set_value(folder / part / file, **changes)
    assert role in differing(before, identity_of(folder))


@pytest.mark.parametrize(
    ("kind", "weights", "role"),
    [
        ("pixel", "unet/diffusion_pytorch_model.safetensors", "network.tensors"),
        ("latent", "unet/diffusion_pytorch_model.safetensors", "network.tensors"),
        ("latent", "vqvae/diffusion_pytorch_model.safetensors", "autoencoder.tensors"),
        ("text", "vae/diffusion_pytorch_model.safetensors", "autoencoder.tensors"),
        ("text", "text_encoder/model.safetensors", "text_encoder.tensors"),
    ],
)
def test_every_tensor_counts_and_changing_it_back_counts_too(
    copied: Callable[[str], Path], kind: str, weights: str, role: str
) -> None:
    folder = copied(kind)
    path = folder / weights
    before, kept = identity_of(folder), path.read_bytes()
    move_tensor(path)
    assert differing(before, identity_of(folder)) == {role}
    path.write_bytes(kept)
    assert identity_of(folder) == before


def test_the_tokenizers_words_count(copied: Callable[[str], Path]) -> None:
    folder = copied("text")
    before = identity_of(folder)
    swap_words(folder / "tokenizer" / "tokenizer.json")
    assert differing(before, identity_of(folder)) == {"tokenizer.config"}


def differing(first: Identity, second: Identity) -> set[str]:
    assert first.parts.keys() == second.parts.keys()
    return {name for name in first.parts if first.parts[name] != second.parts[name]}


SETTINGS: dict[str, dict[str, Any]] = {
    "UNet2DModel": {"norm_eps": 1e-3}, "UNet2DConditionModel": {"norm_eps": 1e-3},
    "DiTTransformer2DModel": {"norm_eps": 1e-3}, "PixArtTransformer2DModel": {"norm_eps": 1e-3},
    "SD3Transformer2DModel": {"sample_size": 4}, "FluxTransformer2DModel": {"axes_dims_rope": [8, 4, 4]},
    "AutoencoderKL": {"scaling_factor": 0.5}, "VQModel": {"scaling_factor": 0.5},
    "DDPMScheduler": {"beta_end": 0.01}, "DDIMScheduler": {"beta_end": 0.01},
    "FlowMatchEulerDiscreteScheduler": {"shift": 5.0, "base_shift": 0.7},
    "CLIPTextModel": {"hidden_act": "gelu"}, "CLIPTextModelWithProjection": {"hidden_act": "gelu"},
    "T5EncoderModel": {"layer_norm_epsilon": 1e-2},
    "CLIPTokenizer": {"padding_side": "left"}, "T5Tokenizer": {"padding_side": "left"},
    "StableDiffusionXLPipeline": {"force_zeros_for_empty_prompt": False}, "DiTPipeline": {"id2label": {"0": "kind 3"}},
}  # fmt: skip
"""What is changed in the configuration of each class, such that all tensors still fit."""


def change(path: Path) -> None:
    """Changes what any file of a pipeline says."""
    if path.suffix == ".safetensors":
        return move_tensor(path)
    if path.name == "tokenizer.json":
        return swap_words(path)
    values = json.loads(path.read_text())
    kind = values.get("_class_name") or values.get("tokenizer_class") or values["architectures"][0]
    set_value(path, **SETTINGS[kind])


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] * (each != "classes")) for each in PIPELINES]
)
def test_every_file_of_every_family_counts_and_changing_it_back_counts_too(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path / name)

    def known() -> dict[str, Any]:
        model = load_model(str(folder), num_steps=2, device="cpu", prompt=PROMPTS.get(name, ""))
        return model.provenance(eta=1.0).to_dict()

    before = known()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name == "model_index.json" and name not in ("dit", "sdxl"):
            continue  # It says nothing but the classes of the parts, which their own files say.
        kept = path.read_bytes()
        change(path)
        assert known() != before, path
        path.write_bytes(kept)
    assert known() == before


def test_what_another_version_of_a_library_writes_does_not_count(copied: Callable[[str], Path]) -> None:
    folder = copied("text")
    before = identity_of(folder)
    for path in folder.rglob("*.json"):
        values = json.loads(path.read_text())
        if "_diffusers_version" in values:
            set_value(path, _diffusers_version="0.9.0", _name_or_path="elsewhere")
    # As an older version wrote it, which had no such setting yet: its default is filled in.
    path = folder / "unet" / "config.json"
    values = json.loads(path.read_text())
    for name in ("resnet_skip_time_act", "mid_block_only_cross_attention", "attention_type"):
        del values[name]
    path.write_text(json.dumps(values))
    set_value(folder / "text_encoder" / "config.json", transformers_version="4.0.0")
    set_value(folder / "tokenizer" / "tokenizer_config.json", name_or_path="elsewhere")
    assert identity_of(folder) == before


def test_the_code_of_a_strangers_family_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    levels: Any = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = UNet2DModel(sample_size=16, block_out_channels=(8, 16), norm_num_groups=4, **levels)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    code = tmp_path / "strange_family.py"

    def written(text: str) -> Identity:
        code.write_text(text)
        monkeypatch.delitem(sys.modules, "strange_family", raising=False)
        return identity_of(tmp_path, family="strange_family:family")

    example = (Path(__file__).parents[2] / "docs" / "examples" / "my_family.py").read_text()
    before = written(example)
    assert differing(before, written(f"{example}\n# another word\n")) == {"code.source"}
    assert written(example) == before


def test_where_and_how_it_runs_does_not_count(folders: Folders) -> None:
    before = identity_of(folders["text"])
    assert identity_of(folders["text"], dtype="float64") == before
    assert identity_of(folders["text"], dtype="bfloat16", prompt="a man") == before


def test_half_precision_counts_as_the_numbers_that_are_stored(copied: Callable[[str], Path]) -> None:
    path = (folder := copied("pixel")) / "unet" / "diffusion_pytorch_model.safetensors"
    halved = {name: tensor.half() for name, tensor in load_file(path).items()}
    save_file(halved, path, metadata={"format": "pt"})
    half = identity_of(folder)
    save_file({name: tensor.float() for name, tensor in halved.items()}, path, metadata={"format": "pt"})
    assert identity_of(folder) == half


def test_a_checkpoint_is_hashed_once_until_it_changes(
    copied: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, hashed = copied("latent"), []

    def counted(network: torch.nn.Module) -> str:
        hashed.append(type(network).__name__)
        return hashes.weights_sha256(network)

    monkeypatch.setenv("HSPACE_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(identity_module, "weights_sha256", counted)
    identity_of(folder)
    identity_of(folder)
    # Files that are younger than the process may have changed after they were loaded.
    assert hashed == ["UNet2DModel", "VQModel"] * 2 and not (tmp_path / "user").exists()

    def later() -> None:
        hashed.clear()
        monkeypatch.setattr(hashes, "_STARTED", 2**62)

    later()
    before = identity_of(folder)
    assert hashed == ["UNet2DModel", "VQModel"]
    hashed.clear()
    assert identity_of(folder) == before and not hashed
    for damage in ("", "[" * 100_000, '{"hashes": {}}', '{"hashes": {"network.tensors": 3}}'):
        for place in (tmp_path / "user").rglob("*.json"):
            place.write_text(damage)
        assert identity_of(folder) == before

    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    times, kept = path.stat(), path.read_bytes()
    move_tensor(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert differing(before, identity_of(folder)) == {"network.tensors"}
    path.write_bytes(kept)
    assert identity_of(folder) == before

    assert main(["cache", "verify", f"cache_dir={tmp_path}"]) == 0
    changed, forgotten, _ = capsys.readouterr().out.splitlines()
    assert changed == f"{path} has changed since it was hashed" and forgotten.startswith("3 remembered hashes")
    hashed.clear()
    assert identity_of(folder) == before and hashed


def test_tensors_are_hashed_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"b": torch.randn(7, 5).half(), "a": torch.randn(11, 3).T, "number": torch.tensor(3)}
    whole = hashes.tensors_sha256(tensors)
    monkeypatch.setattr(hashes, "CHUNK", 4)
    assert hashes.tensors_sha256(tensors) == whole
