"""Two thousand generated mistakes in settings and files: one line each, no traceback, nothing written elsewhere.

A hundred of them in the fast run. What is no mistake after all may run: then it must end well.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hspace.cli import main
from hspace.directions.record import Directions
from hspace.output.booklet import read_record
from hspace.runs.collecting import collected_table, read_folders
from hspace.runs.config import known_keys
from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.system.cache import entries, prune
from hspace.types import InputError

FEW = [
    "diffusion.num_steps=2", "method.k=1", "method.num_samples=4", "evaluation.num_samples=2",
    "edit.strengths=[-1,1]", "tracking.mode=disabled", "device=cpu", "model=local",
]  # fmt: skip
WORDS = [
    "null", "true", "-1", "0", "1.5", "1e30", str(10**30), "1e308", ".nan", "-.inf", "''", "' '", "a/b", "../x", "/",
    "x" * 300,
    "[]", "[[]]", "[null]", "{}", "{a:1}", "[1,a]", "-0.0", "'$x'", "'é'", "'=1'", "'<b>'", "'a:b'", "hub:x",
    "clip:a/b",
    "'__import__(\"os\")'", "${oc.env:NOTHING}", "${seed}", "[1e300]", "[0]", "'C:\\x'", "~", "/proc/self", "/dev/null",
    "[" * 200 + "]" * 200, "'\\x00'", "a\tb", "@", "!!python/object/apply:os.system",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 10**30, 2 * 10**7, 1e308, float("nan"), float("inf"), "", " ", "../x", "/etc/passwd",
    "x" * 5000,
    "é\n", [], [[]], [None], {}, {"a": 1}, "NaN", [1, "a"], -0.0, "__import__('os')", [1] * 1000, "linear", 7, 3, 1,
    [3, 5],
]  # fmt: skip
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class")


class Watch:
    """Sees what this process writes and starts while it is on; an audit hook cannot be taken off again."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not os.path.abspath(arguments[0]).startswith((str(self.root), "/dev/", "/proc/")):
                self.seen.append(f"writes {arguments[0]}")
        elif event in FORBIDDEN and "git" not in str(arguments):
            self.seen.append(f"{event} {arguments}")


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def nested(draw: random.Random) -> bytes:
    return draw.choice([b"[" * 100_000, b'{"a":' * 100_000, b"[" * 900 + b"]" * 900])


def spoiled_json(whole: bytes, draw: random.Random) -> bytes:
    """A JSON file in which one value somewhere is gone or something else; or no such file at all."""
    kind = draw.randrange(10)
    if kind == 0:
        return nested(draw)
    if kind == 1:
        return whole[: draw.randrange(len(whole))]
    if kind == 2:
        return draw.choice([b"", b"\xff\xfe\x00", b"null", b"3", b"[]", b'"text"', b"{}", b"9" * 5000])
    values = json.loads(whole)
    place = values
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return json.dumps(draw.choice(VALUES)).encode()
        key = draw.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.7:
            place = place[key]
            continue
        if draw.random() < 0.2:
            del place[key]
        else:
            place[key] = draw.choice(VALUES)
        return json.dumps(values).encode()


def spoiled_bytes(whole: bytes, draw: random.Random) -> bytes:
    data = bytearray(whole)
    if draw.random() < 0.3:
        return bytes(data[: draw.randrange(len(data))])
    if draw.random() < 0.1:
        return b""
    for _ in range(draw.randrange(1, 5)):
        data[draw.randrange(min(len(data), 2000))] = draw.randrange(256)
    return bytes(data)


def spoil(folder: Path, draw: random.Random) -> None:
    """One file of a folder is spoiled, gone, or a folder."""
    path = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    kind = draw.randrange(12)
    whole = path.read_bytes()
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind > 1:
        path.write_bytes((spoiled_json if path.suffix == ".json" else spoiled_bytes)(whole, draw))


Case = Callable[[random.Random, Path], int]


@pytest.fixture(scope="module")
def cases(
    tiny_pipeline_dir: Path,
    tiny_ldm_dir: Path,
    tiny_sd_dir: Path,
    tiny_clip_dir: Path,
    tiny_parser_dir: Path,
    tiny_backbone_dir: Path,
    make_classifier: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Case]:
    """Each kind of mistake: makes one in a folder, and gives the exit code, or raises what is not ours."""
    done = tmp_path_factory.mktemp("done")
    given = [*FEW, f"model.path={tiny_pipeline_dir}", f"output_dir={done / 'out'}", f"cache_dir={done / 'cache'}"]
    assert main(given) == 0
    (done / "records").mkdir()
    shutil.copy(done / "out" / "run.json", done / "records" / "run.json")

    def setting(draw: random.Random, folder: Path) -> int:
        word = f"{draw.choice(known_keys())}={draw.choice(WORDS)}"
        more = draw.choice([[], ["method=supervised"], ["method=jacobian", "~method.num_samples"], ["experiment=fig3"]])
        own = [f"model.path={tiny_pipeline_dir}", f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"]
        return main([*FEW, *own, *more[:1], word])

    def pipeline(draw: random.Random, folder: Path) -> int:
        copy = shutil.copytree(draw.choice([tiny_pipeline_dir, tiny_ldm_dir, tiny_sd_dir]), folder / "model")
        spoil(copy, draw)
        return main([*FEW, f"model.path={copy}", f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"])

    def network(draw: random.Random, folder: Path) -> int:
        clip = (tiny_clip_dir, lambda name: load_scorer(f"clip:{name}"))
        hub = (make_classifier(["a", "b"]), lambda name: load_scorer(f"hub:{name}"))
        features = (tiny_backbone_dir, lambda name: load_identity(f"hub:{name}"))
        parser = (tiny_parser_dir, lambda name: load_regions(f"hub:{name}"))
        whole, load = draw.choice([clip, hub, features, parser])
        copy = shutil.copytree(whole, folder / "network")
        spoil(copy, draw)
        load(str(copy))(torch.zeros(1, 3, 16, 16))
        return 0

    def directions(draw: random.Random, folder: Path) -> int:
        path = Path(shutil.copy(done / "out" / "directions.safetensors", folder))
        path.write_bytes(spoiled_bytes(path.read_bytes(), draw))
        Directions.load(path)
        return 0

    def record(draw: random.Random, folder: Path) -> int:
        copy = shutil.copytree(done / "records", folder / "records")
        spoil(copy, draw)
        collected_table(read_folders([copy]))
        read_record(copy / "run.json")
        return 0

    def cache(draw: random.Random, folder: Path) -> int:
        copy = shutil.copytree(done / "cache", folder / "cache")
        spoil(copy, draw)
        entries(copy)
        code = main([*FEW, f"model.path={tiny_pipeline_dir}", f"output_dir={folder / 'out'}", f"cache_dir={copy}"])
        prune(copy)
        return code

    def mask(draw: random.Random, folder: Path) -> int:
        path = folder / "mask.png"
        Image.fromarray(np.full((16, 16), 255, np.uint8)).save(path)
        path.write_bytes(spoiled_bytes(path.read_bytes(), draw))
        own = [f"model.path={tiny_pipeline_dir}", f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"]
        words = [word for word in FEW if "num_samples=4" not in word]
        return main([*words, *own, "method=jacobian", f"method.mask={path}"])

    return {
        "setting": setting, "pipeline": pipeline, "network": network, "directions": directions, "record": record,
        "cache": cache, "mask": mask,
    }  # fmt: skip


SHARES = {"setting": 8, "pipeline": 5, "network": 3, "directions": 2, "record": 1, "cache": 1, "mask": 0.3}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "numbers", [range(100), *(pytest.param(range(n, n + 100), marks=pytest.mark.slow) for n in range(100, 2000, 100))]
)
def test_mistakes_are_one_line(
    numbers: range, cases: dict[str, Case], watch: Watch, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused, wrong = 0, []
    for number in numbers:
        draw = random.Random(number)
        (kind,) = draw.choices(list(SHARES), list(SHARES.values()))
        folder = home / str(number)
        folder.mkdir()
        watch.root, watch.seen = home.parent, []
        try:
            code = cases[kind](draw, folder)
        except (InputError, OSError) as error:
            code = 2
            if "\n" in str(error):
                wrong.append(f"{kind} {number}: several lines: {error}")
        except Exception as error:
            code = None
            wrong.append(f"{kind} {number}: {type(error).__name__}: {error}")
        watch.root = None
        _, err = capfd.readouterr()
        refused += code == 2
        problems = [line for line in err.splitlines() if "error: " in line]
        if code not in (0, 2, None) or len(problems) > 1 or "Traceback" in err:
            wrong.append(f"{kind} {number}: exit code {code}: {err}")
        wrong += [f"{kind} {number}: {seen}" for seen in watch.seen]
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)
    assert refused > 0.5 * len(numbers)
