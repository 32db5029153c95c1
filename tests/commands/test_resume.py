"""Runs that are killed, stopped or find a damaged cache end with the results of a run that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from processes import run, start

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import collect
from hspace.directions.annotations import annotate
from hspace.directions.record import Directions
from hspace.experiments import edit
from hspace.output.tables import write_csv
from hspace.runs.config import Config
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.scorers.factory import load_identity, load_scorer
from hspace.system.files import package_path
from hspace.system.shards import SHARD
from hspace.types import Images, Scores

SAMPLES = 300
WORDS = [
    "diffusion.num_steps=3", f"method.num_samples={SAMPLES}", "method.k=2", "edit.strengths=[-2,0,2]",
    "evaluation.num_samples=4", "evaluation.reference_samples=24", "evaluation.calibration_samples=8",
    "device=cpu",
]  # fmt: skip


def words_for(pipeline: Path, folder: Path, *more: str) -> list[str]:
    return [
        *WORDS, f"model.path={pipeline}", f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}",
        "tracking.mode=disabled", *more,
    ]  # fmt: skip


def results(folder: Path) -> dict[str, Any]:
    """Every file that is left but W&B's and Hydra's, and of records all but times."""
    names = [path.relative_to(folder) for path in sorted((folder / "out").rglob("*")) if path.is_file()]
    told = [name for name in names if name.name[0] != "." and not {"wandb", "multirun.yaml"} & {*name.parts}]
    return {name.as_posix(): untimed(folder / name) for name in told}


def untimed(path: Path) -> Any:
    if path.name != "run.json":
        return path.read_bytes()
    return {name: each for name, each in json.loads(path.read_text()).items() if name not in ("seconds", "stages")}


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted command leaves, and how long it took."""

    results: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def make_whole(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    @cache
    def make(kind: str) -> Whole:
        folder = tmp_path_factory.mktemp(kind)
        run(["--version"], folder / "log")  # The first process pays for the imports.
        started = time.perf_counter()
        assert run(COMMANDS[kind](tiny_pipeline_dir, folder), folder / "log") == 0, (folder / "log").read_text()
        return Whole(results(folder), time.perf_counter() - started)

    return make


def experiment_words(pipeline: Path, folder: Path) -> list[str]:
    return ["experiment=fig3", "debug=default", *words_for(pipeline, folder, f"method.num_samples={2 * SHARD + 2}")]


def sweep_words(pipeline: Path, folder: Path) -> list[str]:
    words = [word for word in words_for(pipeline, folder) if not word.startswith("output_dir=")]
    return ["-m", "debug=default", *words, "method.num_samples=66", "seed=0,1", f"hydra.sweep.dir={folder / 'out'}"]


COMMANDS = {"run": words_for, "experiment": experiment_words, "sweep": sweep_words}
"""The words of each kind of command, for a model and a folder."""
MOMENTS = [(kind, i) for kind in COMMANDS for i in range(20)]


@pytest.mark.parametrize(
    ("kind", "moment"),
    [pytest.param(kind, i, marks=[pytest.mark.slow] * (kind != "run" or i > 0)) for kind, i in MOMENTS],
)
def test_what_is_killed_continues_to_the_same_bytes(
    make_whole: Callable[[str], Whole], tiny_pipeline_dir: Path, tmp_path: Path, kind: str, moment: int
) -> None:
    whole = make_whole(kind)
    words = COMMANDS[kind](tiny_pipeline_dir, tmp_path)
    process = start(words, tmp_path / "log")
    time.sleep(random.Random(moment).uniform(0.1, 0.95) * whole.seconds)
    process.kill()
    process.join()
    assert run(words, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert results(tmp_path) == whole.results
    assert not list((tmp_path / "cache").glob("*/*.tmp"))


@pytest.mark.slow
def test_two_equal_sweeps_at_once_leave_the_tables_of_one(
    make_whole: Callable[[str], Whole], tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    words = sweep_words(tiny_pipeline_dir, tmp_path)
    logs = [tmp_path / "first", tmp_path / "second"]
    processes = [start(words, log) for log in logs]
    for process in processes:
        process.join()
    # The second is refused while the first runs, or finds all of it done.
    codes = sorted(process.exitcode or 0 for process in processes)
    assert codes in ([0, 2], [0, 0]), [log.read_text() for log in logs]
    assert results(tmp_path) == make_whole("sweep").results


@pytest.mark.parametrize(("number", "tracking"), [(signal.SIGTERM, "offline"), (signal.SIGINT, "disabled")])
def test_a_signal_ends_the_run_after_its_shard(
    make_whole: Callable[[str], Whole],
    tiny_pipeline_dir: Path,
    tmp_path: Path,
    number: signal.Signals,
    tracking: str,
) -> None:
    words = words_for(tiny_pipeline_dir, tmp_path, f"tracking.mode={tracking}")
    process = start(words, tmp_path / "log")
    while not (journals := list((tmp_path / "cache").glob("collect/*.tmp/shards/h.journal"))):
        assert process.is_alive()
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith(f"hspace: stopped by {number.name}")
    assert 1 <= len(journals[0].read_text().splitlines()) < SAMPLES / SHARD
    if tracking == "offline":
        wandb = Path(sys.executable).with_name("wandb")
        command = [wandb, "leet", "inspect", "--json", "--summary", tmp_path / "out" / "wandb"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert json.loads(said)["exit_code"] == 128 + number
    assert run(words_for(tiny_pipeline_dir, tmp_path), tmp_path / "log") == 0
    assert results(tmp_path) == make_whole("run").results


def test_what_was_finished_is_not_made_again_and_what_was_damaged_is(
    tiny_model: DiffusionModel, tmp_path: Path
) -> None:
    def made(seeds: range, path: Path, shards: Path | None) -> tuple[bytes, int]:
        batches = []
        encode = type(tiny_model.denoiser).encode
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(tiny_model.denoiser), "encode", lambda *a, **k: (batches.append(len(a[1])), encode(*a, **k))[1]
            )
            collect(tiny_model, seeds, path, shards=shards)
        return path.read_bytes(), sum(batches) // 3

    seeds, shards = range(150), tmp_path / "shards"
    wanted, _ = made(seeds, tmp_path / "h.npy", None)
    assert made(seeds, tmp_path / "a" / "h.npy", shards) == (wanted, 150)
    assert made(seeds, tmp_path / "a" / "h.npy", shards) == (wanted, 0), "the whole array was in place"
    (tmp_path / "a" / "h.npy").rename(shards / "h.npy")
    with (shards / "h.npy").open("rb+") as file:
        file.seek(2000)
        file.write(b"damage")
    assert made(seeds, tmp_path / "a" / "h.npy", shards) == (wanted, SHARD)


def test_annotations_continue_and_leave_damaged_shards_aside(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    scorer = load_scorer("portraits-annotator")
    scored = []

    class Counting:
        id, attributes, binary, visible = scorer.id, scorer.attributes, scorer.binary, scorer.visible

        def __call__(self, images: Images) -> Scores:
            scored.append(len(images))
            return scorer(images)

    wanted = annotate(tiny_model, range(150), Counting(), shards=tmp_path)
    (first, *_) = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    scored.clear()
    again = annotate(tiny_model, range(150), Counting(), shards=tmp_path)
    assert sum(scored) == SHARD and again.scores.equal(wanted.scores)


@pytest.fixture
def cfg(tiny_pipeline_dir: Path, tmp_path: Path) -> Config:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return parse(compose("config", overrides=[*words_for(tiny_pipeline_dir, tmp_path), "model=local"]))


@pytest.mark.slow
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_every_damaged_file_of_the_cache_gives_the_same_results_or_none(
    cfg: Config, tiny_model: DiffusionModel, tmp_path: Path, turn: int
) -> None:
    roles = load_scorer("portraits-annotator"), load_scorer("portraits-judge"), load_identity()
    lab = Lab(cfg, tiny_model, *roles, None, None, "judge")

    def outcome() -> tuple[bytes, bytes]:
        result = edit.run(lab)
        found = result.directions["directions"]
        assert isinstance(found, Directions)
        write_csv(result.tables["effects"], tmp_path / "effects.csv")
        return found.directions.numpy().tobytes(), (tmp_path / "effects.csv").read_bytes()

    wanted = outcome()
    files = sorted(path for path in cfg.cache_dir.rglob("*") if path.is_file() and path.suffix != ".lock")
    assert {path.parent.parent.name for path in files} == {"collect", "discover", "read", "unit"}
    for i, path in enumerate(files):
        data = path.read_bytes()
        half = len(data) // 2
        match (i + turn) % 3:
            case 0:
                path.write_bytes(data[:half])
            case 1:
                path.write_bytes(data[:half] + bytes([data[half] ^ 16]) + data[half + 1 :])
            case 2:
                path.unlink()
        if path.parent.parent.name == "collect":  # read only where directions are to be found
            shutil.rmtree(cfg.cache_dir / "discover")
        assert outcome() == wanted, path
        assert path.exists()
