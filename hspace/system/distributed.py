"""Several processes of one run, started by torchrun: their ranks, and the exchange of their results.

Outside torchrun there is one process, and every function here returns its own argument.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")

PATIENCE = timedelta(days=7)
"""Time for which one process waits for another: a stage of a large study takes hours."""


@contextmanager
def processes() -> Iterator[None]:
    """Joins the processes that torchrun started, if it did: gloo between CPUs, nccl between GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process; process 0 writes the results."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(n: int) -> range:
    """The rows, of n, that belong to this process; the shares of all processes are every row once, in order."""
    return range(rank() * n // world(), (rank() + 1) * n // world())


def total(values: Tensor) -> Tensor:
    """The sum of the processes' tensors, in place."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def gathered(value: Value) -> list[Value]:
    """The values of all processes, by rank."""
    if world() == 1:
        return [value]
    values: list[Value] = [value] * world()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Value) -> Value:
    """The value of process 0."""
    if world() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def together() -> None:
    """Waits until every process is here."""
    if world() > 1:
        dist.barrier()
