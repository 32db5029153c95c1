"""Nothing stale is used: every file that a result depends on counts by content, and changed back it is found again."""

import csv
import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import move_tensor, set_value, swap_words
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from pydantic import Field

from hspace.cli import main
from hspace.commands.run import load
from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.directions import shipped
from hspace.directions.method import Method, get_method
from hspace.directions.record import Directions
from hspace.directions.settings import METHODS, Settings
from hspace.directions.shipped import ready_path
from hspace.runs import keys
from hspace.runs.discovery import RunSources
from hspace.runs.parsing import parse
from hspace.runs.report import key_of
from hspace.system.files import package_path
from hspace.types import InputError

FOLDERS = {
    "pixel": "tiny_pipeline_dir", "latent": "tiny_ldm_dir", "text": "tiny_sd_dir", "scorer": "tiny_scorer_dir",
    "clip": "tiny_clip_dir", "backbone": "tiny_backbone_dir", "parser": "tiny_parser_dir",
}  # fmt: skip
"""Folders of networks, and the fixtures that make them."""
TINY = ["debug=default", "device=cpu", "diffusion.num_steps=3", "tracking.mode=disabled"]


@pytest.fixture(scope="session")
def tiny_scorer_dir(make_classifier: Callable[..., Path]) -> Path:
    """An image classifier of the hub's kind, with two labels."""
    return make_classifier(["smile", "hat"], "multi_label_classification")


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a configuration can name; who changes something changes it back."""
    world = tmp_path_factory.mktemp("stale") / "world"
    for name, fixture in FOLDERS.items():
        shutil.copytree(request.getfixturevalue(fixture), world / name)
    Image.new("L", (16, 16), 255).save(world / "mask.png")
    model = load_model(str(world / "pixel"), num_steps=3, device="cpu")
    vectors = torch.randn(1, *model.h_shape, generator=torch.Generator().manual_seed(0))
    Directions.of(model, vectors, eta=1.0).save(world / "directions.safetensors")
    for expression in ("smile", "neutral"):
        (world / "pairs" / expression).mkdir(parents=True)
        Image.new("RGB", (16, 16), (200, 100, 50)).save(world / "pairs" / expression / "a.png")
    return world


@contextmanager
def changed(path: Path, change: Callable[[Path], None]) -> Iterator[None]:
    """Something else in a file; at the end what was there before."""
    kept = path.read_bytes()
    try:
        change(path)
        assert path.read_bytes() != kept
        yield
    finally:
        path.write_bytes(kept)


@cache
def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return compose("config", overrides=[*TINY, *words])


def key(world: Path, words: list[str]) -> str:
    return key_of(load(parse(composed(*(word.replace("WORLD", str(world)) for word in words)))))


@cache
def unchanged_key(world: Path, *words: str) -> str:
    return key(world, list(words))


def setting(**changes: Any) -> Callable[[Path], None]:
    return partial(set_value, **changes)


def inner_setting(part: str, **changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        values = json.loads(path.read_text())
        values[part] |= changes
        path.write_text(json.dumps(values))

    return change


def painted(path: Path) -> None:
    image = Image.open(path)
    image.putpixel((3, 3), 0 if image.mode == "L" else (0, 0, 0))
    image.save(path)


def moved(path: Path) -> None:
    directions = Directions.load(path)
    directions.directions[0, 0].view(-1)[0] += 1
    directions.save(path)


PIXEL = ["model=local", "model.path=WORLD/pixel"]
LATENT = ["model=local", "model.path=WORLD/latent"]
TEXT = ["model=local", "model.path=WORLD/text", "model.prompt=a man"]
SCORER = [*PIXEL, "evaluation.judge=hub:WORLD/scorer"]
CLIP = [*PIXEL, "evaluation.judge=clip:WORLD/clip"]
BACKBONE = [*PIXEL, "evaluation.identity=hub:WORLD/backbone"]
PARSER = [*PIXEL, "evaluation.regions=hub:WORLD/parser"]
CASES: list[tuple[str, list[str], Callable[[Path], None]]] = [
    ("pixel/unet/diffusion_pytorch_model.safetensors", PIXEL, move_tensor),
    ("pixel/unet/config.json", PIXEL, setting(norm_eps=1e-3)),
    ("pixel/scheduler/scheduler_config.json", PIXEL, setting(beta_end=0.01)),
    ("latent/unet/diffusion_pytorch_model.safetensors", LATENT, move_tensor),
    ("latent/unet/config.json", LATENT, setting(act_fn="gelu")),
    ("latent/vqvae/diffusion_pytorch_model.safetensors", LATENT, move_tensor),
    ("latent/vqvae/config.json", LATENT, setting(scaling_factor=0.5)),
    ("latent/scheduler/scheduler_config.json", LATENT, setting(prediction_type="v_prediction")),
    ("text/unet/diffusion_pytorch_model.safetensors", TEXT, move_tensor),
    ("text/unet/config.json", TEXT, setting(norm_eps=1e-3)),
    ("text/vae/diffusion_pytorch_model.safetensors", TEXT, move_tensor),
    ("text/vae/config.json", TEXT, setting(scaling_factor=0.5)),
    ("text/text_encoder/model.safetensors", TEXT, move_tensor),
    ("text/text_encoder/config.json", TEXT, setting(hidden_act="gelu")),
    ("text/tokenizer/tokenizer_config.json", TEXT, setting(model_max_length=7)),
    ("text/tokenizer/tokenizer.json", TEXT, swap_words),
    ("text/scheduler/scheduler_config.json", TEXT, setting(beta_end=0.01)),
    ("scorer/model.safetensors", SCORER, move_tensor),
    ("scorer/config.json", SCORER, setting(id2label={"0": "hat", "1": "smile"})),
    ("scorer/preprocessor_config.json", SCORER, setting(image_mean=[0.1, 0.2, 0.3])),
    ("clip/model.safetensors", CLIP, move_tensor),
    ("clip/config.json", CLIP, inner_setting("vision_config", hidden_act="gelu")),
    ("clip/preprocessor_config.json", CLIP, setting(image_mean=[0.1, 0.2, 0.3])),
    ("clip/tokenizer.json", CLIP, swap_words),
    ("backbone/model.safetensors", BACKBONE, move_tensor),
    ("backbone/config.json", BACKBONE, setting(layer_norm_eps=1e-2)),
    ("backbone/preprocessor_config.json", BACKBONE, setting(do_normalize=False)),
    ("parser/model.safetensors", PARSER, move_tensor),
    ("parser/config.json", PARSER, setting(id2label={str(i): f"part {i}" for i in range(5)})),
    ("parser/preprocessor_config.json", PARSER, setting(rescale_factor=0.01)),
    ("mask.png", [*PIXEL, "method=jacobian", "method.steps=[1]", "method.mask=WORLD/mask.png"], painted),
    ("directions.safetensors", [*PIXEL, "method=file", "method.path=WORLD/directions.safetensors"], moved),
    ("pairs/smile/a.png", [*PIXEL, "dataset=folder", "dataset.path=WORLD/pairs"], painted),
]  # fmt: skip


@pytest.mark.parametrize(("file", "words", "change"), CASES, ids=[file for file, *_ in CASES])
def test_a_changed_file_makes_another_key_and_changed_back_the_same(
    world: Path, file: str, words: list[str], change: Callable[[Path], None]
) -> None:
    before = unchanged_key(world, *words)
    with changed(world / file, change):
        assert key(world, words) != before
    assert key(world, words) == before


def test_every_file_that_is_read_has_a_case(world: Path) -> None:
    # Of these an index says nothing but the classes of the parts, and prompts of CLIP as a scorer are never cut.
    unread = {"pairs/neutral/a.png", "clip/tokenizer_config.json"}
    files = {path.relative_to(world).as_posix() for path in world.rglob("*") if path.is_file()}
    expected = {file for file in files - unread if Path(file).name != "model_index.json"}
    assert expected == {file for file, *_ in CASES}


@pytest.fixture
def ready_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped directions that may be changed, in their place."""
    copy = tmp_path / "weights" / "portraits" / "directions.safetensors"
    copy.parent.mkdir(parents=True)
    shutil.copy(ready_path("portraits"), copy)
    monkeypatch.setattr(shipped, "package_path", lambda name: tmp_path / name)
    return copy


@pytest.mark.parametrize("words", [["method=ready"], ["experiment=demo"]])
def test_ready_made_directions_count_by_content_and_by_who_annotated(ready_made: Path, words: list[str]) -> None:
    words = [*words, "diffusion.num_steps=10"]
    lab = load(parse(composed(*words)))
    before = key_of(lab)
    with changed(ready_made, moved):
        assert key_of(lab) != before
    assert key_of(lab) == before
    swapped = ["evaluation.annotator=portraits-judge", "evaluation.judge=portraits-annotator"]
    with pytest.raises(InputError, match="portraits-annotator, which annotated for these directions"):
        load(parse(composed(*words, *swapped)))
    lab = load(parse(composed(*words, *swapped, "evaluation.allow_same_scorer=true")))
    assert lab.judge_name == "portraits-annotator (NOT INDEPENDENT: also the annotator)"


def test_the_code_of_a_strangers_measure_counts(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = "from hspace.evaluation.measures import measure\n@measure('one', unit='', higher_is_better=None)\n"
    (tmp_path / "measure_of_a_stranger.py").write_text(f"{code}def one(edited):\n    return 1.0\n")
    words = ["model=local", f"model.path={world / 'pixel'}", "evaluation.measures=[measure_of_a_stranger:one]"]
    before = key_of(load(parse(composed(*words))))
    (tmp_path / "measure_of_a_stranger.py").write_text(f"{code}def one(edited):\n    return 2.0\n")
    assert key_of(load(parse(composed(*words)))) != before


def five(path: Path) -> None:
    path.write_text("5")


class Offsets(Settings):
    """Settings that name files in every way that a stranger may."""

    folder: Path = Path()
    """Folder of tensors."""
    parts: dict[str, list[Path]] = Field(default_factory=dict)
    """Files by kind."""
    text: str = ""
    """A file as a text."""


def test_every_file_that_a_strangers_settings_name_counts_for_the_run_and_for_the_directions(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("folder/a.pt", "b.pt", "c.txt")]
    files[0].parent.mkdir()
    for file in files:
        file.write_text("1")

    def find(model: DiffusionModel, sources: Any, settings: Offsets) -> Directions:
        """The sum of the numbers in all files."""
        total = sum(float(file.read_text()) for file in files)
        return Directions.of(model, torch.full((1, *model.h_shape), total))

    monkeypatch.setitem(METHODS._registered, "offsets", Method("offsets", find, Offsets, frozenset(), samples=False))
    words = ["model=local", f"model.path={world / 'pixel'}", f"cache_dir={tmp_path / 'cache'}", "method=pca"]
    settings = Offsets(name="offsets", folder=files[0].parent, parts={"a": [files[1]]}, text=str(files[2]))
    lab = load(parse(composed(*words)))
    lab = replace(lab, cfg=replace(lab.cfg, method=settings))
    first, key = lab.discover(), key_of(lab)
    assert float(first.directions.mean()) == 3
    for file in files:
        with changed(file, five):
            assert float(lab.discover().directions.mean()) == 7 and key_of(lab) != key
    assert key_of(lab) == key


def test_what_is_read_in_another_order_is_not_that_of_the_first(world: Path, tmp_path: Path) -> None:
    words = (f"model.path={world / 'pixel'}", f"cache_dir={tmp_path / 'cache'}")
    lab = load(parse(composed(*words)))
    edits = {name: size * torch.ones(3, *lab.model.h_shape) for name, size in (("little", 0.1), ("much", 2.0))}
    first, again = (lab.read(dict(each), range(2_000_000, 2_000_004)) for each in (edits, reversed(edits.items())))
    assert first.names == ("little", "much") and again.names == ("much", "little")
    assert torch.allclose(first.edited, again.edited.flip(0)) and not torch.allclose(first.edited[0], first.edited[1])


def test_a_window_of_edits_is_not_one_of_discovery(world: Path) -> None:
    cfg = parse(composed(f"model.path={world / 'pixel'}", "edit.start=1", "edit.stop=2"))
    lab = load(cfg)
    sampler = RunSources(cfg, lab.model, lab.annotator, get_method("pca")).sampler
    assert (cfg.sampler.start, cfg.sampler.stop) == (1, 2) and (sampler.start, sampler.stop) == (0, None)


def test_a_stages_version_counts(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = load(parse(composed("model=local", f"model.path={world / 'pixel'}")))
    before = key_of(lab)
    for stage in keys.VERSIONS:
        with monkeypatch.context() as patch:
            patch.setitem(keys.VERSIONS, stage, 99)
            assert key_of(lab) != before
    assert key_of(lab) == before


# The command line, the file that is changed, and how.
RUNS: dict[str, tuple[list[str], str, Callable[[Path], None]]] = {
    "run-text-encoder": (TEXT, "text/text_encoder/model.safetensors", move_tensor),
    "run-vocabulary": (TEXT, "text/tokenizer/tokenizer.json", swap_words),
    "run-judge": (SCORER, "scorer/model.safetensors", move_tensor),
    "run-labels": (SCORER, "scorer/config.json", setting(id2label={"0": "hat", "1": "smile"})),
    "run-mask": (
        [*PIXEL, "method=jacobian", "method.steps=[1]", "method.mask=WORLD/mask.png"], "mask.png", painted,
    ),
    "run-directions": (
        [*PIXEL, "method=file", "method.path=WORLD/directions.safetensors"], "directions.safetensors", moved,
    ),
    "fig3-autoencoder": ([*LATENT, "experiment=fig3"], "latent/vqvae/diffusion_pytorch_model.safetensors", move_tensor),
    "fig3-scheduler": ([*PIXEL, "experiment=fig3"], "pixel/scheduler/scheduler_config.json", setting(beta_end=0.01)),
    "fig17-pairs": (
        [*PIXEL, "experiment=fig17", "dataset=folder", "dataset.path=WORLD/pairs"], "pairs/smile/a.png", painted,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", RUNS)
def test_nothing_stale_is_used_and_changed_back_nothing_is_made_again(world: Path, tmp_path: Path, case: str) -> None:
    words, file, change = RUNS[case]
    command = [word.replace("WORLD", str(world)) for word in (*TINY, *words)]
    # Under ten samples no effect has a value.
    command += ["evaluation.num_samples=12", f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"]

    def outcome() -> dict[str, bytes]:
        assert main(command) == 0
        files = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".csv", ".png", ".safetensors")]
        return {path.name: path.read_bytes() for path in files}

    def kept() -> set[Path]:
        return {path for path in (tmp_path / "cache").glob("*/*") if path.is_dir()}

    first, before = outcome(), kept()
    with changed(world / file, change):
        assert outcome() != first
        both = kept()
        assert both > before
    assert outcome() == first and kept() == both


@pytest.mark.slow
def test_a_sweep_runs_again_what_is_not_current_and_nothing_else(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "sweep"
    command = [
        "-m", *TINY, f"model.path={world / 'pixel'}", f"cache_dir={tmp_path / 'cache'}", f"hydra.sweep.dir={root}",
        "method=pca", "seed=0,1", "evaluation.num_samples=12",
    ]  # fmt: skip

    def runs() -> list[dict[str, Any]]:
        caplog.clear()
        assert main(command) == 0, capsys.readouterr().err
        return [json.loads(path.read_text()) for path in sorted(root.glob("*/run.json"))]

    first = runs()
    # Each seed has discovery samples of its own, and the table says how much that changes.
    blocks = [record["seeds"]["discovery"] for record in sorted(first, key=lambda record: record["config"]["seed"])]
    assert blocks == [{"first": 0, "count": 20}, {"first": 20, "count": 20}]
    with (root / "collected_seeds.csv").open() as file:
        (row,) = csv.DictReader(file)
    figure, *_ = [name for name in row if f"{name} sd" in row and row[name]]
    values = [record["findings"][figure] for record in first]
    assert row["n"] == "2" and float(row[figure]) == pytest.approx(statistics.fmean(values))
    assert float(row[f"{figure} sd"]) == pytest.approx(statistics.stdev(values)) and values[0] != values[1]
    kept = {path: path.stat().st_mtime_ns for path in root.glob("*/run.json")}
    assert runs() == first and {path: path.stat().st_mtime_ns for path in kept} == kept

    lost = min(kept)
    lost.unlink()
    assert len(runs()) == 2
    figure = next(min(kept).parent.glob("figures/*.png"))
    figure.unlink()
    runs()
    assert figure.is_file()

    with changed(world / "pixel" / "unet" / "config.json", setting(norm_eps=1e-2)):
        others = runs()
        assert {record["key"] for record in others}.isdisjoint({record["key"] for record in first})
        assert others[0]["findings"] != first[0]["findings"]
        entries = {path for path in (tmp_path / "cache").glob("*/*") if path.is_dir()}
    back = runs()
    assert [record["findings"] for record in back] == [record["findings"] for record in first]
    assert {path for path in (tmp_path / "cache").glob("*/*") if path.is_dir()} == entries


def test_two_sweeps_at_once_do_not_share_a_folder(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "sweep"
    root.mkdir()
    with FileLock(root / ".sweep.lock"):
        assert main(["-m", *TINY, f"model.path={world / 'pixel'}", f"hydra.sweep.dir={root}", "seed=0,1"]) == 2
    assert capsys.readouterr().err == (
        f"hspace: error: another process runs the sweep in {root}: wait for it, or set hydra.sweep.dir\n"
    )
    assert [path.name for path in root.iterdir()] in ([], [".sweep.lock"])


def test_a_seed_beyond_the_discovery_range_is_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *TINY, f"model.path={world / 'pixel'}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    assert main([*words, "seed=200000", "method.num_samples=6"]) == 2
    assert "seed must be at most 166665 for 6 discovery samples each, got 200000" in capsys.readouterr().err


def test_what_reads_no_discovery_samples_is_found_once_for_all_seeds(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [f"model.path={world / 'pixel'}", "model=local", f"cache_dir={tmp_path}", "method=jacobian"]
    labs = [load(parse(composed(*words, "method.steps=[1]", "method.k=1", f"seed={seed}"))) for seed in (0, 1)]
    first, second = (lab.discover() for lab in labs)
    assert first.directions.equal(second.directions) and len(list(tmp_path.glob("discover/*/"))) == 1
    assert [line for line in caplog.messages if "no seed" in line] == [
        "method=jacobian has no seed: its directions are those of seed=0"
    ]
    sources = RunSources(labs[0].cfg, labs[0].model, labs[0].annotator, get_method("jacobian"))
    with pytest.raises(InputError, match="'jacobian' reads discovery samples: leave out samples=False"):
        sources.recorded(4)
