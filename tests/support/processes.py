"""Runs of the command line in processes of their own that start at once: their parent has imported everything."""

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from hspace.cli import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["hspace.cli", "hspace.commands.run"])


def _main(words: list[str], log: Path) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
        sys.exit(main(words))


def start(words: list[str], log: Path) -> ForkServerProcess:
    """`hspace WORDS` in a process of its own, whose output goes to `log`."""
    process = FORKS.Process(target=_main, args=(words, log))
    process.start()
    return process


def run(words: list[str], log: Path) -> int | None:
    """The exit code of `hspace WORDS`."""
    process = start(words, log)
    process.join()
    return process.exitcode
