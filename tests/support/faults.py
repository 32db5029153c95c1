"""A fault at one file operation of a process of its own: an error of the system, or its death."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "os.listdir", "os.utime", "os.chmod")
"""What Python tells of before it asks the system; `os.fsync` is counted beside them."""


class Fault:
    """Stops the n-th file operation below a folder, with an error or by killing the process."""

    def __init__(self, folder: Path, n: int, kind: str) -> None:
        self.folder, self.left, self.kind = str(folder), n, kind

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and str(arguments[0]).startswith(self.folder):
            self.count()

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            if self.kind == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, self.kind), os.strerror(getattr(errno, self.kind)))


def with_fault(work: Callable[[], object], folder: Path, n: int, kind: str) -> int:
    """Does some work in a fork of this process, with a fault at its n-th file operation below a folder.

    Args:
        work: What is done.
        folder: Whose file operations count.
        n: From 1.
        kind: `SIGKILL`, or the name of an error of the system.

    Returns:
        The exit code: 0 done, 3 an error of the system, -9 killed, 4 there is no n-th operation.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        fault, fsync = Fault(folder, n, kind), os.fsync
        os.fsync = lambda descriptor: (fault.count(), fsync(descriptor))[1]
        sys.addaudithook(fault)
        work()
        code = 4 if fault.left > 0 else 0
    except OSError as error:
        code = 3 if error.errno in (errno.ENOSPC, errno.EIO) else 5
    finally:
        os._exit(code)


def hold_read_only(folder: Path) -> None:
    """Lets this process write nothing below a folder any more, as on a disk that is mounted read-only."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in EVENTS and (event != "open" or arguments[2] & writing)
        if writes and event not in ("os.scandir", "os.listdir") and str(arguments[0]).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))

    sys.addaudithook(refuse)
