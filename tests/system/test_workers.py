"""Processes that share the samples of a run: the same results, and nothing left of them when it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import NotFinite
from hspace.directions.annotations import annotate
from hspace.edits.sums import apply_offsets
from hspace.system import workers
from hspace.system.shards import Batches, in_batches, in_shards, watched
from hspace.types import InputError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")


@pytest.fixture
def two() -> Iterator[None]:
    """Two processes share samples; none of them is left."""
    # Another test in this process may have left one of its own, such as W&B's service.
    before = set(psutil.Process().children())
    with workers.sharing(2):
        yield
    assert set(psutil.Process().children()) <= before


def own_process(rows: range) -> torch.Tensor:
    """Each row, and the process that makes it."""
    time.sleep(0.02)
    return torch.tensor([[float(row), float(os.getpid())] for row in rows])


def test_rows_are_made_by_two_other_processes_of_one_thread_and_come_in_order(two: None) -> None:
    made = in_batches(range(3, 40), 5, own_process)
    assert made[:, 0].tolist() == [*range(3, 40)]
    assert len(made[:, 1].unique()) == 2
    assert os.getpid() not in made[:, 1].tolist()
    assert in_batches(range(8), 1, lambda rows: torch.tensor([torch.get_num_threads()] * len(rows))).eq(1).all()


def test_a_single_piece_is_made_here(two: None) -> None:
    assert in_batches(range(1), 5, own_process)[0, 1] == os.getpid()


def test_processes_share_nothing_further(two: None) -> None:
    counts = in_batches(range(4), 1, lambda rows: torch.tensor([workers.count()]))
    assert counts.tolist() == [1] * 4


def test_batches_that_are_ready_early_wait(two: None) -> None:
    def slow_first(rows: range) -> int:
        time.sleep(0.1 if rows.start == 0 else 0)
        return rows.start

    assert [made for _, made in Batches(1)(range(5), slow_first)] == [*range(5)]


class Brightness:
    """Reads off images how light they are."""

    id = "brightness"
    attributes: tuple[str, ...] = ("light",)
    binary: tuple[bool, ...] = (False,)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]

    def visible(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


def test_h_scores_and_edits_are_those_of_one_process(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    seeds, sampler = range(66), Sampler(batch_size=16)
    generator = torch.Generator().manual_seed(0)
    offsets = 0.1 * torch.randn(3, len(tiny_model.process.timesteps), *tiny_model.h_shape, generator=generator)

    def results(name: str) -> list[np.ndarray]:
        h = collect(tiny_model, seeds, tmp_path / f"{name}.npy", sampler=sampler).open()
        scores = annotate(tiny_model, seeds, Brightness(), sampler=sampler).scores
        edited = apply_offsets(tiny_model, tiny_model.latents([0, 1, 2]), offsets, sampler=sampler)
        return [np.array(h), scores.numpy(), edited.numpy()]

    alone = results("alone")
    with workers.sharing(2):
        together = results("together")
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() < 1e-4


def test_an_error_in_a_process_is_raised_here_with_its_row(two: None) -> None:
    def fails(rows: range) -> torch.Tensor:
        raise NotFinite(rows.start, "the image became NaN")

    with pytest.raises(NotFinite, match=r"^the image became NaN$") as caught:
        in_batches(range(4, 6), 1, fails)
    assert caught.value.row in (4, 5)


def test_an_error_that_cannot_be_sent_is_told(two: None) -> None:
    class Local(Exception):
        pass

    def fails(rows: range) -> torch.Tensor:
        raise Local("of this function")

    with pytest.raises(RuntimeError, match="Local: of this function"):
        in_batches(range(4), 1, fails)


def test_a_process_that_is_killed_is_one_line(two: None) -> None:
    def killed(rows: range) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)

    with pytest.raises(InputError, match=r"a worker process was killed, .*set workers=1"):
        in_batches(range(4), 1, killed)


def test_finished_shards_are_kept_when_a_later_one_fails(two: None, tmp_path: Path) -> None:
    def make(rows: range, last: int = 5) -> torch.Tensor:
        if rows.start >= last:
            time.sleep(0.3)
            raise InputError("no more")
        return own_process(rows)

    with pytest.raises(InputError, match="no more"):
        in_shards(tmp_path, 6, make, size=1)
    kept = {path.name[:8] for path in tmp_path.iterdir()}
    assert {f"{first:08}" for first in range(5)} == kept
    made: list[int] = []
    rows = in_shards(tmp_path, 6, lambda rows: make(rows, 6), size=1, made=made.append)
    assert rows[:, 0].tolist() == [*range(6)]
    assert made == [1]


def test_a_continued_result_is_made_of_the_same_pieces(two: None, tmp_path: Path) -> None:
    """A row's last bits depend on the rows beside it."""

    def piece(rows: range) -> torch.Tensor:
        return torch.tensor([rows.start, len(rows)]).repeat(len(rows), 1)

    whole = in_shards(tmp_path / "whole", 40, piece, size=10)
    in_shards(tmp_path / "part", 40, piece, size=10)
    for path in (tmp_path / "part").glob("000000[23]0-*"):
        path.unlink()
    assert in_shards(tmp_path / "part", 40, piece, size=10).equal(whole)


def test_the_last_piece_of_a_longer_result_is_made_as_the_others_were(two: None, tmp_path: Path) -> None:
    in_shards(tmp_path, 20, own_process, size=4)
    next(tmp_path.glob("00000008-*")).unlink()
    rows = in_shards(tmp_path, 20, own_process, size=4)
    assert rows[:, 0].tolist() == [*range(20)] and os.getpid() not in rows[:, 1].tolist()


def test_the_rows_done_are_counted_in_any_order(two: None) -> None:
    def slow_first(rows: range) -> torch.Tensor:
        time.sleep(0.1 if rows.start == 0 else 0)
        return own_process(rows)

    told: list[tuple[int, int]] = []
    with watched(lambda done, n: told.append((done, n))):
        in_shards(None, 8, slow_first, size=2)
    assert told == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_what_does_not_give_a_row_for_each_is_a_defect(two: None) -> None:
    with pytest.raises(AssertionError, match="one row for each"):
        in_shards(None, 4, lambda rows: torch.zeros(4), size=4)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process(number: int) -> None:
    code = """
        import time, torch
        from hspace.system import workers
        from hspace.system.shards import in_batches
        from hspace.system.stopping import stopping

        def make(rows):
            print(flush=True)
            time.sleep(60)

        with stopping(), workers.sharing(2):
            in_batches(range(4), 1, make)
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    for _ in range(2):
        run.stdout.readline()
    crew = psutil.Process(run.pid).children(recursive=True)
    assert len(crew) == 2
    run.send_signal(number)
    assert run.wait(timeout=20) == (-9 if number == signal.SIGKILL else 128 + number)
    assert not psutil.wait_procs(crew, timeout=10)[1]


def test_how_many_processes_a_run_takes() -> None:
    cpu = torch.device("cpu")
    assert workers.processes_for("auto", cpu) == torch.get_num_threads()
    assert workers.processes_for(3, cpu) == 3
    assert workers.processes_for("auto", torch.device("cuda")) == 1
    with pytest.raises(InputError, match=r"workers must be 1 or auto here, since device cuda .*, got 2"):
        workers.processes_for(2, torch.device("cuda"))
