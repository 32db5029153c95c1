"""A diffusion transformer of one class: its first weights, its condition, and the pipeline that it is saved as."""

from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from hspace.types import InputError

SPREAD = 0.02
"""Standard deviation of the first weights of the embeddings."""


def is_transformer(cfg: DictConfig) -> bool:
    """Whether a configuration describes a transformer, and not a U-Net."""
    return "transformer" in cfg


def new_transformer(cfg: DictConfig) -> DiTTransformer2DModel:
    """Random weights with blocks that do nothing yet; they depend on torch's generator alone.

    It is in evaluation mode in training too: diffusers would drop classes at random there, in each block for itself.

    Source: Peebles & Xie 2023 (arXiv 2212.09748), sec. 3.2, adaLN-Zero; diffusers leaves the first weights to torch.
    """
    sizes = cast(dict[str, Any], OmegaConf.to_container(cfg.transformer))
    network: Any = DiTTransformer2DModel(sample_size=cfg.size, num_embeds_ada_norm=1, **sizes)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    projection = network.pos_embed.proj
    nn.init.xavier_uniform_(projection.weight.view(len(projection.weight), -1))
    nn.init.zeros_(projection.bias)
    for block in network.transformer_blocks:
        _begin_embedding(block.norm1.emb)
        nn.init.zeros_(block.norm1.linear.weight)
    nn.init.zeros_(network.proj_out_1.weight)
    nn.init.zeros_(network.proj_out_2.weight)
    return network.eval()


def _begin_embedding(embedding: Any) -> None:
    """The embedding of time and class."""
    nn.init.normal_(embedding.class_embedder.embedding_table.weight, std=SPREAD)
    for layer in (embedding.timestep_embedder.linear_1, embedding.timestep_embedder.linear_2):
        nn.init.normal_(layer.weight, std=SPREAD)


def condition(network: nn.Module, t: Tensor) -> dict[str, Tensor]:
    """What a network takes beside x_t and t, (batch,): class 0 if it is a transformer, else nothing."""
    return {"class_labels": torch.zeros_like(t)} if isinstance(network, DiTTransformer2DModel) else {}


def check_cycles(planned: list[Any], sampled_with: Any) -> None:
    """Raises InputError if some cycles ask of a transformer what only a U-Net can.

    Args:
        planned: Cycles of a training.
        sampled_with: The schedule of the exported pipeline.
    """
    for cycle in planned:
        if cycle.skip_dropout or cycle.skip_exchange:
            raise InputError("cycles: a transformer has no skip connections; skip_dropout and skip_exchange must be 0")
        if cycle.beta_schedule != sampled_with:
            raise InputError(
                "cycles: a transformer is not retimed; beta_schedule must be sampled_with, "
                f"{sampled_with}, got {cycle.beta_schedule}"
            )


def save_pipeline(network: Any, vae: AutoencoderKL, scheduler: Any, folder: Path) -> None:
    """Writes a diffusers pipeline, which samples with `guidance_scale=1`.

    "Without a class" is row 1 of the embedding, and becomes the one class that was trained. The pipeline's own guidance
    asks for row 1000 instead, that of ImageNet, which is not there: it fails with a `guidance_scale` above 1.
    """
    with torch.no_grad():
        for block in network.transformer_blocks:
            classes = block.norm1.emb.class_embedder.embedding_table.weight
            classes[1:] = classes[:1]
    DiTPipeline(transformer=network, vae=vae, scheduler=scheduler).save_pretrained(folder)
