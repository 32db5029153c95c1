"""Files on disk: writes that happen wholly or not at all, checksums, and the packaged folders.

An `OSError` (disk full, file too large, read-only folder) passes through, and its `filename` names the file that should
have been written.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path


def is_utf8(name: str) -> bool:
    """Whether a name can be written as UTF-8: that of a file may hold any bytes, which records and pages cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def write_atomic(path: str | Path) -> Iterator[Path]:
    """Gives a temporary file beside `path` to write into, and moves it over `path` if the block ends without an error.

    The temporary keeps the suffix of `path`, since libraries choose a format by it. Missing parent folders are made.

    Args:
        path: File to write. An old file stays as it is until the new one is complete.

    Yields:
        The temporary file's path; it exists and is empty.

    Raises:
        OSError: Whatever the system reports; `filename` is `path`. The temporary is removed on any error.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(path)
        yield temporary
        # This comes last, since libraries that write may put a file of their own in its place.
        temporary.chmod(_plain_mode())
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _temporary_beside(path: Path) -> Path:
    """An empty file in the folder of `path`."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    return Path(name)


def _plain_mode() -> int:
    """The permissions that a plain `open` would give a new file."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with write_atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented by two, keys in the order given.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not have.

    Examples:
        >>> write_json("facts.json", {"steps": 10})
        >>> read_json("facts.json")
        {'steps': 10}
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text that anyone may have written.

    Raises:
        ValueError: If it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: If it does not hold JSON in UTF-8, or is nested too deeply.
        OSError: If it cannot be read.
    """
    return parse_json(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache() -> Path:
    """The user's folder, for all projects, of files that can be made again: HSPACE_CACHE or the system's cache."""
    return Path(os.environ.get("HSPACE_CACHE") or user_cache_path("hspace", appauthor=False))


def package_path(name: Literal["weights", "conf"]) -> Path:
    """The folder of embedded weights, or that of the configuration.

    The configuration lies inside the package when installed from a wheel, and beside it in a checkout.
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if name == "weights" or inside.is_dir() else package.parent / name
