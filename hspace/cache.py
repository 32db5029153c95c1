"""Results of stages on disk, each in a folder named by the hash of all that it depends on."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from hspace.files import write_json

log = logging.getLogger(__name__)


def key_sha256(key: dict[str, Any]) -> str:
    """SHA-256 of a key's JSON, sorted, so that equal keys have equal hashes."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, allow_nan=False).encode()).hexdigest()


def cached(cache_dir: Path, stage: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of a stage's result, built unless it is there.

    Args:
        cache_dir: Folder of all results.
        stage: Name of the stage.
        key: All that the result depends on, as JSON types.
        build: Writes the result into the empty folder it is given. It is moved in place only once complete, and two
            processes that want one result build it once.

    Returns:
        The folder, with the key in key.json.
    """
    folder = cache_dir / stage / key_sha256(key)[:24]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if folder.is_dir():
            log.info("%s: reused from %s", stage, folder)
            return folder
        unfinished = folder.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            build(unfinished)
            write_json(unfinished / "key.json", key)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
