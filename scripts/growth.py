"""How time and memory grow: `python scripts/growth.py [--rows NAME;NAME]`. Some five minutes on one core.

Every point is measured in a process of its own, of one thread: CPU seconds, the least of two, and by how much its
memory grew at most, in the first. An exponent is the slope of a line through the logarithms; the last is that between
the two largest values.
"""

import argparse
import ctypes
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import torch
from measuring import timed
from rows import OneStep

from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.krylov import top_triplets
from hspace.directions.solvers import gram_pca, krylov_pca
from hspace.output.tables import Table, format_number, to_markdown
from hspace.runs.errors import guarded
from hspace.system.registry import unknown
from hspace.types import InputError

MODEL = "portraits"


@dataclass(frozen=True)
class Growth:
    """What is done at each of some values of one quantity; `prepare` gives the work, which is what is measured."""

    values: Sequence[int]
    prepare: Callable[[int], Callable[[], object]]


def sampled(steps: int, batch: int) -> Callable[[], object]:
    """From seeds to images, h recorded."""
    model = load_model(MODEL, num_steps=steps, device="cpu")
    return lambda: sample(model, model.latents(range(batch)), sampler=Sampler(), record_h=True)


def collected(n: int) -> Callable[[], object]:
    """Trajectories whose h goes to disk, by one process."""
    model = load_model(MODEL, device="cpu")

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            collect(model, range(n), Path(folder) / "h.npy", sampler=Sampler())

    return work


def passed(side: int) -> Callable[[], object]:
    """A pass of four images, as large as the network is not usually given."""
    model, x_t = load_model(MODEL, device="cpu"), torch.randn(4, 3, side, side)
    return torch.no_grad()(lambda: model.denoiser.network(x_t, 500))


def components(n: int, d: int) -> Callable[[], object]:
    """25 components through the Gram matrix."""
    features = synthetic(n, d)
    return lambda: gram_pca(features, min(25, n - 1))


def krylov(n: int, k: int) -> Callable[[], object]:
    """Components by block Krylov, of d 4,096."""
    features = synthetic(n, 4096)
    return lambda: krylov_pca(features, k)


def jacobian(k: int) -> Callable[[], object]:
    """Top k directions of the decoder at the last step."""
    step = OneStep.of(load_model(MODEL, device="cpu"))
    return lambda: top_triplets(step.operator(), k, tolerance=1e-3)


def synthetic(n: int, d: int) -> np.ndarray:
    """One step of n samples, (1, n, d) float32, whose j-th number has a standard deviation of j^-1/2."""
    generator = np.random.default_rng(0)
    scale = np.arange(1, d + 1, dtype=np.float32) ** -0.5
    return (generator.standard_normal((1, n, d), dtype=np.float32) * scale).astype(np.float32)


ROWS: dict[str, Growth] = {
    "`sample` (batch 4), steps": Growth((5, 10, 20, 40), lambda steps: sampled(steps, 4)),
    "`sample` (10 steps), batch": Growth((1, 4, 16, 64), lambda batch: sampled(10, batch)),
    "`collect`, n": Growth((16, 32, 64, 128), collected),
    "a pass of `portraits`, height and width": Growth((32, 64, 128, 256), passed),
    "`gram_pca` (d 4,096), n": Growth((250, 500, 1000, 2000), lambda n: components(n, 4096)),
    "`gram_pca` (n 500), d": Growth((2048, 8192, 32768), lambda d: components(500, d)),
    "`krylov_pca` (k 8), n": Growth((2000, 4000, 8000), lambda n: krylov(n, 8)),
    "`krylov_pca` (n 4,000), k": Growth((2, 8, 32), lambda k: krylov(4000, k)),
    "the decoder's Jacobian, k": Growth((2, 8, 32), jacobian),
}


def main() -> int:
    """Measures the chosen rows and prints their table.

    Raises:
        InputError: If there is no such row.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help=f"names, separated by semicolons; all: {'; '.join(ROWS)}")
    options = parser.parse_args()
    names = [name.strip() for name in options.rows.split(";")] if options.rows else list(ROWS)
    for name in names:
        if name not in ROWS:
            raise InputError(unknown("row", name, ROWS))
    torch.set_num_threads(1)
    header = (
        "what, against", "values", "seconds", "exponent of time", "of the last two", "memory, MB",
        "exponent of memory", "of its last two",
    )  # fmt: skip
    lines = []
    for name in names:
        growth = ROWS[name]
        points = [alone(growth.prepare, value) for value in growth.values]
        times, memory = ([point[i] for point in points] for i in (0, 1))
        lines.append((
            name, *(" ".join(map(format_number, column)) for column in (growth.values, times)),
            *exponents(growth.values, times), " ".join(format_number(size / 1e6) for size in memory),
            *exponents(growth.values, memory),
        ))  # fmt: skip
        print(lines[-1], flush=True)
    print(to_markdown(Table(header, tuple(lines), "CPU seconds of one thread, the least of two.")))
    return 0


def exponents(values: Sequence[float], found: Sequence[float]) -> tuple[str, str]:
    """Of all values, and of the two largest."""
    x, y = np.log(values), np.log(np.maximum(found, 1e-9))
    return f"{np.polyfit(x, y, 1)[0]:.2f}", f"{(y[-1] - y[-2]) / (x[-1] - x[-2]):.2f}"


def alone(prepare: Callable[[int], Callable[[], object]], value: int) -> tuple[float, float]:
    """Seconds and bytes, in a process of its own.

    Raises:
        InputError: If the process failed.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_measured, args=(theirs, prepare, value))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise InputError(f"the process that measured {value} failed") from None
    finally:
        process.join()


def _measured(link: Connection, prepare: Callable[[int], Callable[[], object]], value: int) -> None:
    torch.set_num_threads(1)  # the threads of OpenMP do not live on in a fork
    work = prepare(value)
    ctypes.CDLL(None).malloc_trim(0)  # what loading has freed is not there for the work
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    first = timed(work, time.process_time)
    grown = _peak() - before
    link.send((min(first, timed(work, time.process_time)), grown))


def _peak() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * float(line.split()[1])


if __name__ == "__main__":
    sys.exit(guarded(main))
