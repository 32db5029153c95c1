"""The identity of a model: hashes of the tensors and the configuration of every part that its pictures depend on."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from hspace.system.files import read_json, sha256_file
from hspace.system.hashes import json_sha256, normalised, remembered, weights_sha256
from hspace.system.registry import source_sha256

ROLES = {"unet": "network", "transformer": "network", "vae": "autoencoder", "vqvae": "autoencoder"}
"""Roles of parts that go by several names; others are their own role."""
WEIGHTS = "network.tensors"
"""The part of an identity that files of format 1 know a model by."""
SCHEDULER = "scheduler.config"
"""The part that a provenance leaves out, since the steps that are taken say more."""
READ = (".safetensors", ".bin", ".json")
"""Files that hold tensors, or say which do."""


@dataclass(frozen=True)
class Identity:
    """The identity of a model, part by part.

    Attributes:
        parts: SHA-256 sums by `role.tensors` and `role.config`; see `model_identity` and `with_code`.
    """

    parts: dict[str, str]

    @property
    def sha256(self) -> str:
        """One hash of all parts."""
        return json_sha256(self.parts)

    def with_code(self, entries: Iterable[Any]) -> "Identity":
        """The identity with a hash of the source files of all entries from outside this package, as `code.source`.

        It is unchanged where every entry is of this package, whose stages have versions.
        """
        files = {source_sha256(entry) for entry in entries} - {None}
        return Identity(self.parts | {"code.source": json_sha256(sorted(map(str, files)))}) if files else self


def model_identity(parts: Mapping[str, Any], folder: Path | None = None) -> Identity:
    """The identity of a model that was loaded in float32, before it is moved to another dtype.

    Args:
        parts: Parts by the names of diffusers: networks, a scheduler, tokenizers, and JSON values such as the scaling
            of latents or the labels of classes.
        folder: Folder that they were read from, so that a large checkpoint is not hashed twice.

    Returns:
        Hashes of the tensors (name, shape, float32 bytes) and the configuration of each network, and of the
        configuration of everything else: with all defaults, and without what differs from one version of a library to
        the next.
    """
    named = {ROLES.get(name, name): part for name, part in parts.items()}
    networks = {role: part for role, part in named.items() if isinstance(part, nn.Module)}

    def tensors() -> dict[str, str]:
        return {f"{role}.tensors": weights_sha256(part) for role, part in networks.items()}

    what = {"of": sorted(networks), **{name: metadata.version(name) for name in ("torch", "diffusers")}}
    hashes = remembered(_files(folder), what, tensors) if folder else tensors()
    configs = {f"{role}.config": json_sha256(_configuration(part)) for role, part in named.items()}
    return Identity(dict(sorted((hashes | configs).items())))


def _files(folder: Path) -> list[Path]:
    """Of a pipeline, whose parts are folders, or of a bare network."""
    return sorted(path for depth in ("*", "*/*") for path in folder.glob(depth) if path.suffix in READ)


def _configuration(part: Any) -> Any:
    """What a part is beside its tensors."""
    if hasattr(part, "get_vocab"):
        return _tokenizer_files(part)
    config = getattr(part, "config", part)
    values = config.to_dict() if hasattr(config, "to_dict") else config
    return {"kind": type(part).__name__, "values": normalised(values)}


def _tokenizer_files(tokenizer: Any) -> dict[str, Any]:
    """The files that a tokenizer saves, by content: the same for all versions of the files that it was read from."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: _content(path) for path in sorted(Path(folder).iterdir()) if path.is_file()}


def _content(path: Path) -> Any:
    return normalised(read_json(path)) if path.suffix == ".json" else sha256_file(path)
