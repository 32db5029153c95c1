"""Hashes, by content, of what results depend on: tensors, configurations, records and files."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hspace.system.files import read_json, sha256_file, user_cache, write_json
from hspace.system.records import is_sha256

CHUNK = 2**24
"""Number of values that are converted to float32 together."""
UNSAID = ("transformers_version", "name_or_path", "dtype", "torch_dtype", "architectures")
"""Keys of a configuration that say who wrote it, how or where, as do all that begin with an underscore."""
MEMORY = "hashes"
"""Folder of remembered hashes in the user's cache."""
_STARTED = time.time_ns()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over tensors in sorted name order: name, shape, float32 bytes (little-endian); memory holds a chunk."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        for chunk in tensor.detach().reshape(-1).split(CHUNK):
            digest.update(chunk.float().cpu().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def weights_sha256(network: nn.Module) -> str:
    """`tensors_sha256` of all parameters and buffers that a network saves."""
    return tensors_sha256(network.state_dict())


def json_sha256(value: Any) -> str:
    """SHA-256 of JSON values, with the keys of objects sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def normalised(value: Any) -> Any:
    """A configuration as JSON values that are equal where it means the same, whatever version of a library wrote it.

    Args:
        value: JSON values, dataclasses, paths, dtypes and tuples, nested in any way.

    Returns:
        JSON values without the keys of `UNSAID`. Numbers that are not finite, paths and dtypes become text; any other
        object becomes the name of its class.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return normalised(asdict(value))
    if isinstance(value, Mapping):
        kept = {str(key): each for key, each in value.items() if not str(key).startswith("_") and key not in UNSAID}
        return {key: normalised(each) for key, each in sorted(kept.items())}
    if isinstance(value, list | tuple):
        return [normalised(each) for each in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else _name(value)


def _name(value: Any) -> str:
    return str(value) if isinstance(value, Path | torch.dtype) else type(value).__qualname__


def path_sha256(path: Path) -> str | None:
    """Hash of a file, or of all files of a folder with their names in it; None where there is neither."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return json_sha256({file.relative_to(path).as_posix(): sha256_file(file) for file in files})
    return sha256_file(path) if path.is_file() else None


def remembered(files: Iterable[Path], what: Mapping[str, Any], compute: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Hashes of what was loaded from files, computed once as long as no file changes.

    A file is recognised by its path, size, inode and the times of its last change in nanoseconds. Files that have
    changed since this process began are not trusted, since another version may have been loaded.

    Args:
        files: All files that the hashes depend on.
        what: Description of what is hashed and how, as JSON values.
        compute: Function that computes the hashes.
    """
    facts = {str(path.resolve()): _facts(path) for path in files}
    if not facts or any(each is None or each[-1] >= _STARTED for each in facts.values()):
        return compute()
    place = user_cache() / MEMORY / f"{json_sha256({'files': facts, 'what': what})}.json"
    known = _recalled(place)
    if known is not None:
        return known
    hashes = compute()
    with suppress(OSError):
        write_json(place, {"hashes": hashes, "files": facts})
    return hashes


def _recalled(place: Path) -> dict[str, str] | None:
    """The remembered hashes; None where there are none, or they are damaged."""
    try:
        hashes = dict(read_json(place)["hashes"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return hashes if hashes and all(map(is_sha256, hashes.values())) else None


def forget() -> tuple[int, list[str]]:
    """Forgets all remembered hashes, so that each checkpoint is read again at its next use.

    Returns:
        The number of hashes, and the files that have changed since they were hashed.
    """
    places = list((user_cache() / MEMORY).glob("*.json"))
    changed = {file for place in places for file in _changed(place)}
    for place in places:
        place.unlink(missing_ok=True)
    return len(places), sorted(changed)


def _changed(place: Path) -> list[str]:
    """The files of remembered hashes that have changed since, or are gone."""
    try:
        return [file for file, facts in read_json(place)["files"].items() if _facts(Path(file)) != facts]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def _facts(path: Path) -> list[int] | None:
    """Size, inode and the two times of a change, the last of which even renaming and setting times update."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, max(stat.st_mtime_ns, stat.st_ctime_ns)]
