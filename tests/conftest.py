"""Tiny real models, shared by the tests: random weights, saved and loaded the way large ones are."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LDMPipeline  # pyright: ignore[reportPrivateImportUsage]
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from hydra import compose, initialize_config_dir

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.runs.config import Config
from hspace.runs.parsing import parse
from hspace.scorers.clip import PROMPTS
from hspace.system.files import package_path

collect_ignore = [
    "commands/test_resume.py", "commands/test_robustness.py", "commands/test_run.py", "diffusion/test_sampling.py",
    "runs/test_report.py", "runs/test_tracking_lost.py", "system/test_faults.py", "system/test_files.py",
    "system/test_workers.py",
] if sys.platform == "win32" else []  # fmt: skip
"""They fork processes or bound their memory, which Windows cannot."""


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hashes of checkpoints are remembered apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSPACE_CACHE", str(tmp_path_factory.mktemp("user_cache")))
        yield


def _make_unet(**options: Any) -> UNet2DModel:
    """A U-Net of 16 x 16 images with attention in its deepest level and random weights."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    return UNet2DModel(**(config | options)).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., UNet2DModel]:
    return _make_unet


@pytest.fixture(scope="session")
def tiny_unet() -> UNet2DModel:
    return _make_unet()


@pytest.fixture(scope="session")
def tiny_pipeline_dir(tiny_unet: UNet2DModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    DDPMPipeline(unet=tiny_unet, scheduler=DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_pipeline_dir: Path) -> DiffusionModel:
    return load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu")


# Two levels, so that 16 x 16 images have latents of 8 x 8.
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="session")
def tiny_ldm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latent diffusion as in CompVis/ldm-celebahq-256: latents of 3 x 8 x 8, vector-quantised."""
    folder = tmp_path_factory.mktemp("tiny") / "ldm"
    unet = _make_unet(sample_size=8)
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    LDMPipeline(VQModel(**AUTOENCODER, num_vq_embeddings=32), unet, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion with the scheduler of version 1: latents of 4 x 8 x 8, prompts of a few letters."""
    transformers = pytest.importorskip("transformers")
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    torch.manual_seed(0)
    letters = "adefgilmnors"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    vocabulary = {word: i for i, word in enumerate(words)}
    parts: dict[str, Any] = {
        "unet": unet,
        "vae": AutoencoderKL(**AUTOENCODER, latent_channels=4),
        "text_encoder": transformers.CLIPTextModel(text),
        "tokenizer": transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8),
        "scheduler": PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        "safety_checker": None,
        "feature_extractor": None,
    }
    folder = tmp_path_factory.mktemp("tiny") / "sd"
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


@pytest.fixture
def default_config() -> Config:
    """What `hspace` runs without a word."""
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return parse(compose("config"))


VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}


def save_processor(folder: Path, **options: Any) -> None:
    """A `preprocessor_config.json`, as transformers' own class writes it."""
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    except ModuleNotFoundError:  # of releases in which there is one processor, which needs no torchvision
        from transformers import CLIPImageProcessor as CLIPImageProcessorPil

    given = {"size": {"height": 32, "width": 32}, "do_center_crop": False, **options}
    CLIPImageProcessorPil(**given).save_pretrained(folder)


@pytest.fixture(scope="session")
def make_classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A ViT with the given labels and problem type, in a folder."""
    transformers = pytest.importorskip("transformers")

    def make(labels: list[str], problem: str | None = None, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        config = transformers.ViTConfig(**VIT, num_labels=len(labels), problem_type=problem, **names)
        folder = tmp_path_factory.mktemp("hub") / "classifier"
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        save_processor(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP that spells the words of the prompts."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    letters = sorted({letter for pair in PROMPTS.values() for text in pair for letter in text.lower()} - {" "})
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    layers = {name: VIT[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    text = {**layers, **ends, "num_attention_heads": 2, "vocab_size": len(words), "max_position_embeddings": 40}
    config = transformers.CLIPConfig(text_config=text, vision_config=VIT, projection_dim=8)
    folder = tmp_path_factory.mktemp("hub") / "clip"
    transformers.CLIPModel(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=40).save_pretrained(folder)
    save_processor(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINOv2."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=28, patch_size=14
    )
    folder = tmp_path_factory.mktemp("hub") / "dino"
    transformers.Dinov2Model(config).save_pretrained(folder)
    save_processor(folder, size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, do_center_crop=True)
    return folder


@pytest.fixture(scope="session")
def tiny_parser_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SegFormer with five labels of CelebAMask-HQ."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    labels = ["background", "skin", "u_lip", "l_lip", "l_eye"]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    sizes: dict[str, Any] = {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "sr_ratios": [2, 1],
        "hidden_sizes": [8, 16],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "num_attention_heads": [1, 2],
        "mlp_ratios": [2, 2],
        "decoder_hidden_size": 16,
    }
    network = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**sizes, **names))
    # As it starts out it draws nearly one class everywhere.
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=3.0)
    folder = tmp_path_factory.mktemp("hub") / "parser"
    network.save_pretrained(folder)
    save_processor(folder, size={"height": 64, "width": 64})
    return folder
