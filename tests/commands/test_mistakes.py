"""Two thousand generated mistakes in settings, words and files: one line each, no traceback, nothing written elsewhere.

A hundred of them in the fast run. What is no mistake after all may run: then it must end well.
"""

import json
import os
import pickle
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import pytest
import torch
from PIL import Image

from hspace.cli import main
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.inversion import Inverted, edit_friendly_inversion
from hspace.diffusion.latents import Latents
from hspace.diffusion.photographs import load_images
from hspace.diffusion.recording import Recorded, collect
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.hub import card
from hspace.directions.masks import png_mask
from hspace.directions.record import Directions
from hspace.directions.settings import METHODS
from hspace.output.booklet import Chapter, read_record, write_report
from hspace.runs.collecting import collected_tables, read_folders
from hspace.runs.config import known_keys
from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.studio.inverting import inversion
from hspace.studio.photos import open_photo
from hspace.system.cache import entries, prune
from hspace.types import InputError

FEW = [
    "diffusion.num_steps=2", "method.k=1", "method.num_samples=4", "edit.strengths=[-1,1]", "tracking.mode=disabled",
    "evaluation.num_samples=2", "evaluation.reference_samples=8", "evaluation.calibration_samples=4", "device=cpu",
]  # fmt: skip
WORDS = [
    "null", "true", "-1", "0", "1.5", "1e30", str(10**30), "1e308", ".nan", "-.inf", "''", "' '", "a/b", "../x",
    "x" * 300, "[]", "[[]]", "[null]", "{}", "{a:1}", "[1,a]", "-0.0", "'$x'", "'é'", "'=1'", "'<b>'", "'a:b'",
    "hub:x", "clip:a/b", "'__import__(\"os\")'", "${oc.env:NOTHING}", "${seed}", "[1e300]", "[0]", "'C:\\x'", "~",
    "/proc/self", "/dev/null", "[" * 200 + "]" * 200, "'\\x00'", "a\tb", "@", "!!python/object/apply:os.system",
    "portraits-annotator", "[0.2,0.2,0.8,0.8]", "3",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 10**30, 2 * 10**7, 1e308, float("nan"), float("inf"), "", " ", "../x", "/etc/passwd",
    "x" * 5000, "é\n", "<b>", "=1", "$x^", [], [[]], [None], {}, {"a": 1}, "NaN", [1, "a"], -0.0, "__import__('os')",
    [1] * 1000, "linear", 7, 3, 1, [3, 5],
]  # fmt: skip
OPTIONS = {
    "edit": {
        "--strength": ["1e300", "nan", "-1e30", "0"], "--direction": ["nowhere", ":", ":9", "hub:a/b", "hub:"],
        "--keep-outside": ["a,b,c,d", "1,1,0,0", "nan,0,1,1", "nowhere.png", "hair", "0,0,2,2", "0,0,.5,.5"],
        "--animation": ["webp", "mp4"], "--output": ["/dev/null"], "--inversions": ["/dev/null"],
    },
    "range": {"--most": ["1e300", "nan", "-1", "0", "3"], "--others": ["-1", "nan", "inf"], "--samples": ["1", "10"]},
    "calibrate": {"--attribute": ["smile", "no", "$x"], "--effect": ["nan", "1e300", "0"], "--samples": ["1", "12"]},
    "invert": {"--inversions": ["/dev/null"]},
    "directions": {"--direction": ["nowhere"]},
    "push": {"--strip": ["nowhere.png", "/dev/null"]},
}  # fmt: skip
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.symlink", "os.link", "os.chmod")


class Watch:
    """Sees what this process writes and starts while it is on; an audit hook cannot be taken off again."""

    def __init__(self) -> None:
        self.roots: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.roots:
            return
        opened = event == "open" and isinstance(arguments[2], int)
        if (opened and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or event in CHANGES:
            self._judge(event, arguments[0])
        elif event in STARTS and "git" not in str(arguments):
            self.seen.append(f"{event} {arguments}")

    def _judge(self, event: str, path: Any) -> None:
        """Names relative to a folder's descriptor are of a folder that was judged when it was opened."""
        if isinstance(path, int) or (event != "open" and not os.path.isabs(os.fsdecode(path))):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith((*self.roots, "/dev/", "/proc/")):
            self.seen.append(f"{event} {path!r}")


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


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


def spoiled_tensors(whole: bytes, draw: random.Random) -> bytes:
    """A safetensors file with another header, or with other facts of ours in it."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    facts = header.get("__metadata__", {})
    if "hspace" in facts and draw.random() < 0.7:
        facts["hspace"] = spoiled_json(facts["hspace"].encode(), draw).decode(errors="replace")
        text = json.dumps(header).encode()
    else:
        text = spoiled_json(whole[8 : 8 + length], draw)
    return len(text).to_bytes(8, "little") + text + whole[8 + length :]


def spoiled_bytes(whole: bytes, draw: random.Random) -> bytes:
    data = bytearray(whole)
    if draw.random() < 0.3:
        return bytes(data[: draw.randrange(len(data))])
    if draw.random() < 0.1:
        return b""
    for _ in range(draw.randrange(1, 5)):
        data[draw.randrange(min(len(data), 2000))] = draw.randrange(256)
    return bytes(data)


def spoil(path: Path, draw: random.Random) -> None:
    """The file is spoiled, gone, a folder, a pickle that runs code, or a link to nowhere."""
    kind, whole = draw.randrange(20), path.read_bytes()
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.with_suffix(draw.choice([path.suffix, ".bin"])).write_bytes(
            pickle.dumps(Exploit(Path("canary").resolve()))
        )
    elif kind == 2:
        path.symlink_to("nowhere")
    elif kind > 3:
        change = {".json": spoiled_json, ".safetensors": spoiled_tensors}.get(path.suffix, spoiled_bytes)
        path.write_bytes((change if draw.random() < 0.8 else spoiled_bytes)(whole, draw))


def spoiled(whole: Path, copy: Path, draw: random.Random) -> Path:
    """A copy of a folder with one file spoiled."""
    shutil.copytree(whole, copy)
    spoil(draw.choice(sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)), draw)
    return copy


Case = Callable[[random.Random, Path], int]
Read = Callable[[Path], object]


@pytest.fixture(scope="module")
def files(tiny_model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Read]]:
    """A whole file of each kind, beside it what belongs to it, and what reads it."""
    root = tmp_path_factory.mktemp("files")
    latents = tiny_model.latents([3])
    latents.save(root / "latents" / "a.safetensors")
    scorer = load_scorer("portraits-annotator")
    annotate(tiny_model, range(2), scorer).save(root / "annotations" / "a.safetensors")
    inverted = edit_friendly_inversion(tiny_model, torch.zeros(1, 3, 16, 16), seeds=[0])
    inverted.save(root / "inverted" / "a.safetensors")
    (root / "recorded").mkdir()
    collect(tiny_model, range(2), root / "recorded" / "a.npy").save()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    readers: dict[str, Read] = {
        "latents/a.safetensors": Latents.load, "annotations/a.safetensors": Annotations.load,
        "inverted/a.safetensors": Inverted.load, "recorded/a.npy": Recorded.load, "mask/a.png": read_mask,
        **dict.fromkeys((f"photo/a.{kind}" for kind in ("png", "jpg", "tif", "bmp", "webp")), read_photograph),
    }  # fmt: skip
    for name in readers:
        if not (root / name).exists():
            (root / name).parent.mkdir(exist_ok=True)
            Image.fromarray(noise).save(root / name)
    photo = open_photo(root / "photo" / "a.png", (16, 16))
    inversion(tiny_model, photo, 1.0, root / "kept")
    (kept,) = (path for path in (root / "kept").iterdir() if ".image" not in path.name)
    found = [(root / name, read) for name, read in readers.items()]
    return [*found, (kept, lambda path: inversion(tiny_model, photo, 1.0, path.parent))]


def read_mask(path: Path) -> object:
    return png_mask(path, (16, 16))


def read_photograph(path: Path) -> object:
    return load_images([path], (16, 16))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run without mistakes, and of pipelines."""
    return tmp_path_factory.mktemp("done")


@pytest.fixture(scope="module")
def cases(
    tiny_pipeline_dir: Path,
    tiny_clip_dir: Path,
    tiny_parser_dir: Path,
    tiny_backbone_dir: Path,
    make_classifier: Callable[..., Path],
    files: list[tuple[Path, Read]],
    done: Path,
) -> dict[str, Case]:
    """Each kind of mistake: makes one in a folder, and gives the exit code, or raises what is not ours."""
    tiny = [*FEW, f"model.path={tiny_pipeline_dir}"]
    assert main([*tiny, f"output_dir={done / 'out'}", f"cache_dir={done / 'cache'}"]) == 0
    found = done / "out" / "directions.safetensors"
    photo = next(str(path) for path, _ in files if path.suffix == ".jpg")
    files = [*files, (found, Directions.load), (found, lambda path: card(Directions.load(path), "a/b"))]
    networks: list[tuple[Path, Callable[[str], Any]]] = [
        (tiny_clip_dir, lambda name: load_scorer(f"clip:{name}")),
        (make_classifier(["a", "b"]), lambda name: load_scorer(f"hub:{name}")),
        (tiny_backbone_dir, lambda name: load_identity(f"hub:{name}")),
        (tiny_parser_dir, lambda name: load_regions(f"hub:{name}")),
    ]

    def run(words: list[str], folder: Path) -> int:
        return main([*words, f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"])

    def setting(draw: random.Random, folder: Path) -> int:
        method = draw.choice(["pca", *METHODS.names()])
        keys = [*known_keys(), *(f"method.{key}" for key in METHODS.get(method).settings.model_fields)]
        word = f"{draw.choice(keys)}={draw.choice(WORDS)}"
        own = [f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}", f"method={method}"]
        return main([*tiny, *own, *draw.choice([[], ["experiment=fig3"]]), word])

    def option(draw: random.Random, folder: Path) -> int:
        command, own = draw.choice([*OPTIONS, "edit"]), str(shutil.copy(found, folder))
        name = draw.choice(list(OPTIONS[command]))
        value = draw.choice([*OPTIONS[command][name], *draw.sample(WORDS, 2)])
        inputs = [["3"], ["9" * 18], ["nowhere"], [photo], [own], ["a/b", own], []]
        given = (
            {"--output": str(folder / "out"), "--inversions": str(folder / "inversions")} if command == "edit" else {}
        )
        given |= {"--direction": own} if command in ("edit", "range", "calibrate") else {}
        given |= {"--attribute": "smile"} if command == "calibrate" else {}
        options = [f"{key}={value}" for key, value in (given | {name: value}).items()]
        useful = [] if command in ("range", "calibrate") else draw.choice(inputs)
        return main([command, *options, *useful, *tiny, f"cache_dir={folder / 'cache'}"])

    def pipeline(draw: random.Random, folder: Path) -> int:
        name = draw.choice(list(pipelines.PIPELINES)[: draw.choice([5, 10])])
        copy = spoiled(pipelines.save(name, done / name), folder / "model", draw)
        prompt = [f"model.prompt='{pipelines.PROMPTS[name]}'"] if name in pipelines.PROMPTS else []
        return run([*FEW, f"model.path={copy}", *prompt], folder)

    def network(draw: random.Random, folder: Path) -> int:
        whole, load = draw.choice(networks)
        load(str(spoiled(whole, folder / "network", draw)))(torch.zeros(1, 3, 16, 16))
        return 0

    def file(draw: random.Random, folder: Path) -> int:
        whole, read = draw.choice(files)
        copies = [Path(shutil.copy(each, folder)) for each in whole.parent.glob(f"{whole.stem}.*")]
        spoil(draw.choice(sorted(copies)), draw)
        read(folder / whole.name)
        return 0

    def result(draw: random.Random, folder: Path) -> int:
        out = spoiled(done / "out", folder / "out", draw)
        code = main([*tiny, f"output_dir={out}", f"cache_dir={done / 'cache'}"])
        collected_tables(read_folders([out, done / "out"]))
        write_report([Chapter("a", read_record(out / "run.json"), "out", "hspace")], folder)
        return code

    def cache(draw: random.Random, folder: Path) -> int:
        copy = spoiled(done / "cache", folder / "cache", draw)
        entries(copy)
        code = run(tiny, folder)
        prune(copy)
        return code

    return {
        "setting": setting, "option": option, "pipeline": pipeline, "network": network, "file": file, "result": result,
        "cache": cache,
    }  # fmt: skip


SHARES = {"setting": 8, "option": 3, "pipeline": 5, "network": 3, "file": 5, "result": 1, "cache": 1}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of modules that a command imports first
    yield here


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "numbers", [range(100), *(pytest.param(range(n, n + 100), marks=pytest.mark.slow) for n in range(100, 2000, 100))]
)
def test_mistakes_are_one_line(
    numbers: range, cases: dict[str, Case], done: Path, watch: Watch, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused, wrong = 0, []
    for number in numbers:
        draw = random.Random(number)
        (kind,) = draw.choices(list(SHARES), list(SHARES.values()))
        folder = home / str(number)
        folder.mkdir()
        watch.roots, watch.seen = (str(home.parent), str(done), os.environ["HSPACE_CACHE"]), []
        try:
            code = cases[kind](draw, folder)
        except (InputError, OSError) as error:
            code = 2
            if "\n" in str(error):
                wrong.append(f"{kind} {number}: several lines: {error}")
        except Exception as error:
            code = None
            wrong.append(f"{kind} {number}: {type(error).__name__}: {error}")
        watch.roots = ()
        _, err = capfd.readouterr()
        refused += code == 2
        problems = [line for line in err.splitlines() if "error: " in line]
        if code not in (0, 2, None) or len(problems) > 1 or "Traceback" in err:
            wrong.append(f"{kind} {number}: exit code {code}: {err}")
        wrong += [f"{kind} {number}: {seen}" for seen in watch.seen]
        assert not (home / "canary").exists(), f"{kind} {number} ran code"
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)
    assert refused > 0.5 * len(numbers)
