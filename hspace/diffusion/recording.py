# pyright: strict, reportUnknownMemberType=false
"""Recordings: h of many unedited samples, written to disk batch by batch and read from there."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents, as_seeds
from hspace.diffusion.provenance import Provenance
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.system.files import read_json, write_json
from hspace.system.progress import bar
from hspace.system.shards import (
    SHARD,
    Batches,
    in_batches,
    piece_size,
    row_batches,
    row_writer,
    say_done,
    shard_by_shard,
)
from hspace.types import HTrajectory, InputError, Seeds, one_line

IMAGES = "images.npy"
"""File of the samples' images, beside their h, float32 (1, samples, numbers of an image)."""


@dataclass(frozen=True)
class Recorded:
    """Recorded h on disk: `path` is a `.npy` of float32 (steps, samples, d), and these facts lie beside it as JSON.

    Attributes:
        path: The `.npy` file.
        seeds: Seed of each sample.
        h_shape: Shape of one h; d is the product of its sides.
        provenance: Model, tap, conditioning, process and eta.
    """

    path: Path
    seeds: tuple[int, ...]
    h_shape: tuple[int, ...]
    provenance: Provenance

    @property
    def timesteps(self) -> tuple[float, ...]:
        """Model time of each step, descending."""
        return self.provenance.process.timesteps

    def save(self) -> None:
        """Write the facts beside the array, as JSON."""
        facts = {"seeds": self.seeds, "h_shape": self.h_shape, "provenance": self.provenance.to_dict()}
        write_json(self.path.with_suffix(".json"), facts)

    @classmethod
    def load(cls, path: str | Path) -> "Recorded":
        """Find a recording again.

        Raises:
            InputError: If the array or the facts beside it are missing, broken, or do not fit together.
        """
        path = Path(path)
        try:
            recorded = cls(path, **_parse_facts(read_json(path.with_suffix(".json"))))
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(f"{path.with_suffix('.json')} does not describe a recording of h: {error}") from error
        recorded.open()
        return recorded

    def open(self) -> np.memmap:
        """The array, (steps, samples, d), read from disk as it is used.

        Raises:
            InputError: If the file is missing, not a plain float32 array, or of another shape.
        """
        try:
            array = np.lib.format.open_memmap(self.path, mode="r")
        # For a stranger's header numpy raises any error of Python's parser.
        except Exception as error:
            raise InputError(f"{self.path} is not a readable .npy file: {one_line(error)}") from error
        expected = (len(self.timesteps), len(self.seeds), int(np.prod(self.h_shape)))
        if array.shape != expected or array.dtype != np.float32:
            raise InputError(f"{self.path} must hold float32 {expected}, got {array.dtype} {array.shape}")
        return array

    def images(self, shape: tuple[int, ...]) -> Tensor | None:
        """Images of the samples, (samples, *shape), read from disk as they are used; None where none were kept.

        Args:
            shape: (channel, height, width) of an image.
        """
        path = self.path.with_name(IMAGES)
        if not path.is_file():
            return None
        # It is never written to, which torch cannot know of a map that is read only.
        rows = np.load(path, mmap_mode="c")
        return torch.from_numpy(rows).reshape(len(self.seeds), *shape)


def _parse_facts(facts: dict[str, Any]) -> dict[str, Any]:
    parsed = {key: tuple(int(value) for value in facts[key]) for key in ("seeds", "h_shape")}
    return parsed | {"provenance": Provenance.from_dict(facts["provenance"])}


def trajectories(model: DiffusionModel, latents: Latents, sampler: Sampler) -> HTrajectory:
    """The h of every sample's own trajectory, (batch, steps, *h_shape), on the CPU."""

    def make(rows: range) -> HTrajectory:
        h = sample(model, latents.select(rows), sampler=sampler, record_h=True).h
        assert h is not None
        return h.cpu()

    return in_batches(range(len(latents.seeds)), sampler.batch_size, make)


def collect(
    model: DiffusionModel,
    seeds: Seeds,
    path: str | Path,
    *,
    sampler: Sampler = Sampler(),
    shards: Path | None = None,
    images: bool = False,
) -> Recorded:
    """Sample without an edit and stream h to disk; memory holds one batch.

    Args:
        model: The model to sample.
        seeds: One seed per sample.
        path: The `.npy` to write, complete or not at all; 4 · steps · samples · d bytes.
        sampler: Settings whose eta and batch size are taken.
        shards: Folder for finished parts, from which a later process continues; it belongs to this recording alone.
        images: Whether the samples' images are kept too, in `images.npy` beside it.

    Raises:
        InputError: If the seeds are wrong, or eta is not one value or one per step.
        OSError: If the file cannot be written.
    """
    seeds = as_seeds(seeds)

    def draw(rows: range) -> Latents:
        return model.latents(seeds[rows.start : rows.stop])

    return _collect(model, seeds, draw, path, sampler, shards, images)


def collect_around(
    model: DiffusionModel,
    center: Latents,
    n: int,
    path: str | Path,
    *,
    first: int = 0,
    sampler: Sampler = Sampler(),
    shards: Path | None = None,
) -> Recorded:
    """Like `collect`, for n neighbours of one sample, whose seed all of them carry.

    Args:
        model: The model to sample.
        center: One sample, generated or inverted; see `Latents.neighbours`.
        n: Number of neighbours.
        path: The `.npy` to write, complete or not at all; 4 · steps · n · d bytes.
        first: Number of the first neighbour.
        sampler: Settings whose eta and batch size are taken.
        shards: Folder for finished parts, from which a later process continues; it belongs to this recording alone.

    Raises:
        InputError: If `center` is not one sample, or eta or n is wrong.
        OSError: If the file cannot be written.

    Source: the code of Haas et al. 2024, local PCA.
    """
    if len(center.seeds) != 1 or n < 1:
        raise InputError(f"neighbours need one sample and n >= 1, got {len(center.seeds)} samples and n={n}")

    def draw(rows: range) -> Latents:
        return center.neighbours(range(first + rows.start, first + rows.stop))

    return _collect(model, center.seeds * n, draw, path, sampler, shards)


def _collect(
    model: DiffusionModel,
    seeds: tuple[int, ...],
    draw: Callable[[range], Latents],
    path: str | Path,
    sampler: Sampler,
    shards: Path | None,
    images: bool = False,
) -> Recorded:
    """Stream h of the samples that `draw` gives for ranges of rows."""
    path, timesteps = Path(path), model.process.timesteps
    recorded = Recorded(path, seeds, model.h_shape, model.provenance(eta=sampler.eta))
    batches, n, steps = Batches(sampler.batch_size), len(seeds), len(timesteps)
    kept = {path: (steps, n, int(np.prod(model.h_shape)))}
    kept |= {path.with_name(IMAGES): (1, n, int(np.prod(model.image_shape)))} if images else {}

    def drawn(rows: range) -> list[np.ndarray]:
        found = sample(model, draw(rows), sampler=sampler, record_h=True)
        assert found.h is not None
        parts = [found.h, found.x_0[:, None]][: len(kept)]
        return [part.flatten(start_dim=2).float().cpu().numpy() for part in parts]

    def make(rows: range) -> list[np.ndarray]:
        return [np.concatenate(parts) for parts in zip(*(made for _, made in batches(rows, drawn)), strict=True)]

    with ExitStack() as stack:
        writers = [stack.enter_context(row_writer(file, shape, shards)) for file, shape in kept.items()]
        todo = [rows for rows in row_batches(n, SHARD) if not all(writer.has(rows) for writer in writers)]
        with bar(stage="collect h", total=len(todo)) as progress:
            done = n - sum(map(len, todo))

            def take(rows: range, made: list[np.ndarray]) -> None:
                for writer, part in zip(writers, made, strict=True):
                    writer.write(rows.start, part)

            def finish(rows: range) -> None:
                nonlocal done
                for writer in writers:
                    writer.finish(rows)
                progress.update()
                done += len(rows)
                say_done(done, n)

            size = min(piece_size(n, sampler.batch_size), SHARD)
            shard_by_shard(todo, size, make, take, finish, alone=n <= size)
        # Facts of an older recording must not describe the new array.
        path.with_suffix(".json").unlink(missing_ok=True)
    recorded.save()
    return recorded
