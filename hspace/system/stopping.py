"""SIGINT and SIGTERM: a run ends in order, after the piece of work that must not be cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """A signal asked the process to end; `code` is 128 + its number, 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.code: int = 128 + number
        self.name = signal.Signals(number).name


class _State:
    """Of this process: how many blocks are not to be interrupted, and the signal that waits for their end."""

    depth = 0
    waiting: int | None = None


@contextmanager
def stopping() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Stopped` in this block; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        yield
    finally:
        _State.waiting = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets this block end before a signal stops the process; a second signal does not wait."""
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    if _State.depth == 0 and _State.waiting is not None:
        number, _State.waiting = _State.waiting, None
        raise Stopped(number)


def _handle(number: int, frame: FrameType | None) -> None:
    if _State.depth and _State.waiting is None:
        _State.waiting = number
        return
    raise Stopped(number)
