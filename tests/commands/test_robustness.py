"""What strangers, users and machines can do wrong: one line, no traceback, nothing executed, nothing half-written."""

import copy
import json
import logging
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import hold_read_only
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from processes import FORKS, _main

from hspace.cli import main
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.directions.record import Directions, DirectionsMeta
from hspace.edits.sums import edit
from hspace.runs.parsing import parse
from hspace.system.files import package_path
from hspace.system.shards import Batches
from hspace.types import InputError

JUNK: list[Any] = [
    None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", " ", "a/b", "x" * 5000, "é\n", [], [[]], [None],
    {}, {"a": 1}, "NaN", "-", [1, "a"], -0.0, "__import__('os')", "!!python/object/apply:os.system [exit]",
]  # fmt: skip


@pytest.fixture
def directions(tiny_model: DiffusionModel) -> Directions:
    meta = DirectionsMeta(
        space="h", provenance=tiny_model.provenance(eta=1.0), model_id="tiny", method="pca",
        names=("a", "b"), unit="std",
    )  # fmt: skip
    return Directions(torch.randn(2, 3, *tiny_model.h_shape, generator=torch.Generator().manual_seed(0)), meta)


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def mutated(whole: bytes, draw: random.Random, canary: Path) -> bytes:
    """A direction file after one of the things that happen to files, or that people do to them."""
    length = int.from_bytes(whole[:8], "little")
    kind = draw.randrange(6)
    data = bytearray(whole)
    if kind == 0:  # bits of the header
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(8 + length)] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[draw.randrange(len(data)) :]
    elif kind == 2:  # a value that is not finite
        data[-4:] = b"\x00\x00\xc0\x7f"
    elif kind == 3:
        return pickle.dumps(Exploit(canary)) + bytes(data[: draw.randrange(100)])
    else:  # a header that says something else
        header = json.loads(data[8 : 8 + length])
        meta = json.loads(header["__metadata__"]["hspace"])
        if kind == 4:
            meta[draw.choice([*meta, "more"])] = draw.choice(JUNK)
            header["__metadata__"]["hspace"] = json.dumps(meta)
        else:
            header["directions"][draw.choice(["shape", "dtype", "data_offsets"])] = draw.choice([*JUNK, "F64", [2, 3]])
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + bytes(data[8 + length :])
    return bytes(data)


def test_a_thousand_mutated_direction_files_are_read_or_refused(directions: Directions, tmp_path: Path) -> None:
    path, canary, draw = tmp_path / "d.safetensors", tmp_path / "canary", random.Random(0)
    directions.save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(1000):
        path.write_bytes(mutated(whole, draw, canary))
        try:
            read = Directions.load(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
        else:
            assert read.directions.isfinite().all() and read.directions.shape == directions.directions.shape
    assert refused > 700 and not canary.exists()


def test_mutated_direction_files_are_one_line_on_the_command_line(
    directions: Directions, tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, canary, draw = tmp_path / "d.safetensors", tmp_path / "canary", random.Random(1)
    directions.save(path)
    whole = path.read_bytes()
    words = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", "method=file", f"method.path={path}"]
    words += [f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}", "device=cpu"]
    done = 0
    while done < 10:
        path.write_bytes(mutated(whole, draw, canary))
        try:
            Directions.load(path)
        except InputError:
            assert main(words) == 2
            out, err = capsys.readouterr()
            assert out == "" and err.startswith("hspace: error: ") and err.count("\n") == 1
            done += 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d.safetensors"]


def spoiled(values: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A configuration in which one key is gone, new, or something else."""
    values = copy.deepcopy(values)
    section = draw.choice([values, *(value for value in values.values() if isinstance(value, dict))])
    key = draw.choice([*section])
    kind = draw.randrange(4)
    if kind == 0:
        del section[key]
    elif kind == 1:
        section[key + draw.choice("sx_")] = section.pop(key)
    else:
        section[key] = draw.choice(JUNK)
    return values


def test_two_hundred_malformed_configurations_are_parsed_or_refused() -> None:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("config"), resolve=True)
    draw, refused = random.Random(0), 0
    for _ in range(200):
        try:
            parse(OmegaConf.create(spoiled(values, draw)))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 140


MALFORMED = [
    "edit.strengths=[1e999]", "edit.strengths={a:1}", "+edit.more=1", "~edit.strengths", "seed=${oc.env:NOTHING}",
    "method={name:pca,k:[1]}", "model.path=[1]", "name='a/../../b'", "diffusion.eta=[1,[2]]", "tracking.tags=x",
]  # fmt: skip


@pytest.mark.parametrize("word", MALFORMED)
def test_malformed_configurations_are_one_line_on_the_command_line(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hspace: error: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_installed_command_refuses_ten_of_each_in_one_line(
    directions: Directions, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    canary, draw, folder = tmp_path / "canary", random.Random(2), tmp_path / "run"
    folder.mkdir()
    directions.save(tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    mistakes = [[word] for word in MALFORMED]
    while len(mistakes) < 20:
        path = tmp_path / f"{len(mistakes)}.safetensors"
        path.write_bytes(mutated(whole, draw, canary))
        try:
            Directions.load(path)
        except InputError:
            known = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", "device=cpu"]
            mistakes.append([*known, "method=file", f"method.path={path}"])
    command = Path(sys.executable).with_name("hspace")
    for words in mistakes:
        done = subprocess.run([command, *words], cwd=folder, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.startswith("hspace: error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not canary.exists() and not list(folder.iterdir())


def test_what_does_not_fit_the_memory_is_halved(
    tiny_model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encode = type(tiny_model.denoiser).encode
    wanted = collect(tiny_model, range(10), tmp_path / "whole.npy", sampler=Sampler(batch_size=10)).open()

    def small(unet: Any, x_t: torch.Tensor, *rest: Any) -> Any:
        if len(x_t) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(unet, x_t, *rest)

    monkeypatch.setattr(type(tiny_model.denoiser), "encode", small)
    with caplog.at_level(logging.WARNING, "hspace"):
        found = collect(tiny_model, range(10), tmp_path / "halved.npy", sampler=Sampler(batch_size=10)).open()
    assert [record.args for record in caplog.records] == [(10, 5), (5, 2)]
    assert abs(found - wanted).max() < 1e-4
    with pytest.raises(InputError, match="does not hold one sample"):
        list(Batches(4)(range(2), lambda rows: small(None, torch.zeros(9))))


def test_nan_names_direction_strength_seed_and_step(tiny_model: DiffusionModel, directions: Directions) -> None:
    with pytest.raises(InputError, match=r"'b' at strength 1e\+38: the image of seed 7 became .* at step 0 \(t=\d+\)"):
        edit(
            tiny_model,
            tiny_model.latents([7]),
            directions,
            component=1,
            strengths=[0, 1e38],
            sampler=Sampler(batch_size=1),
        )


@pytest.fixture
def words(tiny_pipeline_dir: Path, tmp_path: Path) -> list[str]:
    return [
        "debug=default", f"model.path={tiny_pipeline_dir}", f"output_dir={tmp_path / 'out'}", "device=cpu",
        f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip


def test_an_output_folder_belongs_to_one_run_and_one_configuration(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == main(words) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*words, "seed=1"]) == 2 and "another configuration" in capsys.readouterr().err
    (tmp_path / "out" / "run.json").unlink()  # a finished run is used again, whoever else is there
    lock = FileLock(tmp_path / "out" / ".run.lock", thread_local=False)
    threading.Thread(target=lock.acquire).start()
    assert main(words) == 2 and "another run is writing" in capsys.readouterr().err
    lock.release()
    assert {path: path.read_bytes() for path in before if path.exists()}.items() <= before.items()
    assert main(words) == 0 and {path for path in before if not path.exists()} == set()


@pytest.mark.parametrize("key", ["output_dir", "cache_dir"])
def test_a_folder_that_cannot_be_written_is_one_line(
    words: list[str], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, f"{key}=/proc/hspace"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("hspace: error: /proc/hspace")


def test_a_cache_that_is_removed_is_made_again(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    before = (tmp_path / "out" / "tables" / "effects.csv").read_bytes()
    (tmp_path / "cache").rename(tmp_path / "gone")
    (tmp_path / "out" / "run.json").unlink()
    assert main(words) == 0
    assert (tmp_path / "out" / "tables" / "effects.csv").read_bytes() == before


def _main_read_only(words: list[str], log: Path, cache: Path) -> None:
    hold_read_only(cache)
    _main(words, log)


@pytest.mark.slow
def test_a_whole_cache_on_a_read_only_disk_serves_a_run_and_an_unfinished_one_is_one_line(
    words: list[str], tmp_path: Path
) -> None:
    assert main(words) == 0
    cache, log = tmp_path / "cache", tmp_path / "log"
    for more, code in (([f"output_dir={tmp_path / 'again'}"], 0), ([f"output_dir={tmp_path / 'other'}", "seed=1"], 2)):
        process = FORKS.Process(target=_main_read_only, args=([*words, *more], log, cache))
        process.start()
        process.join()
        assert process.exitcode == code, log.read_text()
    tables = [tmp_path / name / "tables" / "effects.csv" for name in ("out", "again")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert "Read-only file system" in log.read_text().splitlines()[-1] and "Traceback" not in log.read_text()
