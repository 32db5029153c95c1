"""Memory that is freed is there for the next pass."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

FAULTS = """
import resource
from itertools import pairwise

import torch

from hspace.diffusion.checkpoints import load_model

if {loaded}:
    load_model({folder!r}, device="cpu")
taken = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
for _ in range(6):
    filled = [torch.ones(2**21) for _ in range(4)]
    del filled
    taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(after - before for before, after in pairwise(taken)))
"""
"""Fewest pages that the system gives while 32 MB, or 8,192 pages, are filled once more; it may take some."""


def faults(folder: Path, *, loaded: bool) -> int:
    """In a process of its own, since what this one allocates by depends on all that ran before."""
    command = [sys.executable, "-c", FAULTS.format(loaded=loaded, folder=str(folder))]
    told = ("MALLOC_", "GLIBC_", "LD_PRELOAD", "THP_")  # by which an allocator may be set otherwise
    environment = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    return int(subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout)


@pytest.mark.skipif(HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="pages are of 2 MB")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the system's allocator is another one")
def test_a_process_with_a_model_keeps_memory_that_it_frees(tiny_pipeline_dir: Path) -> None:
    assert faults(tiny_pipeline_dir, loaded=True) < 1000 < faults(tiny_pipeline_dir, loaded=False)
