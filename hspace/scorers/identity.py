"""Identity of a network that reads images: a hash of its tensors, configuration, labels, preprocessing and source."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hspace.system.hashes import json_sha256, normalised, tensors_sha256, weights_sha256
from hspace.system.registry import source_sha256
from hspace.types import Embedder, RegionNetwork, Scorer
from hspace.worlds.world import WORLDS


def scorer_identity(network: Scorer | Embedder | RegionNetwork) -> dict[str, str]:
    """`id` and `sha256` of all that the output of a scorer, an identity encoder or a region network depends on.

    These are its tensors, the configurations of its parts, its plain attributes (labels, preprocessing, and whatever
    else its class keeps), and the file of its class where that is not of this package. A stranger's class may keep
    tensors, arrays and networks in any attribute, and a scorer of a stranger's world reads that world's own code.
    """
    return {"id": network.id, "sha256": _sha256(network)}


@lru_cache(maxsize=8)  # More than a run has, and few enough that a sweep does not keep those of all its jobs.
def _sha256(network: Any) -> str:
    """The hash, computed once for each network, since networks that score are loaded once and never trained."""
    plain = {name: value for name, value in vars(network).items() if name[0] != "_" and _is_plain(value)}
    facts: dict[str, Any] = {"kind": type(network).__qualname__, "source": source_sha256(network)}
    if facts["source"] is not None and (kept := _kept(network)):
        facts["kept"] = tensors_sha256(kept)
    world = getattr(network, "world", None)
    if isinstance(world, str) and world in WORLDS and (code := source_sha256(WORLDS.get(world).visibility)):
        facts["world"] = code
    if isinstance(network, nn.Module):
        del plain["training"]
        facts |= {"tensors": weights_sha256(network), "configs": _configs(network)}
    return json_sha256(facts | {"attributes": normalised(plain)})


def _configs(network: nn.Module) -> dict[str, Any]:
    """Configurations of the parts that transformers loaded."""
    named: dict[str, Any] = {name: getattr(part, "config", None) for name, part in network.named_children()}
    return {name: normalised(config.to_dict()) for name, config in named.items() if hasattr(config, "to_dict")}


def _kept(network: Any) -> dict[str, Tensor]:
    """Tensors that a network keeps in attributes and does not save, by name."""
    if not isinstance(network, nn.Module):
        return dict(_tensors(vars(network), ""))
    saved = network.state_dict().keys()
    own = {name: value for name, value in vars(network).items() if name not in ("_parameters", "_buffers", "_modules")}
    unsaved = {name: buffer for name, buffer in network.named_buffers() if name not in saved}
    return unsaved | dict(_tensors(own, ""))


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors, and arrays of numbers, in a value of any nesting, with their names."""
    if isinstance(value, nn.Module):
        value = dict(value.named_parameters()) | dict(value.named_buffers())
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        yield name, torch.from_numpy(np.array(value, dtype=np.float32))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _tensors(part, f"{name}[{i}]")


def _is_plain(value: Any) -> bool:
    """Whether the value is plain data, at any depth."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    is_record = is_dataclass(value) and not isinstance(value, type)
    return is_record or value is None or isinstance(value, str | bool | int | float | Path)
