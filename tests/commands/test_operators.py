"""Operators from the command line: found, applied, judged, kept and used again."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vectors import directions_of

from hspace.cli import main
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.operators import Operator
from hspace.edits.changes import Joined, apply_changes
from hspace.evaluation.ranges import range_of
from hspace.output.animation import to_pixels

WORDS = [
    "diffusion.num_steps=3", "edit.strengths=[0,0.5,1]", "evaluation.num_samples=10", "batch_size=64",
    "evaluation.reference_samples=10", "device=cpu", "tracking.mode=disabled", "method.attribute=skin",
]  # fmt: skip
MEASURES = "evaluation.measures=[effect,order,identity]"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "tables" / "directions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def place(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path_factory.mktemp('cache')}"]


@pytest.fixture(scope="module")
def finished(place: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erase") / "out"
    assert main([*WORDS, *place, MEASURES, "method=erase", "method.num_samples=8", f"output_dir={folder}"]) == 0
    return folder


def test_an_operator_is_found_judged_and_kept(finished: Path) -> None:
    found = rows(finished)
    assert [(row["target"], float(row["strength"])) for row in found] == [("skin", 0.5), ("skin", 1.0)]
    assert all(-1 <= float(row["order"]) <= 1 and float(row["identity"]) <= 1 for row in found)
    operator = Operator.load(finished / "operator.safetensors")
    assert operator.kind == "erase" and operator.meta.config_sha256 and operator.meta.seeds == tuple(range(8))
    assert json.loads((finished / "run.json").read_text())["directions"] == {"operator": ["skin"]}


def test_an_operator_of_a_file_is_judged_alike(finished: Path, place: list[str], tmp_path: Path) -> None:
    file = f"method.path={finished / 'operator.safetensors'}"
    assert main([*WORDS[:-1], *place, MEASURES, "method=file", file, f"output_dir={tmp_path / 'again'}"]) == 0
    assert rows(tmp_path / "again") == rows(finished)


def test_a_folder_of_operators_is_listed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directions", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "skin" in said and "share of the whole map" in said


@pytest.mark.slow
@pytest.mark.parametrize(("method", "own"), [("switch", ["method.target=age"]), ("transport", [])])
def test_the_other_operators_run_too(method: str, own: list[str], place: list[str], tmp_path: Path) -> None:
    words = [*WORDS, *place, MEASURES, *own, f"method={method}", "method.num_samples=12", "method.k=4"]
    assert main([*words, f"output_dir={tmp_path / 'out'}"]) == 0
    assert Operator.load(tmp_path / "out" / "operator.safetensors").kind == method
    assert [row["target"] for row in rows(tmp_path / "out")] == ["skin", "skin"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=erase", "edit.strengths=[-1,1]"], "edit.strengths must be in [0, 1] for method=erase, got -1"),
        (["method=switch", "method.target=skin"], "method.target must not name method.attribute itself"),
        (["method=switch", "method.target=skinn"], "method.target"),
        (["method=transport", "method.k=300"], "method.k must be at most half of method.num_samples=500"),
        (["method=transport", "method.towards=up"], "method.towards"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    words: list[str], message: str, tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}"]
    assert main([*WORDS, *place, *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "cache").exists() and not (tmp_path / "out").exists()


def test_an_operator_edits_a_sample(
    finished: Path, place: list[str], tiny_model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = finished / "operator.safetensors"
    directions_of(tiny_model).save(tmp_path / "more.safetensors")
    words = ["--direction", str(file), "--strength", "0.75", "--samples", "10", "diffusion.num_steps=3", *place]
    own = {"file": str(file), "name": "skin", "unit": "share of the whole map", "strength": 0.75, "safe": None}
    change = 0.75 * Operator.load(file)
    distances = [edited_as(change, tiny_model, [own], words)]
    # A direction beside it is added to what it makes.
    words += ["--direction", "more.safetensors:age", "--strength", "-2"]
    more = {"file": "more.safetensors", "name": "age", "unit": "norm", "strength": -2.0, "safe": None}
    joined = Joined(change, -2.0 * directions_of(tiny_model).directions[1])
    distances.append(edited_as(joined, tiny_model, [own, more], words))
    assert len(set(distances)) == 2


def edited_as(
    change: Operator | Joined, model: DiffusionModel, directions: list[dict[str, object]], words: list[str]
) -> float:
    """Edits a sample on the command line and checks it; returns the distance of the edited h."""
    assert main(["edit", "2000000", *words]) == 0
    folder = Path("outputs/edit/seed-2000000")
    (expected,) = to_pixels(apply_changes(model, model.latents([2_000_000]), [change])[0])
    written = np.array(Image.open(folder / "edited.png").convert("RGB"))
    assert np.abs(written.astype(int) - expected.astype(int)).max() <= 1, "the edit is pasted as a rounded change"
    record = json.loads((folder / "edit.json").read_text())
    assert record["directions"] == directions
    distance = record["off_manifold"]
    assert distance["unedited"] > 0 and distance["edited"] != distance["unedited"]
    return distance["edited"]


def test_its_strength_and_range_are_measured_kept_and_used(
    finished: Path, place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "operator.safetensors"
    file.write_bytes((finished / "operator.safetensors").read_bytes())
    words = ["--direction", str(file), "diffusion.num_steps=3", "evaluation.reference_samples=10", *place]
    # Nothing but the least effect is allowed, so that the range ends within the operator's strengths.
    assert main(["range", "--samples", "10", "--others", "1e-6", *words]) == 0
    assert capsys.readouterr().out.startswith("skin: 0 to ")
    assert main(["calibrate", "--samples", "10", "--attribute", "skin", "--effect", "9", *words]) == 0
    assert "the nearest to +9.00 sd that it reaches" in capsys.readouterr().out
    kept = Operator.load(file)
    assert set((kept.meta.calibration or {})["skin"]) == {"range", "calibration"}
    assert torch.equal(kept.mean, Operator.load(finished / "operator.safetensors").mean)
    measured = range_of(kept, 0)
    assert measured is not None and measured.low == 0 < measured.high < 1 and measured.high_because != "skin"
    assert main(["directions", str(file)]) == 0
    assert f"safe from 0 to {measured.high:.3g}" in capsys.readouterr().out
    assert main(["edit", "2000000", "--strength", "0.75", "--samples", "0", *words]) == 0
    assert "skin at 0.75 is outside its safe range, 0 to " in caplog.text
    record = json.loads(Path("outputs/edit/seed-2000000/edit.json").read_text())
    assert record["directions"][0]["safe"] == [0.0, measured.high]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["edit", "0", "--strength", "1.5"], "the strength of an operator (erase) must be in [0, 1], got 1.5"),
        (["edit", "0", "--strength", "-1"], "must be in [0, 1], got -1"),
        (["edit", "0", "--direction", "FILE"], "an edit takes one operator, got skin, skin"),
        (["edit", "0", "--direction", "FILE:none"], "unknown direction 'none'"),
        (["range", "--most", "2"], "a largest strength above 0, at most 1 of an operator, got 16 samples and 2.0"),
    ],
)
def test_what_an_operator_cannot_is_one_line_before_any_work(
    words: list[str], message: str, finished: Path, place: list[str], capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    file = str(finished / "operator.safetensors")
    words = [word.replace("FILE", file) for word in words]
    assert main([*words, "--direction", file, place[0], "diffusion.num_steps=3"]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == "" and not list(tmp_path.iterdir())
