"""Whole jobs, held against the time that their operations take at the rate of a product of two matrices."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from measuring import Row, compare, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hspace.commands.run import load, run
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.directions.annotations import annotate
from hspace.edits.sums import apply_offsets
from hspace.evaluation.readings import Readings
from hspace.runs.config import Config
from hspace.runs.parsing import parse
from hspace.scorers.factory import load_scorer
from hspace.studio.session import FIRST_SAMPLE, Session
from hspace.studio.sliders import load_bench
from hspace.system import workers
from hspace.system.files import package_path

SHARE = 0.7
"""Part of the rate of matrices that a job is to reach."""
SIDE = 1024
"""Of the matrices: their product takes a thread some 20 ms, in its caches."""
GAIN = 1.8
"""Times that two processes are to be faster than one."""

WORDS: dict[str, tuple[str, ...]] = {
    "job_demo": ("experiment=demo",),
    "job_pca": ("method=pca", "size=fast"),
    "job_supervised": ("method=supervised", "size=fast", "method.k=20"),
    "job_jacobian": ("method=jacobian", "size=fast"),
    "job_table1": ("experiment=table1", "size=fast", "study.attributes=[glasses,hat]"),
    "job_compare": ("experiment=compare_methods", "size=fast", "study.attributes=[glasses]", "method.k=4"),
}
"""What is said to `hspace` for each job."""


def job(name: str, model: DiffusionModel, *more: str) -> Row:
    """One command, from its configuration to its record, by one process of one thread on an empty cache."""
    del model

    def begin(folder: Path) -> Callable[[], object]:
        cfg = configuration(*WORDS[name], *more, f"output_dir={folder}/out", f"cache_dir={folder}/cache")
        return lambda: run(cfg)

    return _against_matrices(name, begin, " ".join(["hspace", *WORDS[name], *more]))


def job_strip(name: str, model: DiffusionModel) -> Row:
    """What one slider of the studio shows of one sample, with its previews."""
    del model

    def begin(folder: Path) -> Callable[[], object]:
        session = Session(load_bench(configuration(), ["ready:portraits"]), folder, (FIRST_SAMPLE,))
        source = session.source(f"seed-{FIRST_SAMPLE}")
        return lambda: list(session.strip(source, 0, 0, None))

    return _against_matrices(name, begin, "a strip of the studio")


def configuration(*words: str) -> Config:
    """The configuration of a command, not tracked, for one process."""
    with initialize_config_dir(str(package_path("conf")), version_base="1.3", job_name="hspace"):
        return parse(compose("config", overrides=[*words, "workers=1", "tracking.mode=disabled"]))


def _against_matrices(name: str, begin: Callable[[Path], Callable[[], object]], what: str) -> Row:
    """Both in seconds of the processor: one thread of one process, so that what else runs there counts little.

    Args:
        name: The row.
        begin: Prepares the work in an empty folder: it is done once to be timed, and again to be counted, which would
            make it half as long again.
        what: The work, in words.
    """
    with _threads(1), tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        seconds, rate = timed(begin(Path(one)), time.process_time), matrix_rate()
        work = begin(Path(other))
        with FlopCounterMode(display=False) as counted:
            work()
    operations = counted.get_total_flops()
    least = operations / rate
    note = f"{what}; {operations / 1e9:.3g} GFLOP at {rate / 1e9:.3g} GFLOP/s of matrices, in CPU seconds; once"
    return Row(name, seconds, least, seconds / least, 1, 1 / SHARE, note)


def matrix_rate(repetitions: int = 20) -> float:
    """Operations a second of a product of two matrices, in as many threads as torch has: the best of some."""
    a = torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / min(timed(lambda: a @ a, time.process_time) for _ in range(repetitions))


def shared(name: str, model: DiffusionModel, part: str, n: int = 64) -> Row:
    """A part of a run by two processes against one process, of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        work = PARTS[part](model, n, Path(folder))

        def two() -> None:
            with workers.sharing(2):
                work()

        with _threads(1):
            return compare(name, two, work, 1 / GAIN, f"{part}, {n} samples: two processes; one, of one thread")


def _collected(model: DiffusionModel, n: int, folder: Path) -> Callable[[], object]:
    return lambda: collect(model, range(n), folder / "h.npy", sampler=Sampler())


def _annotated(model: DiffusionModel, n: int, folder: Path) -> Callable[[], object]:
    del folder
    scorer = load_scorer("portraits-annotator")
    return lambda: annotate(model, range(n), scorer, sampler=Sampler())


def _edited(model: DiffusionModel, n: int, folder: Path) -> Callable[[], Tensor]:
    del folder
    offsets = torch.randn(4, len(model.process.timesteps), *model.h_shape)
    return lambda: apply_offsets(model, model.latents(range(n // 4)), offsets, sampler=Sampler())


def _judged(model: DiffusionModel, n: int, folder: Path) -> Callable[[], object]:
    """Edits and the judge's readings of them, of samples that are new at every call; the unit of effects is kept."""
    cfg = configuration(f"output_dir={folder}/out", f"cache_dir={folder}/cache")
    lab = replace(load(cfg), model=model)
    edits = {"an edit": torch.randn(len(model.process.timesteps), *model.h_shape)}
    firsts = itertools.count(FIRST_SAMPLE, n // 2)

    def work() -> Readings:
        first = next(firsts)
        return lab.read(edits, range(first, first + n // 2))

    return work


PARTS: dict[str, Callable[[DiffusionModel, int, Path], Callable[[], object]]] = {
    "collect": _collected, "annotate": _annotated, "edit": _edited, "judge": _judged,
}  # fmt: skip
"""Parts of runs that processes share, by name."""


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads of torch in this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


JOBS: dict[str, Callable[[str, DiffusionModel], Row]] = {
    **{name: job for name in WORDS},
    "job_strip": job_strip,
    **{f"shared_{part}": partial(shared, part=part) for part in PARTS},
}
"""The rows of whole jobs, and of their parts that processes share."""
