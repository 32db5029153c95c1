"""`hspace push`: uploads directions to the Hugging Face hub, for others to use as `hub:OWNER/NAME`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from hspace.directions import hub
from hspace.types import InputError


def push(options: argparse.Namespace, compose: Callable[[list[str]], DictConfig]) -> int:
    """Uploads a directions file with its card, and prints the commit's address.

    Raises:
        InputError: If a word or a file is wrong, or the hub refuses.
    """
    if len(options.inputs) != 2 or options.settings:
        raise InputError("use it as hspace push OWNER/NAME FILE")
    repository, file = options.inputs
    strip = None if options.strip is None else Path(options.strip).expanduser()
    print(hub.push(repository, Path(file).expanduser(), strip=strip, private=options.private))
    return 0
