"""Errors that are the user's or the system's fault, each told in one line."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from hspace.runs.config import known_keys
from hspace.runs.moved import moved
from hspace.system.files import package_path
from hspace.system.registry import unknown
from hspace.types import InputError, one_line

CLOSED = 141
"""Exit code of a program whose reader is gone: 128 and the number of SIGPIPE, which Windows does not know."""
EXPECTED = (InputError, OSError, HydraException, OmegaConfBaseException)


def guarded(action: Callable[[], int], usage: str | None = None) -> int:
    """The exit code of an action; 2, after one line on stderr, where the user or the system is at fault.

    It is 141, without a message, if nobody reads the output any more. With HSPACE_DEBUG=1 the error passes through, as
    defects of this package always do.

    Args:
        action: What is done.
        usage: Is printed in its place where the command line has --help; None where the action reads it itself.
    """
    try:
        if usage is not None and {"-h", "--help"} & set(sys.argv[1:]):
            print(usage.strip())
            return 0
        code = action()
        # Now rather than at exit, where a closed pipe could no more be told from other faults.
        sys.stdout.flush()
        return code
    except EXPECTED as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return CLOSED
        if os.environ.get("HSPACE_DEBUG") == "1":
            raise
        print(f"hspace: error: {explain(error)}", file=sys.stderr)
        return 2


@contextmanager
def hydra_in_one_line() -> Iterator[None]:
    """Of odd words Hydra raises, beside its own errors, whatever its code meets: ValueError, TypeError, RecursionError.

    Raises:
        InputError: In place of these.
    """
    try:
        yield
    except EXPECTED:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    except Exception as error:
        raise InputError(f"the settings cannot be put together: {one_line(error)}") from error


def _reader_is_gone() -> bool:
    """Whether who reads our output, such as `head`, has enough; what is still buffered is then dropped."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def explain(error: Exception) -> str:
    """The fault on one line, in our own words where Hydra's would take several lines."""
    return " ".join(_explain(error).split())


def _explain(error: Exception) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        return _unknown_choice(error.missing_cfg_file, error.options)
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: write key=value, and quote special characters, as in key='\"a=b\"'"
    if isinstance(error.__cause__, ConfigAttributeError | ConfigKeyError):
        return _unknown_key(str(error.__cause__.full_key))
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _unknown_choice(file: str, options: Iterable[str]) -> str:
    group, _, name = file.rpartition("/")
    if message := moved(f"{group}={name}"):
        return message
    hint = "; pip install hydra-joblib-launcher hydra-submitit-launcher brings two" if group == "hydra/launcher" else ""
    return unknown(group, name, options) + hint


def _unknown_key(key: str) -> str:
    if message := moved(key):
        return message
    known = [*known_keys(), *_method_keys()]
    if key in known:
        return f"{key} is not a setting of the chosen {Path(key.replace('.', '/')).parent}"
    return unknown("key", key, [*known, "experiment", "debug"])


def _method_keys() -> Iterator[str]:
    """Settings of all methods, read off their files, since methods import torch."""
    for file in sorted((package_path("conf") / "method").glob("*.yaml")):
        yield from (f"method.{key}" for key in OmegaConf.select(OmegaConf.load(file), "method"))
