"""Results of stages on disk, each in a folder named by the hash of all that it depends on."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hspace.system.files import read_json, sha256_file, write_json
from hspace.system.stopping import uninterrupted
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

ENTRY = "entry.json"
"""File in every result with its key and, when it is complete, size and checksum of its files."""
SHARDS = "shards"
"""Folder inside an unfinished result whose contents outlive a killed or failed process."""
NAME = re.compile(r"[0-9a-f]{24}(\.tmp|\.damaged-\d+)?")
"""Names of the folders of results: whole, unfinished, or set aside."""
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""Errors that mean a missing file; other errors of the system say nothing about the file."""


def key_sha256(key: dict[str, Any]) -> str:
    """SHA-256 of a key's JSON, sorted, so that equal keys have equal hashes."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, allow_nan=False).encode()).hexdigest()


def place(cache_dir: Path, stage: str, key: dict[str, Any]) -> Path:
    """The folder of a stage's result, whether it exists or not.

    Examples:
        >>> place(Path("cache"), "pca", {"k": 4}).as_posix()
        'cache/pca/efeb24b83805ce3cea02c32a'
    """
    return cache_dir / stage / key_sha256(key)[:24]


def unfinished_place(folder: Path) -> Path:
    """The folder of a result until it is complete."""
    return folder.with_suffix(".tmp")


def cached(cache_dir: Path, stage: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of a stage's result, which is built unless it exists and is unchanged.

    Args:
        cache_dir: Folder of all results.
        stage: Name of the stage.
        key: All that the result depends on, as JSON types.
        build: Function that writes the result into the folder that it gets; the folder is moved into its place only
            when complete. Two processes that want one result build it once. After a kill or an error `build` finds its
            subfolder `shards` again and continues from it; a complete result does not keep it.

    Returns:
        The folder. A result that is damaged is set aside, with a warning, and built again.

    Raises:
        OSError: If the cache cannot be written.
    """
    folder = place(cache_dir, stage, key)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    except OSError:
        # A disk that cannot be written still holds what was written before.
        if damage(folder) is not None:
            raise
        return folder
    with lock:
        if folder.is_dir():
            fault = damage(folder)
            if fault is None:
                log.info("%s: reused from %s", stage, folder)
                _mark_used(folder)
                shutil.rmtree(folder / SHARDS, ignore_errors=True)  # of a process that was killed at its very end
                return folder
            log.warning("%s: %s is damaged (%s); it is set aside as %s and made again", stage, folder, fault,
                        _set_aside(folder, key).name)  # fmt: skip
        _make(folder, key, build)
    return folder


def damage(folder: Path) -> str | None:
    """The fault of a result, of which a file is missing or has changed since it was written; None if there is no fault.

    Raises:
        OSError: If the system cannot read an existing file.
    """
    try:
        entry = read_json(folder / ENTRY)
        if key_sha256(entry["key"])[:24] != folder.name:
            return f"{ENTRY} has another key"
        for name, facts in entry["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["bytes"] or sha256_file(path) != facts["sha256"]:
                return f"{name} has changed"
    except (*ABSENT, ValueError, KeyError, TypeError, AttributeError):
        return f"{ENTRY} cannot be read"
    return None


@dataclass(frozen=True)
class Entry:
    """One folder of the cache.

    Attributes:
        folder: Folder of the result; the name of its parent is the stage.
        state: State, `whole` (completely written; `damage` says whether it is unchanged), `unfinished` or `damaged`.
        size: Size in bytes.
        used: Time of its making or last use, in seconds since 1970.
    """

    folder: Path
    state: str
    size: int
    used: float


def entries(cache_dir: Path) -> list[Entry]:
    """All results in the cache, by stage, the latest used first; folders that are not results are left out."""
    found = [_entry(folder) for folder in cache_dir.glob("*/*") if _is_result(folder)]
    return sorted(found, key=lambda entry: (entry.folder.parent.name, -entry.used))


def prune(cache_dir: Path, days: float | None = None) -> list[Entry]:
    """Removes what no run can use: results set aside, and unfinished ones that no process works on.

    Only folders whose record says that they are results are removed, whatever else lies beside them.

    Args:
        cache_dir: Folder of all results.
        days: Age in days since the last use at which whole results are removed too.

    Returns:
        The removed entries.

    Raises:
        InputError: If the folder holds files, but no result.
    """
    found = entries(cache_dir)
    if not found and any(path.is_file() and path.suffix != ".lock" for path in cache_dir.rglob("*")):
        raise InputError(f"cache_dir must be a cache of hspace, but {cache_dir} holds no result; nothing was removed")
    oldest = -1.0 if days is None else time.time() - 86400 * days
    return [entry for entry in found if (entry.state != "whole" or entry.used < oldest) and _remove(entry)]


def _is_result(folder: Path) -> bool:
    """Whether a folder's record has the key that the folder is named by."""
    if not NAME.fullmatch(folder.name) or folder.is_symlink():
        return False
    try:
        key = read_json(folder / ENTRY)["key"]
        return key_sha256(key)[:24] == folder.name[:24]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _lock(folder: Path) -> contextlib.AbstractContextManager[Any]:
    """Acquires the lock of a result; waits, and says so, while another process makes it."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        log.info("%s: waits for another process that makes it", folder.parent.name)
        return lock.acquire()


def _make(folder: Path, key: dict[str, Any], build: Callable[[Path], None]) -> None:
    """Builds a result, whose shards survive an error or a kill at any moment.

    The move of the folder into its place ends the work. Shards are removed only after it.
    """
    unfinished = unfinished_place(folder)
    unfinished.mkdir(exist_ok=True)
    try:
        _clear(unfinished)
        write_json(unfinished / ENTRY, {"key": key})
        build(unfinished)
        with uninterrupted():
            write_json(unfinished / ENTRY, {"key": key, "files": _facts(unfinished)})
            unfinished.rename(folder)
            shutil.rmtree(folder / SHARDS, ignore_errors=True)
    except BaseException:
        with contextlib.suppress(OSError):
            _keep_shards(unfinished)
        raise


def _facts(unfinished: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of each file of a result, by its path inside it."""
    names = [path.relative_to(unfinished) for path in sorted(unfinished.rglob("*")) if path.is_file()]
    kept = [name for name in names if name.parts[0] not in (ENTRY, SHARDS)]
    return {
        name.as_posix(): {"bytes": (unfinished / name).stat().st_size, "sha256": sha256_file(unfinished / name)}
        for name in kept
    }


def _clear(unfinished: Path) -> None:
    """Removes all of an unfinished result except its record, its shards, and arrays that the shards' journals name."""
    arrays = {f"{path.stem}.npy" for path in (unfinished / SHARDS).glob("*.journal")}
    for path in unfinished.iterdir():
        if path.name not in {ENTRY, SHARDS, *arrays}:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _keep_shards(unfinished: Path) -> None:
    """Keeps only those parts of an unfinished result from which a later process continues, if there are any."""
    if not unfinished.is_dir():
        return
    _clear(unfinished)
    if not any(path.is_file() and path != unfinished / ENTRY for path in unfinished.rglob("*")):
        shutil.rmtree(unfinished)


def _set_aside(folder: Path, key: dict[str, Any]) -> Path:
    """Renames a damaged result, and leaves a record in it for `prune`."""
    number = 1
    while (aside := folder.with_suffix(f".damaged-{number}")).exists():
        number += 1
    folder.rename(aside)
    if not _is_result(aside):
        write_json(aside / ENTRY, {"key": key})
    return aside


def _mark_used(folder: Path) -> None:
    """Sets the time of the entry file to now, the time of last use; a cache may be read-only."""
    with contextlib.suppress(OSError):
        os.utime(folder / ENTRY)


def _entry(folder: Path) -> Entry:
    state = {"": "whole", ".tmp": "unfinished"}.get(folder.suffix, "damaged")
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    marked = folder / ENTRY
    used = marked.stat().st_mtime if marked.exists() else folder.stat().st_mtime
    return Entry(folder, state, sum(file.st_size for file in files), used)


def _remove(entry: Entry) -> bool:
    """Removes a folder unless a process makes or reads it; gives whether it was removed."""
    try:
        with FileLock(entry.folder.with_suffix(".lock"), blocking=False):
            shutil.rmtree(entry.folder)
    except Timeout:
        return False
    return True
