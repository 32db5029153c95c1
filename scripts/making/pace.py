"""Precision and threads of a training, chosen by timing a step with each.

Which is fastest depends on the processor and on what else runs: bfloat16 is twice as fast where the processor
multiplies it, and twenty times slower where it does not; two threads beside another busy process are slower than one.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from hspace.types import InputError

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16")
REPETITIONS = 2
MOST_THREADS = torch.get_num_threads()
"""Before a training sets another number."""


@dataclass(frozen=True)
class Pace:
    """How a training computes.

    Attributes:
        precision: `float32`, or `bfloat16` by autocast.
        threads: Of a CPU.
    """

    precision: str
    threads: int

    @contextmanager
    def autocast(self, device: str) -> Iterator[None]:
        """The forward pass in this precision."""
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            yield


def choices(precision: Any, threads: Any) -> list[Pace]:
    """What the settings leave to choose from.

    Args:
        precision: `auto`, `float32` or `bfloat16`.
        threads: `auto` (one, or as many as torch would take) or a number.

    Raises:
        InputError: If a setting is none of these.
    """
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision must be auto, float32 or bfloat16, got {precision}")
    if threads != "auto" and not (isinstance(threads, int) and not isinstance(threads, bool) and threads > 0):
        raise InputError(f"threads must be auto or a number above 0, got {threads}")
    numbers = sorted({1, MOST_THREADS}) if threads == "auto" else [threads]
    return [Pace(*each) for each in product(PRECISIONS if precision == "auto" else [precision], numbers)]


def fastest(step: Callable[[Pace], None], candidates: list[Pace]) -> Pace:
    """The fastest of some candidates, whose threads are set.

    Args:
        step: Does what a training step does, and leaves the training as it is.
        candidates: From `choices`; a single one is not timed.
    """
    seconds = {pace: _seconds(step, pace) for pace in candidates} if len(candidates) > 1 else {candidates[0]: 0.0}
    best = min(seconds, key=lambda pace: seconds[pace])
    torch.set_num_threads(best.threads)
    timed = ", ".join(f"{pace.precision} with {pace.threads}: {took:.2f} s" for pace, took in seconds.items() if took)
    log.info("computing in %s with %d threads%s", best.precision, best.threads, f" (a step: {timed})" if timed else "")
    return best


def _seconds(step: Callable[[Pace], None], pace: Pace) -> float:
    """Shortest of a few steps after one that warms up."""
    torch.set_num_threads(pace.threads)
    took = []
    for _ in range(1 + REPETITIONS):
        started = time.perf_counter()
        step(pace)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return min(took[1:])
