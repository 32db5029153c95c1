"""U-Nets of ADM as they were converted for a fork of diffusers, made into what diffusers itself computes.

The fork has a time embedding named "adm" and attention of the original's "legacy" order. Both are things that diffusers
has under other names or in another order, so that no code of the fork is needed.

Source: Dhariwal & Nichol 2021 (arXiv 2105.05233), `QKVAttentionLegacy` and `timestep_embedding` of their code
(openai/guided-diffusion); huggingface/diffusers, pull request 6730, which has the names of the two settings.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


def own_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of diffusers in the place of those of the fork; empty where there are none.

    ADM's embedding of time t holds cos(t f_i), then sin(t f_i), with f_i = 10000^(-i / half), i = 0 ... half - 1.

    Examples:
        >>> own_words({"time_embedding_type": "adm"})
        {'time_embedding_type': 'positional', 'flip_sin_to_cos': True, 'freq_shift': 0}
    """
    if config.get("time_embedding_type") != "adm":
        return {}
    return {"time_embedding_type": "positional", "flip_sin_to_cos": True, "freq_shift": 0}


def has_legacy_order(config: Mapping[str, Any]) -> bool:
    """Whether the queries, keys and values of a checkpoint are in ADM's order."""
    return bool(config.get("attention_legacy_order"))


@torch.no_grad()
def reorder_attention(network: nn.Module) -> None:
    """Bring the queries, keys and values of all attention from ADM's order into that of diffusers, in place.

    ADM has one layer for all three, whose outputs are the queries, keys and values of the first head, then those of the
    second. The fork cuts its rows into three equal parts, whatever they are.
    """
    for module in network.modules():
        if isinstance(module, Attention):
            layers: list[Any] = [module.to_q, module.to_k, module.to_v]
            for name in ("weight", "bias"):
                values = [getattr(layer, name) for layer in layers]
                for value, sorted_value in zip(values, _sorted(values, module.heads), strict=True):
                    value.copy_(sorted_value)


def _sorted(parts: list[Tensor], heads: int) -> list[Tensor]:
    """Queries, keys and values of all heads, of rows that are (head, kind, row of the head)."""
    return [kind.flatten(0, 1) for kind in torch.cat(parts).unflatten(0, (heads, 3, -1)).unbind(1)]
