"""Identity of a network that reads images: a hash of its tensors, configuration, labels, preprocessing and source."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from hspace.system.hashes import json_sha256, normalised, weights_sha256
from hspace.system.registry import source_sha256
from hspace.types import Embedder, RegionNetwork, Scorer


def scorer_identity(network: Scorer | Embedder | RegionNetwork) -> dict[str, str]:
    """`id` and `sha256` of all that the output of a scorer, an identity encoder or a region network depends on.

    These are its tensors, the configurations of its parts, its plain attributes (labels, preprocessing, and whatever
    else its class keeps), and the file of its class where that is not of this package.
    """
    return {"id": network.id, "sha256": _sha256(network)}


@lru_cache(maxsize=8)  # More than a run has, and few enough that a sweep does not keep those of all its jobs.
def _sha256(network: Any) -> str:
    """The hash, computed once for each network, since networks that score are loaded once and never trained."""
    plain = {name: value for name, value in vars(network).items() if name[0] != "_" and _is_plain(value)}
    facts: dict[str, Any] = {"kind": type(network).__qualname__, "source": source_sha256(network)}
    if isinstance(network, nn.Module):
        del plain["training"]
        facts |= {"tensors": weights_sha256(network), "configs": _configs(network)}
    return json_sha256(facts | {"attributes": normalised(plain)})


def _configs(network: nn.Module) -> dict[str, Any]:
    """Configurations of the parts that transformers loaded."""
    named: dict[str, Any] = {name: getattr(part, "config", None) for name, part in network.named_children()}
    return {name: normalised(config.to_dict()) for name, config in named.items() if hasattr(config, "to_dict")}


def _is_plain(value: Any) -> bool:
    """Whether the value is plain data, at any depth."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    is_record = is_dataclass(value) and not isinstance(value, type)
    return is_record or value is None or isinstance(value, str | bool | int | float | Path)
