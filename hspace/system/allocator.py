"""How this process gets memory from the system."""

import ctypes
import sys

KEPT = {-1: 2**30, -3: 2**25}
"""Bytes of glibc's M_TRIM_THRESHOLD, and of M_MMAP_THRESHOLD, whose largest it is."""


def keep_freed_memory() -> None:
    """Lets this process, and those that it forks, keep about 1 GiB of the memory that they free, where glibc is.

    A pass frees its arrays and the next one asks for them again: the system would take them back and zero them each
    time, which costs a CPU a tenth of a pass in batches of 16, and three tenths in smaller ones (docs/performance.md).
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        for option, size in KEPT.items():
            libc.mallopt(option, size)
