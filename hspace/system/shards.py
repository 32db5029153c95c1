"""Long results made in shards of fixed size, each on disk once it is made, so that a killed run continues.

Shard boundaries do not depend on the batch size, on memory or on the time of a kill: a continued result is
byte-identical to one that was never interrupted, on the same number of processes, and equal to 1e-4 on another.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hspace.system import distributed, workers
from hspace.system.files import write_atomic, write_bytes
from hspace.system.stopping import uninterrupted
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

Made = TypeVar("Made")

SHARD = 64
"""Number of samples of a shard; no batch is larger."""
PIECES = 3
"""Least number of pieces that each of several processes gets of what they share, where there are rows enough."""
PIECE = 16
"""Largest number of rows of such a piece; a CPU takes as long for a sample of a larger one."""


_listener: ContextVar[Callable[[int, int], None] | None] = ContextVar("listener", default=None)


def row_batches(n: int, batch_size: int) -> list[range]:
    """Rows 0 to n - 1 in batches, the last of which may be smaller.

    Raises:
        InputError: If there is no row, or the batch size is below 1.

    Examples:
        >>> row_batches(5, 2)
        [range(0, 2), range(2, 4), range(4, 5)]
    """
    if n < 1 or batch_size < 1:
        raise InputError(f"batch_size and the number of samples must be >= 1, got {batch_size} and {n}")
    return cut(range(n), batch_size)


@contextlib.contextmanager
def watched(listener: Callable[[int, int], None]) -> Iterator[None]:
    """Calls `listener` with the rows done and their number after every shard made in this block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def say_done(done: int, n: int) -> None:
    """Tells the listeners that `done` of n rows are made."""
    listener = _listener.get()
    if listener is not None:
        listener(done, n)


class Batches:
    """Goes through rows in batches; a batch that a GPU's memory does not hold is halved, and so are all later ones."""

    def __init__(self, size: int) -> None:
        """Raises InputError if the size is below 1."""
        row_batches(1, size)
        self.size: int = size

    def __call__(self, rows: range, make: Callable[[range], Made]) -> Iterator[tuple[range, Made]]:
        """Each batch of rows and what `make` gives for it.

        Raises:
            InputError: If memory does not hold a single row.
        """
        if workers.count() > 1:
            pieces = cut(rows, piece_size(len(rows), self.size))
            yield from _in_order(rows, workers.shared(pieces, make, alone=len(pieces) < 2))
            return
        first = rows.start
        while first < rows.stop:
            batch = range(first, min(first + self.size, rows.stop))
            try:
                made = make(batch)
            except torch.OutOfMemoryError as error:
                self._halve(len(batch), error)
                continue
            yield batch, made
            first = batch.stop

    def _halve(self, failed: int, error: torch.OutOfMemoryError) -> None:
        if failed == 1:
            raise InputError(
                "the GPU's memory does not hold one sample: use a smaller model or dtype=float16"
            ) from error
        self.size = failed // 2
        log.warning("out of memory at batch size %d; goes on with %d", failed, self.size)
        torch.cuda.empty_cache()


def _in_order(rows: range, made: Iterator[tuple[range, Made]]) -> Iterator[tuple[range, Made]]:
    """Pieces by their first row; those that come too early wait."""
    early: dict[int, tuple[range, Made]] = {}
    first = rows.start
    for piece in made:
        early[piece[0].start] = piece
        while first in early:
            whole = early.pop(first)
            yield whole
            first = whole[0].stop


def piece_size(rows: int, size: int) -> int:
    """Number of rows of a piece: few enough that all processes end together, and at most `size`.

    Examples:
        >>> piece_size(1000, 64)
        64
    """
    if workers.count() == 1:
        return size
    return min(size, PIECE, -(-rows // (PIECES * workers.count())))


def cut(rows: range, size: int) -> list[range]:
    """Consecutive parts of at most `size` rows.

    Examples:
        >>> cut(range(3, 8), 2)
        [range(3, 5), range(5, 7), range(7, 8)]
    """
    return [range(first, min(first + size, rows.stop)) for first in range(rows.start, rows.stop, size)]


def shard_by_shard(
    shards: Sequence[range],
    size: int,
    make: Callable[[range], Made],
    take: Callable[[range, Made], None],
    finish: Callable[[range], None],
    *,
    alone: bool,
) -> None:
    """Makes shards piece by piece, by as many processes as the run has.

    The size of pieces must not depend on which shards are left, so that a continued result is the same to the last bit.

    A signal waits for the end of a shard where there is one process. Several lose their unfinished shards.

    Args:
        shards: Ranges of rows.
        size: Largest number of rows of a piece; see `piece_size`.
        make: Function that makes a piece.
        take: Function that gets each piece when it is made, in any order.
        finish: Function that is called when the last piece of a shard is taken.
        alone: Whether the whole result, of which the shards may be what is left, is a single piece.
    """
    if workers.count() == 1:
        for shard in shards:
            with uninterrupted():
                for piece in cut(shard, size):
                    take(piece, make(piece))
                finish(shard)
        return
    of = {piece: shard for shard in shards for piece in cut(shard, size)}
    left = {shard: len(shard) for shard in shards}
    for piece, made in workers.shared(list(of), make, alone=alone):
        with uninterrupted():
            take(piece, made)
            left[of[piece]] -= len(piece)
            if not left[of[piece]]:
                finish(of[piece])


def in_batches(rows: range, size: int, make: Callable[[range], Tensor]) -> Tensor:
    """What `make` gives for all rows, made in batches of at most `size` rows; see `Batches`."""
    return torch.cat([made for _, made in Batches(size)(rows, make)])


def in_shards(
    folder: Path | None,
    n: int,
    make: Callable[[range], Tensor],
    *,
    size: int = SHARD,
    made: Callable[[int], object] = lambda rows: None,
) -> Tensor:
    """Rows 0 to n - 1, made shard by shard, or read where an earlier process has made them.

    Several processes of torchrun take turns with the shards, and all of them get all rows.

    Args:
        folder: Folder of the finished shards; None keeps none.
        n: Number of rows.
        make: Function that gives a range of rows, (rows, ...), on the CPU.
        size: Number of rows of a shard.
        made: Function that is called with the number of rows of every shard that is made here.
    """
    shards = row_batches(n, size)
    mine = shards[distributed.rank() :: distributed.world()]
    found = {rows: part for rows in mine if folder is not None and (part := _read(folder, rows)) is not None}
    parts: dict[range, Tensor] = {}

    def finish(rows: range) -> None:
        inside = sorted((piece for piece in parts if piece.start in rows), key=lambda piece: piece.start)
        found[rows] = torch.cat([parts.pop(piece) for piece in inside])
        assert len(found[rows]) == len(rows), "a piece has one row for each of its range"
        if folder is not None:
            _write(folder, rows.start, found[rows])
        made(len(rows))
        say_done(sum(map(len, found)), n)

    todo = [rows for rows in mine if rows not in found]
    piece = piece_size(n, size)
    shard_by_shard(todo, piece, make, parts.__setitem__, finish, alone=n <= piece)
    by_rank = distributed.gathered([found[rows] for rows in mine])
    return torch.cat([by_rank[i % len(by_rank)][i // len(by_rank)] for i in range(len(shards))])


def _write(folder: Path, first: int, part: Tensor) -> None:
    """Writes a shard into a file whose name has its checksum, so that one move writes both."""
    data = save({"rows": part.contiguous()})
    write_bytes(folder / f"{first:08}-{hashlib.sha256(data).hexdigest()}.safetensors", data)


def _read(folder: Path, rows: range) -> Tensor | None:
    """A finished shard; None where there is none, or it is damaged."""
    for path in folder.glob(f"{rows.start:08}-*.safetensors"):
        data = path.read_bytes()
        with contextlib.suppress(SafetensorError, KeyError):
            if hashlib.sha256(data).hexdigest() == path.stem.partition("-")[2]:
                return load(data)["rows"]
    return None


class RowWriter:
    """Writes samples into a `.npy` of float32 (steps, samples, d) at their place in every step.

    It uses plain writes, because a full disk is then an OSError; in a memory map it would kill the process.
    """

    def __init__(self, file: BinaryIO, journal: Path | None, shape: tuple[int, int, int]) -> None:
        self._file, self._journal = file, journal
        self.shape: tuple[int, int, int] = shape
        text = journal.read_text(errors="replace") if journal is not None and journal.exists() else ""
        self._done = set(text.splitlines())
        # A line that a kill or a full disk cut short must not absorb the next one.
        self._before = "" if text == "" or text.endswith("\n") else "\n"
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self._start = file.tell()

    def write(self, first: int, h: np.ndarray) -> None:
        """Write h of consecutive samples, float32 (batch, steps, d), from sample `first` on.

        Raises:
            InputError: If there are more or fewer steps or numbers of a sample than the array has.
        """
        steps, _, dim = self.shape
        if h.shape[1:] != (steps, dim):
            raise InputError(f"h must have {steps} steps of {dim} numbers, got shape {h.shape}")
        for step in range(h.shape[1]):
            self._file.seek(self._place(step, first))
            self._file.write(np.ascontiguousarray(h[:, step]).data)

    def finish(self, rows: range) -> None:
        """Put a shard on disk, and its checksum into the journal."""
        if self._journal is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            with self._journal.open("a") as journal:
                journal.write(f"{self._before}{self._line(rows)}\n")
                self._before = ""
                journal.flush()
                os.fsync(journal.fileno())

    def has(self, rows: range) -> bool:
        """Whether an earlier process finished a shard, and the shard is unchanged."""
        return bool(self._done) and self._line(rows) in self._done

    def _line(self, rows: range) -> str:
        """A shard's line in the journal, from what is in the file."""
        digest = hashlib.sha256()
        for step in range(self.shape[0]):
            self._file.seek(self._place(step, rows.start))
            digest.update(self._file.read(4 * self.shape[2] * len(rows)))
        return f"{rows.start} {rows.stop} {digest.hexdigest()}"

    def _place(self, step: int, sample: int) -> int:
        _, samples, dim = self.shape
        return self._start + 4 * dim * (step * samples + sample)


@contextlib.contextmanager
def row_writer(path: Path, shape: tuple[int, int, int], folder: Path | None) -> Iterator[RowWriter]:
    """A writer whose array is moved to `path` when the block ends without an error.

    Args:
        path: File `.npy` to write.
        shape: Shape of the array, (steps, samples, d).
        folder: Folder of the array until then, with a journal from which a later process continues; None writes beside
            `path` and leaves nothing behind.

    Raises:
        OSError: If the file cannot be written; `filename` is `path`.
    """
    if folder is None:
        with write_atomic(path) as temporary, temporary.open("wb+") as file:
            yield RowWriter(file, None, shape)
        return
    for needed in (folder, path.parent):
        needed.mkdir(parents=True, exist_ok=True)
    journal, working = folder / f"{path.stem}.journal", folder / path.name
    if not working.exists() and journal.exists():
        # Either the array was moved and the process was killed before the end, or the array is lost.
        path.replace(working) if path.exists() else journal.unlink()
    try:
        with working.open("rb+" if working.exists() else "wb+") as file:
            yield RowWriter(file, journal, shape)
            file.flush()
            os.fsync(file.fileno())
        working.replace(path)
    except BaseException as error:
        if not journal.exists():
            working.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(working)):
            error.filename = str(path)
        raise
