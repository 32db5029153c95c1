"""Processes of one run that share its samples: each computes with one thread, and takes the next piece when it is free.

Threads of one operation wait for the slowest of them, so that a core that something else keeps busy slows all of them
down. Processes that take small pieces do not wait for each other. They are forked when there are pieces to make: they
have the model, and all else that a piece needs, without a copy, an import or a file; only results are sent. The process
that forks them makes no piece, and is the only one that writes.
"""

import ctypes
import multiprocessing
import pickle
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar

import torch

from hspace.system import distributed
from hspace.system.stopping import uninterrupted
from hspace.types import InputError

Made = TypeVar("Made")

DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""

_count: ContextVar[int] = ContextVar("workers", default=1)


@contextmanager
def sharing(workers: int) -> Iterator[None]:
    """Lets so many processes share the samples of this block."""
    token = _count.set(workers)
    try:
        yield
    finally:
        _count.reset(token)


def count() -> int:
    """Number of processes that share samples; 1 in each of them, and outside `sharing`."""
    return _count.get()


def processes_for(workers: int | Literal["auto"], device: torch.device) -> int:
    """How many processes a run takes.

    `auto` is as many as torch would take threads, so that OMP_NUM_THREADS bounds both; one on a GPU, whose passes need
    no second process, under torchrun, which has its own, and on systems without a safe fork.

    Raises:
        InputError: If several are asked for where there can only be one.
    """
    reasons = {
        f"device {device.type} has its own parallelism": device.type != "cpu",
        "torchrun has started several processes": distributed.world() > 1,
        "processes can be forked on Linux only": not sys.platform.startswith("linux"),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if workers == "auto":
        return 1 if reason else torch.get_num_threads()
    if workers > 1 and reason:
        raise InputError(f"workers must be 1 or auto here, since {reason}, got {workers}")
    return workers


def shared(pieces: Sequence[range], make: Callable[[range], Made], *, alone: bool) -> Iterator[tuple[range, Made]]:
    """Each piece with what `make` gives for it, in the order in which they are done.

    Args:
        pieces: Ranges of rows.
        make: Function whose results can be pickled; what it changes beside them is lost with its process.
        alone: Whether the pieces are all of a result that is a single piece, which is made here, since it may share
            what is inside it. What is left of a longer result is made as its other pieces were.

    Raises:
        InputError: If a process was killed.
    """
    if count() < 2 or alone:
        yield from ((piece, make(piece)) for piece in pieces)
        return
    with _crew(min(count(), len(pieces)), make) as idle:
        left, busy = deque(pieces), dict[Connection, range]()
        while left or busy:
            while idle and left:
                link = idle.pop()
                busy[link] = left.popleft()
                with suppress(OSError):  # of a process that was killed, whose end is seen below
                    link.send(busy[link])
            for link in wait(list(busy)):
                assert isinstance(link, Connection)
                made = _received(link)
                piece = busy.pop(link)
                idle.append(link)
                yield piece, made


@contextmanager
def _crew(workers: int, make: Callable[[range], Any]) -> Iterator[list[Connection]]:
    """Links to new processes, which end with the block, however it ends."""
    fork = multiprocessing.get_context("fork")
    links: list[Connection] = []
    crew: list[BaseProcess] = []
    try:
        for _ in range(workers):
            with uninterrupted():
                ours, theirs = fork.Pipe()
                links.append(ours)
                crew.append(fork.Process(target=_serve, args=(theirs, tuple(links), make), daemon=True))
                with warnings.catch_warnings():
                    # Other threads of this process (of W&B) hold no lock that the pieces take.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    crew[-1].start()
                theirs.close()
        yield list(links)
    finally:
        for process in crew:
            if process.pid is not None:
                process.kill()
                process.join()
        for link in links:
            link.close()


def _serve(link: Connection, others: Sequence[Connection], make: Callable[[range], Any]) -> None:
    """Makes pieces until the link is closed; the parent alone answers to signals."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A lock that the parent holds is free only once all of its children are gone.
    libc = ctypes.CDLL(None)
    libc.prctl(DIE_WITH_PARENT, signal.SIGKILL)
    for other in others:
        other.close()
    torch.set_num_threads(1)
    _count.set(1)
    with suppress(EOFError, OSError):
        while True:
            link.send_bytes(_answer(make, link.recv()))


def _answer(make: Callable[[range], Any], piece: range) -> bytes:
    """What was made, or the error, pickled."""
    try:
        return pickle.dumps((make(piece), None))
    except Exception as error:
        error.add_note(f"In a worker process: {traceback.format_exc()}")
        try:
            whole = pickle.dumps((None, error))
            pickle.loads(whole)  # an error of two arguments is pickled, and cannot be read
            return whole
        except Exception:
            told = RuntimeError(f"{type(error).__name__}: {error}")
            told.add_note("\n".join(error.__notes__))
            return pickle.dumps((None, told))


def _received(link: Connection) -> Any:
    """What a process made.

    Raises:
        InputError: If it was killed.
        Exception: What was raised in it.
    """
    try:
        data = link.recv_bytes()
    except (EOFError, OSError):
        raise InputError(
            "a worker process was killed, for lack of memory perhaps: set workers=1, or a smaller batch_size; the same "
            "command continues"
        ) from None
    made, error = pickle.loads(data)
    if error is not None:
        raise error
    return made
