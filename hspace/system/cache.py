"""Results of stages on disk, each in a folder named by the hash of all that it depends on."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hspace.system.files import sha256_file, write_json
from hspace.system.stopping import uninterrupted

log = logging.getLogger(__name__)

ENTRY = "entry.json"
"""In every result: its key, and size and checksum of its files."""
SHARDS = "shards"
"""The folder, inside an unfinished result, of what outlives a killed or failed process."""


def key_sha256(key: dict[str, Any]) -> str:
    """SHA-256 of a key's JSON, sorted, so that equal keys have equal hashes."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, allow_nan=False).encode()).hexdigest()


def place(cache_dir: Path, stage: str, key: dict[str, Any]) -> Path:
    """The folder of a stage's result, there or not."""
    return cache_dir / stage / key_sha256(key)[:24]


def unfinished_place(folder: Path) -> Path:
    """Where a result is until it is complete."""
    return folder.with_suffix(".tmp")


def cached(cache_dir: Path, stage: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of a stage's result, built unless it is there and as it was written.

    Args:
        cache_dir: Folder of all results.
        stage: Name of the stage.
        key: All that the result depends on, as JSON types.
        build: Writes the result into the folder it is given, which is moved in place only once complete; two processes
            that want one result build it once. What it leaves in the subfolder `shards` is there again after a kill
            or an error, for it to continue from, and is removed in the end.

    Returns:
        The folder. A result that is damaged is set aside, with a warning, and built again.

    Raises:
        OSError: If the cache cannot be written.
    """
    folder = place(cache_dir, stage, key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if folder.is_dir():
            fault = damage(folder)
            if fault is None:
                log.info("%s: reused from %s", stage, folder)
                _mark_used(folder)
                return folder
            log.warning("%s: %s is damaged (%s); it is set aside as %s and made again", stage, folder, fault,
                        _set_aside(folder).name)  # fmt: skip
        _make(folder, key, build)
    return folder


def damage(folder: Path) -> str | None:
    """What is wrong with a result: a file is missing or has changed since it was written; None if nothing is."""
    try:
        entry = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
        if key_sha256(entry["key"])[:24] != folder.name:
            return f"{ENTRY} has another key"
        for name, facts in entry["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["bytes"] or sha256_file(path) != facts["sha256"]:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{ENTRY} cannot be read"
    return None


@dataclass(frozen=True)
class Entry:
    """One folder of the cache.

    Attributes:
        folder: Where it is; its parent's name is the stage.
        state: `whole` (written to its end; `damage` says whether it still is as it was), `unfinished` or `damaged`.
        size: In bytes.
        used: When it was made or last read, in seconds since 1970.
    """

    folder: Path
    state: str
    size: int
    used: float


def entries(cache_dir: Path) -> list[Entry]:
    """All that is in the cache, by stage, the latest used first."""
    folders = [path for path in cache_dir.glob("*/*") if path.is_dir()]
    found = [_entry(folder) for folder in folders]
    return sorted(found, key=lambda entry: (entry.folder.parent.name, -entry.used))


def prune(cache_dir: Path, days: float | None = None) -> list[Entry]:
    """Remove what no run can use: results set aside, and unfinished ones that no process works on.

    Args:
        cache_dir: Folder of all results.
        days: Also remove whole results that no run has used for so long.

    Returns:
        What was removed.
    """
    oldest = -1.0 if days is None else time.time() - 86400 * days
    candidates = [entry for entry in entries(cache_dir) if entry.state != "whole" or entry.used < oldest]
    return [entry for entry in candidates if _remove(entry)]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("%s: waits for another process that makes it", folder.parent.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(folder: Path, key: dict[str, Any], build: Callable[[Path], None]) -> None:
    unfinished = unfinished_place(folder)
    unfinished.mkdir(exist_ok=True)
    try:
        for path in unfinished.glob(".*"):  # half-written files of a process that was killed
            path.unlink()
        build(unfinished)
        with uninterrupted():
            shutil.rmtree(unfinished / SHARDS, ignore_errors=True)
            files = sorted(path for path in unfinished.rglob("*") if path.is_file() and path.name != ENTRY)
            facts = {
                path.relative_to(unfinished).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                for path in files
            }
            write_json(unfinished / ENTRY, {"key": key, "files": facts})
            unfinished.rename(folder)
    except BaseException:
        _keep_shards(unfinished)
        raise


def _keep_shards(unfinished: Path) -> None:
    """Remove all of an unfinished result but its shards; all if it has none."""
    if not unfinished.is_dir():
        return
    for path in unfinished.iterdir():
        if path.name != SHARDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not any(path.is_file() for path in unfinished.rglob("*")):
        shutil.rmtree(unfinished)


def _set_aside(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_suffix(f".damaged-{number}")).exists():
        number += 1
    return folder.rename(aside)


def _mark_used(folder: Path) -> None:
    """The time of the entry file is when the result was last used; a cache may be read-only."""
    with contextlib.suppress(OSError):
        os.utime(folder / ENTRY)


def _entry(folder: Path) -> Entry:
    state = {"": "whole", ".tmp": "unfinished"}.get(folder.suffix, "damaged")
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    marked = folder / ENTRY
    used = marked.stat().st_mtime if marked.exists() else folder.stat().st_mtime
    return Entry(folder, state, sum(file.st_size for file in files), used)


def _remove(entry: Entry) -> bool:
    """Whether it could be removed: not while a process makes or reads it."""
    try:
        with FileLock(entry.folder.with_suffix(".lock"), blocking=False):
            shutil.rmtree(entry.folder)
    except Timeout:
        return False
    return True
