"""What is a user's or the system's fault, and how to say so in one line."""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from hspace.config import known_keys
from hspace.rules import unknown
from hspace.types import InputError

EXPECTED = (InputError, OSError, HydraException, OmegaConfBaseException)


def guarded(action: Callable[[], int]) -> int:
    """The action's exit code; 2, after one line on stderr, where the user or the system is at fault.

    With HSPACE_DEBUG=1 the error passes through, as a defect of ours always does.
    """
    try:
        return action()
    except BrokenPipeError:
        # Who reads our output, such as `head`, has enough; what is still buffered must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except EXPECTED as error:
        if os.environ.get("HSPACE_DEBUG") == "1":
            raise
        print(f"hspace: error: {explain(error)}", file=sys.stderr)
        return 2


def explain(error: Exception) -> str:
    """What is wrong, on one line, in our words where Hydra's would take several."""
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
    hint = "; pip install 'hspace[sweep]' brings joblib and submitit" if group == "hydra/launcher" else ""
    return unknown(group, name, options) + hint


def _unknown_key(key: str) -> str:
    if key in known_keys():
        return f"{key} is not a setting of the chosen {Path(key.replace('.', '/')).parent}"
    return unknown("key", key, [*known_keys(), "experiment", "debug"])
