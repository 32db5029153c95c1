"""The examples of docs/extending.md, run as a user runs them: from the command line, in the folder where they lie."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from diffusers.models.unets.unet_2d import UNet2DModel
from safetensors.torch import save_file

from hspace.directions.record import Directions

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
SMALL = [
    "debug=default", "diffusion.num_steps=3", "method.num_samples=8", "device=cpu", "tracking.mode=offline",
    "evaluation.annotator=my_scorer:Brightness", "evaluation.judge=my_scorer:Brightness",
    "evaluation.allow_same_scorer=true",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a user with the examples in it."""
    for name in ("my_method", "my_scorer", "my_measure", "my_experiment"):
        shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    return tmp_path


def install(folder: Path) -> None:
    """What pip leaves of a package that declares the examples as entry points."""
    info = folder / "site" / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hspace.methods]\nlate_minus_early = my_method:find\n[hspace.scorers]\nbrightness = my_scorer:Brightness\n"
        "[hspace.measures]\ncontrast = my_measure:contrast\n[hspace.experiments]\ndoubling = my_experiment:run\n"
    )


def hspace(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, cwd / "site", cwd)))
    return subprocess.run(
        [sys.executable, "-m", "hspace.cli", *words], cwd=cwd, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip


def logged(folder: Path) -> str:
    """What `wandb leet` reads back of an offline run."""
    wandb = Path(sys.executable).with_name("wandb")
    command = [wandb, "leet", "inspect", "--json", folder / "wandb"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("my_*.py")), ids=lambda path: path.stem)
def test_each_is_one_short_file(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40


def test_own_checkpoint(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "own_checkpoint.py"), str(tiny_pipeline_dir), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300)
    assert (tmp_path / "edited.png").stat().st_size > 500
    assert len(Directions.load(tmp_path / "directions.safetensors").directions) == 2


def test_a_method_and_a_scorer_in_the_current_folder(tiny_pipeline_dir: Path, folder: Path) -> None:
    words = [f"model.path={tiny_pipeline_dir}", "method=my_method:find", *SMALL]
    done = hspace(*words, "output_dir=out", cwd=folder)
    assert done.returncode == 0, done.stderr
    out = folder / "out"
    assert Directions.load(out / "directions.safetensors").meta.method == "late minus early"
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["method"] == {"name": "my_method:find", "num_samples": 8}
    with (out / "tables" / "effects.csv").open() as file:
        assert {"brightness", "light_above"} <= set(csv.DictReader(file).fieldnames or ())
    assert "late minus early" in (out / "tables" / "directions.csv").read_text()
    assert "my_method:find" in logged(out) and "brightness" in logged(out)

    kept = folder / "outputs" / "cache" / "discover"
    assert len(list(kept.glob("*/"))) == 1
    source = folder / "my_method.py"
    source.write_text(source.read_text().replace("h[:, half:].mean(dim=1) -", "-h[:, half:].mean(dim=1) -"))
    assert hspace(*words, "output_dir=again", cwd=folder).returncode == 0
    assert len(list(kept.glob("*/"))) == 2


def test_an_installed_method_and_scorer_are_listed_and_chosen_by_name(tiny_pipeline_dir: Path, folder: Path) -> None:
    install(folder)
    listed = hspace("list", "methods", "scorers", "method=late_minus_early", cwd=folder).stdout
    assert "late_minus_early    The mean h of the second half of the samples minus that of the first half." in listed
    assert "brightness          How light an image is, and whether it is lighter at the top." in listed
    assert "method.num_samples  Samples generated to discover with. (default 100)" in listed
    shown = hspace("--cfg", "job", "method=late_minus_early", "evaluation.judge=brightness", cwd=folder).stdout
    assert "name: late_minus_early\n  num_samples: 100" in shown
    swept = hspace(
        "-m", f"model.path={tiny_pipeline_dir}", "method=late_minus_early,my_method:find", *SMALL,
        "evaluation.judge=brightness", "hydra.sweep.dir=sweep", cwd=folder,
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    table = (folder / "sweep" / "collected.csv").read_text()
    assert "late_minus_early" in table and "my_method:find" in table


def test_a_measure_and_an_experiment_are_listed_run_and_tracked(tiny_pipeline_dir: Path, folder: Path) -> None:
    install(folder)
    listed = hspace("list", "measures", "experiments", cwd=folder).stdout
    assert "contrast            How much an edit raises the contrast of the image." in listed
    assert "doubling            Does an edit of twice the strength move the image twice as much?" in listed
    words = [f"model.path={tiny_pipeline_dir}", *SMALL]
    done = hspace(
        *words,
        "evaluation.measures=[identity,my_measure:contrast]",
        "evaluation.num_samples=12",
        "output_dir=edits",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    with (folder / "edits" / "tables" / "directions.csv").open() as file:
        assert {"identity", "contrast", "contrast_low"} <= set(csv.DictReader(file).fieldnames or ())
    record = json.loads((folder / "edits" / "run.json").read_text())
    assert record["findings"]["contrast/direction_0"] and "mean/contrast" in logged(folder / "edits")

    doubling = [*words, "study.attributes=[brightness]", "procedure=doubling", "output_dir=doubled"]
    done = hspace(*doubling, cwd=folder)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "doubled" / "run.json").read_text())
    assert record["procedure"] == "doubling" and record["findings"]["ratio"] > 0
    assert "change at 2" in (folder / "doubled" / "tables" / "doubling.csv").read_text()
    assert done.stdout.strip() == "doubled/figures/doubling.png" and "Twice the strength" in logged(folder / "doubled")
    assert "reused" in hspace(*doubling, cwd=folder).stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["method=my_method:Settings"], "'my_method:Settings' is not a method: see docs/extending.md"),
        (["method=my_methods:find"], "unknown method 'my_methods:find'"),
        (["method=my_method:find", "method.num_samples=3"], "method.num_samples must be a whole number of at least 4"),
        (["method=my_method:find", "method.samples=3"], "method.samples"),
        (["evaluation.judge=my_scorer:torch"], "'my_scorer:torch'"),
        (["procedure=my_experiment:walk"], "my_experiment:walk"),
    ],
)
def test_a_mistake_with_them_is_one_line(folder: Path, words: list[str], hint: str) -> None:
    done = hspace(*words, cwd=folder)
    assert done.returncode == 2 and done.stdout == ""
    assert hint in done.stderr and done.stderr.startswith("hspace: error: ") and done.stderr.count("\n") == 1
    assert not (folder / "outputs").exists()


def test_a_family_in_the_current_folder(folder: Path) -> None:
    levels: Any = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = UNet2DModel(sample_size=16, block_out_channels=(8, 16), norm_num_groups=4, **levels)
    (folder / "model").mkdir()
    save_file(network.state_dict(), folder / "model" / "weights.safetensors")
    shutil.copy(EXAMPLES / "my_family.py", folder)
    done = hspace("model.path=model", "model.family=my_family:family", *SMALL, "output_dir=out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "out" / "run.json").read_text())["model"]["id"] == "model"
