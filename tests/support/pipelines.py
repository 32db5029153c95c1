"""The smallest pipelines of each family, saved by diffusers and therefore read like any other."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import networks
import torch

diffusers: Any = import_module("diffusers")
"""Any, since its stubs export nothing."""

AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4, "latent_channels": 4, "sample_size": 16,
}  # fmt: skip
LETTERS = "adefgilmnors"


def autoencoder(**options: Any) -> Any:
    torch.manual_seed(1)
    return diffusers.AutoencoderKL(**(AUTOENCODER | options))


def clip(hidden: int, projection: int | None = None) -> tuple[Any, Any]:
    """A text encoder of CLIP's kind, with a projection if one is asked for, and a tokenizer of a few letters."""
    import transformers

    torch.manual_seed(2)
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    config = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=hidden, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=8, projection_dim=projection or hidden, bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    vocabulary = {word: i for i, word in enumerate(words)}
    return kind(config).eval(), transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)


def t5(width: int) -> tuple[Any, Any]:
    """A text encoder of T5's kind and a tokenizer of a few letters."""
    import transformers

    torch.manual_seed(3)
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -1.0),
        *((letter, -2.0) for letter in LETTERS),
    ]
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=16)
    config = transformers.T5Config(
        vocab_size=len(vocabulary), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config).eval(), tokenizer


def pixel() -> Any:
    return diffusers.DDPMPipeline(networks.unet(), diffusers.DDPMScheduler())


def grey() -> Any:
    return diffusers.DDPMPipeline(networks.grey()[0], diffusers.DDPMScheduler())


def classes() -> Any:
    """ADM's kind: by class, with a learnt variance."""
    return diffusers.DDPMPipeline(networks.classes()[0], diffusers.DDPMScheduler(variance_type="learned_range"))


def latent() -> Any:
    torch.manual_seed(1)
    options = {name: value for name, value in AUTOENCODER.items() if name not in ("latent_channels", "sample_size")}
    scheduler = diffusers.DDIMScheduler(beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    return diffusers.LDMPipeline(
        diffusers.VQModel(**options, num_vq_embeddings=32), networks.unet(sample_size=8), scheduler
    )


def stable_diffusion() -> Any:
    text_encoder, tokenizer = clip(16)
    return diffusers.StableDiffusionPipeline(
        unet=networks.text_unet(), vae=autoencoder(), text_encoder=text_encoder, tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> Any:
    (first, first_words), (second, second_words) = clip(16), clip(16, projection=16)
    return diffusers.StableDiffusionXLPipeline(
        unet=networks.sdxl()[0], vae=autoencoder(), text_encoder=first, text_encoder_2=second, tokenizer=first_words,
        tokenizer_2=second_words, scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        add_watermarker=False,
    )  # fmt: skip


def dit() -> Any:
    # As many classes as the published ones have: diffusers' pipeline takes number 1000 for no class.
    config = dict(networks.dit()[0].config) | {"num_embeds_ada_norm": 1000}
    network = networks.wake(diffusers.DiTTransformer2DModel(**config))
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.DiTPipeline(network, autoencoder(), scheduler)


def pixart() -> Any:
    network, _, _ = networks.pixart()
    text_encoder, tokenizer = t5(8)
    return diffusers.PixArtSigmaPipeline(
        tokenizer, text_encoder, autoencoder(), network, diffusers.DDIMScheduler(clip_sample=False)
    )


def sd3() -> Any:
    network, _, _ = networks.sd3()
    (first, first_words), (second, second_words) = clip(8, projection=8), clip(8, projection=8)
    third, third_words = t5(16)
    return diffusers.StableDiffusion3Pipeline(
        network, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), autoencoder(shift_factor=0.06), first,
        first_words, second, second_words, third, third_words,
    )  # fmt: skip


def flux() -> Any:
    torch.manual_seed(0)
    network = networks.wake(
        diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
            guidance_embeds=True, num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        )
    )  # fmt: skip
    (first, first_words), (second, second_words) = clip(32), t5(32)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.FluxPipeline(
        scheduler, autoencoder(shift_factor=0.1), first, first_words, second, second_words, network
    )


PIPELINES: dict[str, Callable[[], Any]] = {
    make.__name__: make for make in (pixel, grey, classes, latent, stable_diffusion, sdxl, dit, pixart, sd3, flux)
}
PROMPTS = {"classes": "3", "stable_diffusion": "a man", "sdxl": "a man", "dit": "kind 3"}
PROMPTS |= {"pixart": "a man", "sd3": "a man", "flux": "a man"}


def save(name: str, folder: Path) -> Path:
    """The folder of a pipeline, written if it is not there."""
    return folder if folder.is_dir() else save_as(name, PIPELINES[name](), folder)


def save_as(name: str, pipeline: Any, folder: Path) -> Path:
    """The folder of a pipeline of a kind, as the published ones have it."""
    pipeline.save_pretrained(folder)
    if name == "dit":
        # diffusers reads the names of classes, but does not write them.
        path = folder / "model_index.json"
        index = json.loads(path.read_text()) | {"id2label": {str(i): f"kind {i}" for i in range(1000)}}
        path.write_text(json.dumps(index))
    return folder
