"""Nothing stale is used: every file that a result depends on counts by content, and changed back it is found again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file, save_file

from hspace.cli import main
from hspace.commands.run import load
from hspace.diffusion.checkpoints import load_model
from hspace.directions.record import Directions
from hspace.runs import keys
from hspace.runs.parsing import parse
from hspace.runs.report import key_of
from hspace.system.files import package_path

TINY = ["debug=default", "device=cpu", "diffusion.num_steps=3", "tracking.mode=disabled"]


@pytest.fixture(scope="session")
def tiny_scorer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image classifier of the hub's kind, with two labels."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"num_labels": 2, "id2label": {0: "smile", 1: "hat"}, "label2id": {"smile": 0, "hat": 1}}
    config = transformers.ViTConfig(
        **sizes, image_size=32, patch_size=8, problem_type="multi_label_classification", **labels
    )
    folder = tmp_path_factory.mktemp("hub") / "scorer"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    return folder


@pytest.fixture
def world(
    tiny_pipeline_dir: Path, tiny_ldm_dir: Path, tiny_sd_dir: Path, tiny_scorer_dir: Path, tmp_path: Path
) -> Path:
    """A folder with everything that a configuration can name."""
    world = tmp_path / "world"
    for name, folder in {"pixel": tiny_pipeline_dir, "latent": tiny_ldm_dir, "text": tiny_sd_dir}.items():
        shutil.copytree(folder, world / name)
    shutil.copytree(tiny_scorer_dir, world / "scorer")
    Image.new("L", (16, 16), 255).save(world / "mask.png")
    model = load_model(str(world / "pixel"), num_steps=3, device="cpu")
    vectors = torch.randn(1, *model.h_shape, generator=torch.Generator().manual_seed(0))
    Directions.of(model, vectors, eta=1.0).save(world / "directions.safetensors")
    for expression in ("smile", "neutral"):
        (world / "pairs" / expression).mkdir(parents=True)
        Image.new("RGB", (16, 16), (200, 100, 50)).save(world / "pairs" / expression / "a.png")
    return world


def key(world: Path, words: list[str]) -> str:
    settled = [word.replace("WORLD", str(world)) for word in words]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return key_of(load(parse(compose("config", overrides=[*TINY, *settled]))))


def nudged(path: Path) -> None:
    """Changes one number of a file of tensors."""
    tensors = load_file(path)
    tensors[min(tensors)].view(-1)[0] += 1e-2
    save_file(tensors, path, metadata={"format": "pt"})


def setting(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

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
CASES: list[tuple[str, list[str], Callable[[Path], None]]] = [
    ("pixel/unet/diffusion_pytorch_model.safetensors", PIXEL, nudged),
    ("pixel/unet/config.json", PIXEL, setting(norm_eps=1e-3)),
    ("pixel/scheduler/scheduler_config.json", PIXEL, setting(beta_end=0.01)),
    ("latent/unet/diffusion_pytorch_model.safetensors", LATENT, nudged),
    ("latent/unet/config.json", LATENT, setting(act_fn="gelu")),
    ("latent/vqvae/diffusion_pytorch_model.safetensors", LATENT, nudged),
    ("latent/vqvae/config.json", LATENT, setting(scaling_factor=0.5)),
    ("latent/scheduler/scheduler_config.json", LATENT, setting(prediction_type="v_prediction")),
    ("text/unet/diffusion_pytorch_model.safetensors", TEXT, nudged),
    ("text/unet/config.json", TEXT, setting(norm_eps=1e-3)),
    ("text/vae/diffusion_pytorch_model.safetensors", TEXT, nudged),
    ("text/vae/config.json", TEXT, setting(scaling_factor=0.5)),
    ("text/text_encoder/model.safetensors", TEXT, nudged),
    ("text/text_encoder/config.json", TEXT, setting(hidden_act="gelu")),
    ("text/tokenizer/tokenizer_config.json", TEXT, setting(model_max_length=7)),
    ("text/scheduler/scheduler_config.json", TEXT, setting(beta_end=0.01)),
    ("scorer/model.safetensors", SCORER, nudged),
    ("scorer/config.json", SCORER, setting(id2label={"0": "hat", "1": "smile"})),
    ("scorer/preprocessor_config.json", SCORER, setting(image_mean=[0.1, 0.2, 0.3])),
    ("mask.png", [*PIXEL, "method=jacobian", "method.steps=[1]", "method.mask=WORLD/mask.png"], painted),
    ("directions.safetensors", [*PIXEL, "method=file", "method.path=WORLD/directions.safetensors"], moved),
    ("pairs/smile/a.png", [*PIXEL, "dataset=folder", "dataset.path=WORLD/pairs"], painted),
]  # fmt: skip


@pytest.mark.parametrize(("file", "words", "change"), CASES, ids=[file for file, *_ in CASES])
def test_a_changed_file_makes_another_key_and_changed_back_the_same(
    world: Path, file: str, words: list[str], change: Callable[[Path], None]
) -> None:
    path = world / file
    before, kept = key(world, words), path.read_bytes()
    change(path)
    assert path.read_bytes() != kept
    assert key(world, words) != before
    path.write_bytes(kept)
    assert key(world, words) == before


def test_every_file_that_is_read_has_a_case(world: Path) -> None:
    unread = ("model_index.json", "generation_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
              "tokenizer.json")  # fmt: skip
    files = {path.relative_to(world).as_posix() for path in world.rglob("*") if path.is_file()}
    expected = {file for file in files if Path(file).name not in unread and not file.startswith("pairs/neutral")}
    assert expected == {file for file, *_ in CASES}


def test_a_stages_version_counts(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(world, PIXEL)
    for stage in keys.VERSIONS:
        with monkeypatch.context() as patch:
            patch.setitem(keys.VERSIONS, stage, 99)
            assert key(world, PIXEL) != before


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
    # Each seed has discovery samples of its own, and their table has a mean.
    assert sorted(record["seeds"]["discovery"]["first"] for record in first) == [0, 6]
    assert "sd" in (root / "collected_seeds.csv").read_text().splitlines()[0]
    kept = {path: path.stat().st_mtime_ns for path in root.glob("*/run.json")}
    assert runs() == first and {path: path.stat().st_mtime_ns for path in kept} == kept

    lost = min(kept)
    lost.unlink()
    assert len(runs()) == 2
    figure = next(min(kept).parent.glob("figures/*.png"))
    figure.unlink()
    runs()
    assert figure.is_file()

    config = world / "pixel" / "unet" / "config.json"
    original = config.read_text()
    setting(norm_eps=1e-2)(config)
    changed = runs()
    assert {record["key"] for record in changed}.isdisjoint({record["key"] for record in first})
    assert changed[0]["findings"] != first[0]["findings"]
    entries = {path for path in (tmp_path / "cache").glob("*/*") if path.is_dir()}
    config.write_text(original)
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
