"""Sampling of transformers beside diffusers' own pipelines: rows of the benchmark.

The networks have random weights and the width of the smallest published DiT; text encoders and autoencoder are those of
the tests, which take next to no time.
"""

import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from measuring import Row, compare

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from pipelines import PIPELINES, PROMPTS, autoencoder, save_as

diffusers: Any = import_module("diffusers")
"""Any, since its stubs export nothing."""

SIDE = 16
"""Of the latents, which are 64 tokens."""
WIDTH: dict[str, Any] = {"num_attention_heads": 6, "attention_head_dim": 64}
LAYERS = 12
GUIDANCE = 4.0


def sampling_dit(name: str, model: DiffusionModel, batch: int = 4, steps: int = 5) -> Row:
    """Like `sampling`, of a DiT with guidance, against DiTPipeline."""
    del model
    network = diffusers.DiTTransformer2DModel(
        **WIDTH, in_channels=4, out_channels=8, num_layers=LAYERS, sample_size=SIDE, patch_size=2,
        num_embeds_ada_norm=1000, norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip

    def theirs(pipeline: Any) -> Callable[[], Any]:
        return lambda: pipeline([3] * batch, guidance_scale=GUIDANCE, num_inference_steps=steps, output_type="np")

    return _row(name, "dit", network, theirs, batch, steps)


def sampling_sd3(name: str, model: DiffusionModel, batch: int = 4, steps: int = 5) -> Row:
    """Like `sampling`, of a network like Stable Diffusion 3 with guidance, against StableDiffusion3Pipeline."""
    del model
    network = diffusers.SD3Transformer2DModel(
        **WIDTH, sample_size=SIDE, patch_size=2, in_channels=4, num_layers=LAYERS // 2, joint_attention_dim=16,
        out_channels=4, caption_projection_dim=WIDTH["num_attention_heads"] * WIDTH["attention_head_dim"],
        pooled_projection_dim=16, pos_embed_max_size=SIDE,
    )  # fmt: skip

    def theirs(pipeline: Any) -> Callable[[], Any]:
        # Ours encodes the prompt when the model is loaded.
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        with torch.no_grad():
            encoded = pipeline.encode_prompt(PROMPTS["sd3"], None, None, num_images_per_prompt=batch)
        words = dict(zip(names, encoded, strict=True)) | {"height": 2 * SIDE, "width": 2 * SIDE}
        words |= {"guidance_scale": GUIDANCE, "num_inference_steps": steps}
        return lambda: pipeline(**words, output_type="np")

    return _row(name, "sd3", network, theirs, batch, steps)


def _row(name: str, kind: str, network: Any, theirs: Callable[[Any], Any], batch: int, steps: int) -> Row:
    """One row, of the tests' pipeline of a kind with another network."""
    pipeline = PIPELINES[kind]()
    shift = {"shift_factor": 0.06} if kind == "sd3" else {}  # DiT's pipeline does not know of one
    pipeline.register_modules(transformer=network.eval(), vae=autoencoder(sample_size=2 * SIDE, **shift))
    with tempfile.TemporaryDirectory() as folder:
        path = save_as(kind, pipeline, Path(folder) / kind)
        model = load_model(str(path), num_steps=steps, prompt=PROMPTS[kind], guidance=GUIDANCE)
    pipeline.to(model.device)
    pipeline.set_progress_bar_config(disable=True)

    def ours() -> None:
        sample(model, model.latents(range(batch)), sampler=Sampler(eta=0.0), record_h=True)

    note = f"{steps} steps, batch {batch}, guidance, {SIDE**2 // 4} tokens of {model.h_shape[-1]}, h recorded"
    return compare(name, ours, theirs(pipeline), 1.05, f"{note}; diffusers' {type(pipeline).__name__}")
