"""Times of the stages of a run, told as stages begin and end, and kept for the record."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hspace.system.shards import watched

log: logging.Logger = logging.getLogger(__name__)


class Stopwatch:
    """Seconds of each stage, in the order in which the stages first ran.

    Args:
        progress: Function that is called with a stage's name, the rows done and their number.
    """

    def __init__(self, progress: Callable[[str, int, int], None] = lambda stage, done, n: None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._running = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block and says that it began; what it does in other stages counts as its own."""
        if self._running:
            yield
            return
        log.info("%s …", name)
        started, self._running = time.perf_counter(), True
        try:
            with watched(lambda done, n: self._progress(name, done, n)):
                yield
        finally:
            self._running = False
        self._progress(name, 1, 1)
        took = time.perf_counter() - started
        self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 3)
        log.info("%s: %s", name, duration(took))


def duration(seconds: float) -> str:
    """A time in words: 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
