"""A fault at every single file operation of a stage costs at most one shard, and the result is the same."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import with_fault
from safetensors.torch import load_file, save

from hspace.system.cache import cached, damage
from hspace.system.files import write_bytes, write_json
from hspace.system.shards import in_shards, row_writer

KEY = {"stage": "of a test"}
SHARDS = 3
ROWS = [range(8 * i, 8 * i + 8) for i in range(SHARDS)]


def numbers(rows: range) -> np.ndarray:
    """(rows, steps, d) of a shard."""
    return np.arange(rows.start * 6, rows.stop * 6, dtype=np.float32).reshape(len(rows), 2, 3)


def recording(log: Path) -> Callable[[Path], None]:
    """Builds like `collect`: an array and the facts beside it."""

    def build(folder: Path) -> None:
        with row_writer(folder / "h.npy", (2, 8 * SHARDS, 3), folder / "shards") as writer:
            for rows in ROWS:
                if not writer.has(rows):
                    tell(log)
                    writer.write(rows.start, numbers(rows))
                    writer.finish(rows)
        write_json(folder / "h.json", {"samples": 8 * SHARDS})

    return build


def scores(log: Path) -> Callable[[Path], None]:
    """Builds like `annotate`: shards in files of their own, joined in the end."""

    def build(folder: Path) -> None:
        def make(rows: range) -> torch.Tensor:
            tell(log)
            return torch.from_numpy(numbers(rows))

        joined = in_shards(folder / "shards", 8 * SHARDS, make, size=8)
        write_bytes(folder / "scores.safetensors", save({"scores": joined}))

    return build


def tell(log: Path) -> None:
    """Notes that a shard is made; by a descriptor, which the hook does not count."""
    os.write(int(log.name), b"x")


def attempt(build: Callable[[Path], Callable[[Path], None]], cache: Path, made: int, n: int, kind: str) -> int:
    """See `with_fault`."""
    return with_fault(lambda: cached(cache, "stage", KEY, build(Path(str(made)))), cache, n, kind)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize(
    ("build", "kind", "stride"),
    [
        (recording, "SIGKILL", 7),
        (scores, "ENOSPC", 7),
        *(
            pytest.param(build, kind, 1, marks=pytest.mark.slow)
            for build in (recording, scores)
            for kind in ("SIGKILL", "ENOSPC", "EIO")
        ),
    ],
)
def test_a_fault_at_every_file_operation_costs_at_most_one_shard(
    build: Callable[[Path], Callable[[Path], None]], kind: str, stride: int, tmp_path: Path
) -> None:
    n, ended = 1 - stride, 0
    while ended != 4:
        n += stride
        cache, log = tmp_path / str(n), os.memfd_create("made")
        cache.mkdir()
        ended = attempt(build, cache, log, n, kind)
        assert ended in ({"SIGKILL": (-9, 4)}.get(kind, (0, 3, 4))), f"operation {n}"
        folder = cached(cache, "stage", KEY, build(Path(str(log))))
        assert os.fstat(log).st_size <= SHARDS + 1, f"operation {n}: {os.fstat(log).st_size} shards were made"
        os.close(log)
        assert damage(folder) is None
        assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]
        assert "shards" not in os.listdir(folder)
        whole = np.stack([numbers(rows) for rows in ROWS]).reshape(-1, 2, 3)
        if build is recording:
            assert np.array_equal(np.load(folder / "h.npy"), whole.swapaxes(0, 1))
        else:
            assert np.array_equal(load_file(folder / "scores.safetensors")["scores"].numpy(), whole)
    assert n > 30


def test_a_line_that_was_cut_short_does_not_swallow_the_next(tmp_path: Path) -> None:
    with pytest.raises(KeyError), row_writer(tmp_path / "h.npy", (2, 16, 3), tmp_path / "shards") as writer:
        writer.write(0, numbers(ROWS[0]))
        writer.finish(ROWS[0])
        raise KeyError
    with (tmp_path / "shards" / "h.journal").open("a") as journal:
        journal.write("8 16 0123")
    for done in (1, 2):
        with pytest.raises(KeyError), row_writer(tmp_path / "h.npy", (2, 16, 3), tmp_path / "shards") as writer:
            assert [writer.has(rows) for rows in ROWS[:2]] == [True, done == 2]
            writer.write(8, numbers(ROWS[1]))
            writer.finish(ROWS[1])
            raise KeyError


def test_a_hidden_folder_does_not_block_a_stage(tmp_path: Path) -> None:
    folder = cached(tmp_path, "stage", KEY, lambda folder: None)
    (folder / "entry.json").unlink()
    unfinished = folder.rename(folder.with_suffix(".tmp"))
    (unfinished / ".nfs" / "more").mkdir(parents=True)
    assert os.listdir(cached(tmp_path, "stage", KEY, lambda folder: None)) == ["entry.json"]


def write_1(folder: Path) -> None:
    (folder / "a").write_text("1")


def _use_as_nobody(cache: Path) -> None:
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    assert not os.access(cache / "stage", os.W_OK)
    assert (cached(cache, "stage", KEY, lambda folder: pytest.fail("made again")) / "a").read_text() == "1"
    with pytest.raises(PermissionError):
        cached(cache, "stage", {"another": "key"}, lambda folder: None)
    os._exit(0)  # coverage cannot write its data as nobody either


def test_a_whole_cache_on_a_disk_that_cannot_be_written_is_used(tmp_path: Path) -> None:
    folder = cached(tmp_path / "cache", "stage", KEY, write_1)
    for path in (folder, folder.parent, folder.parent.parent):
        path.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o111)
    process = multiprocessing.get_context("fork").Process(target=_use_as_nobody, args=(tmp_path / "cache",))
    process.start()
    process.join()
    assert process.exitcode == 0
