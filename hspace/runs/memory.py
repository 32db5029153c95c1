"""The memory of the network's passes, as counted, and the batch size that a limit allows.

A batch of b rows counts b · `row_bytes` beside the model, and takes up to KERNELS times that, by measurement
(docs/performance.md).
"""

import math
import weakref
from dataclasses import replace
from typing import Any

import psutil
import torch
from torch import UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.runs.config import Config
from hspace.system.shards import SHARD
from hspace.system.workers import processes_for
from hspace.types import InputError

USED = 0.5
"""Part of the free memory that is used without a limit."""
KERNELS = 1.6
"""Factor of the bytes of tensors for kernels' buffers and the allocator; 1.36 to 1.58 on a CPU."""
IMAGES = 8
"""Number of images that a step holds: x_T, x_t, eps, x0_hat, the two terms of the mean, noise, the next x_t."""


class Peak(TorchDispatchMode):
    """Counts the bytes of all existing tensors that operations in its block have made.

    Attributes:
        peak: Largest count at any moment, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak: int = 0
        self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation and counts its results; a view takes no further memory."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


@torch.no_grad()
def row_bytes(model: DiffusionModel) -> int:
    """Number of bytes that every row of a batch takes while it is sampled with an edit and its h is recorded.

    They are the sum of: the peak activations of a pass, by which a pass of two rows exceeds a pass of one; in float32,
    z of every step and the images that a step works with; and at every step an offset of h, and h itself twice, while
    it is put together.

    Args:
        model: The model, on its device.

    Source: ours; bounds what `sampling.sample` allocates.
    """
    peaks = []
    for rows in (1, 2):
        x_t, t = torch.zeros(rows, *model.sample_shape, device=model.device), model.process.timesteps[0]
        with Peak() as counted:
            encoded = model.denoiser.encode(x_t, t, model.cond)
            model.denoiser.decode(encoded.h, encoded)
        del encoded
        peaks.append(counted.peak)
    h, image = math.prod(model.h_shape) * model.dtype.itemsize, 4 * math.prod(model.sample_shape)
    steps = len(model.process.timesteps)
    return peaks[1] - peaks[0] + (steps + IMAGES) * image + 3 * steps * h


def fitted(cfg: Config, model: DiffusionModel) -> Config:
    """The configuration with a batch size in place of 0: the largest power of two, up to a shard, that fits.

    Args:
        cfg: Parsed configuration, whose `memory_gib` is for the model and its passes together.
        model: Its model, on its device.

    Raises:
        InputError: If a given limit does not hold the model and one row.
    """
    if cfg.batch_size:
        return cfg
    limit = _free(model) * USED if cfg.memory_gib is None else cfg.memory_gib * 2**30 - _weights(model)
    processes = processes_for(cfg.workers, model.device)
    row = KERNELS * row_bytes(model) * processes
    rows = max(int(limit / row), 0)
    if rows == 0 and cfg.memory_gib is not None:
        need = (_weights(model) + row) / 2**30
        each = f" in each of {processes} processes (workers=1 takes less)" if processes > 1 else ""
        raise InputError(
            f"memory_gib must be at least {need:.2g} for one sample of this model{each}, got {cfg.memory_gib}"
        )
    return replace(cfg, batch_size=min(SHARD, 2 ** (max(rows, 1).bit_length() - 1)))


def _weights(model: DiffusionModel) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.denoiser.network.parameters())


def _free(model: DiffusionModel) -> int:
    """Bytes free on the GPU, or in the machine's memory."""
    if model.device.type == "cuda":
        return torch.cuda.mem_get_info(model.device)[0]
    return psutil.virtual_memory().available
