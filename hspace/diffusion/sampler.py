# pyright: strict, reportUnknownMemberType=false
"""The settings by which samples are drawn and edited, in one record, and the numbers of their seeds.

It does not import torch: a configuration holds these settings, and reports a mistake in them at once.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from hspace.types import InputError

INJECTIONS = ("symmetric", "asyrp")

SEEDS_PER_ROLE = 1_000_000
"""Number of seeds of each use; samples that made a direction never judge it."""
FIRST_SEED = {"discovery": 0, "calibration": SEEDS_PER_ROLE, "evaluation": 2 * SEEDS_PER_ROLE}
"""First sample seed of each role."""
BLOCK = 10_000
"""Evaluation seeds come in blocks of this many; a publication under changed weights or methods takes a fresh one."""
BLOCKS = SEEDS_PER_ROLE // BLOCK
"""Number of blocks."""


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn and edited.

    Attributes:
        eta: Stochasticity, in [0, 1]: 0 is DDIM, 1 is DDPM; one value, or one per step.
        injection: `symmetric` puts the edited eps into P_t and D_t; `asyrp` into P_t only.
        start: First step at which h is edited; 0 is the noisiest.
        stop: First step at which h is not edited any more; None edits to the end.
        batch_size: Rows of one pass of the network, >= 1; a row is a sample under one edit. Noise and x_t do not depend
            on it.

    Raises:
        InputError: If a value is out of its range.

    Source: Haas et al. 2024 (arXiv 2303.11073), eqs. 2-5; Kwon et al. 2023 (arXiv 2210.10960), eq. 5, for Asyrp.

    Examples:
        >>> Sampler(eta=0.5, stop=6).window(10)
        range(0, 6)
    """

    eta: float | Sequence[float] = 1.0
    injection: str = "symmetric"
    start: int = 0
    stop: int | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Checks every value by itself; `window` checks the steps against the process."""
        if isinstance(self.eta, Sequence):
            object.__setattr__(self, "eta", tuple(self.eta))
        for value in self.eta if isinstance(self.eta, Sequence) else (self.eta,):
            check_eta(value)
        if self.injection not in INJECTIONS:
            raise InputError(f"injection must be one of {', '.join(INJECTIONS)}, got {self.injection}")
        if not 0 <= self.start < (self.start + 1 if self.stop is None else self.stop):
            raise InputError(f"the edited steps must satisfy 0 <= start < stop, got {self.start} to {self.stop}")
        if operator.index(self.batch_size) < 1:
            raise InputError(f"batch_size must be >= 1, got {self.batch_size}")

    def window(self, num_steps: int) -> range:
        """The edited steps of a process of `num_steps` steps.

        Raises:
            InputError: If the window is empty, or reaches beyond these steps.
        """
        return edited_steps(self.start, self.stop, num_steps)


def edited_steps(start: int, stop: int | None, num_steps: int) -> range:
    """The steps from `start` to before `stop`, or to the end where `stop` is None.

    Raises:
        InputError: If the window is empty, or reaches beyond `num_steps`.

    Examples:
        >>> edited_steps(2, None, 10)
        range(2, 10)
    """
    end = num_steps if stop is None else stop
    if not 0 <= start < end <= num_steps:
        raise InputError(f"the edited steps must satisfy 0 <= start < stop <= {num_steps}, got {start} to {end}")
    return range(start, end)


def check_eta(eta: float) -> None:
    """Raises InputError where eta is outside [0, 1]."""
    if not 0 <= eta <= 1:
        raise InputError(f"eta must be in [0, 1], got {eta}")
