"""`hspace edit` and `hspace invert` from the command line, on a photograph and on generated samples."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from hspace.cli import main
from hspace.commands import edit
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.evaluation.ranges import SliderRange, with_ranges
from hspace.output.animation import read_note
from hspace.studio.photos import open_photo


@pytest.fixture
def settings(tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3"]


def test_a_photograph_is_edited_inside_the_mask_only(
    settings: list[str], photograph: Path, directions_file: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["edit", str(photograph), "--direction", f"{directions_file}:smile", "--strength", "2"]
    words += ["--keep-outside", "0.2,0.3,0.6,0.7", "--animation", "webp", *settings]
    assert main(words) == 0
    folder = Path("outputs/edit/astronaut")
    assert {path.name for path in folder.iterdir()} == {"edited.png", "strip.png", "edit.webp", "edit.json"}
    edited, before = np.array(Image.open(folder / "edited.png")).astype(int), open_photo(photograph, (16, 16)).pixels
    outside = np.ones(edited.shape[:2], dtype=bool)
    outside[44:132, 90:210] = False
    change = np.abs(edited - before.astype(int)).max(axis=2)
    assert change[outside].max() == 0 and change[60:110, 110:190].mean() > 2
    assert "smile at 2" in read_note(folder / "strip.png")
    assert "edited by hspace" in read_note(folder / "edited.png") and "smile at 2" in read_note(folder / "edit.webp")
    record = json.loads((folder / "edit.json").read_text())
    assert record["reconstruction_error"] < 1e-5 and record["largest_change_outside"] == 0
    assert -1 <= record["identity"] < 0.9999
    distance = record["off_manifold"]
    assert distance["unedited"] > 0 and distance["edited"] != distance["unedited"]
    told = capsys.readouterr().out
    assert "reconstruction error" in told and f"distance of h {distance['unedited']:.2f} to" in told
    assert len(list(Path("outputs/inversions").iterdir())) == 2, "the latents, and the image that they give back"


def test_pictures_are_never_beside_the_record_of_others(
    settings: list[str], directions_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["edit", "7", "--direction", f"{directions_file}:smile", "--animation", "none", *settings]
    assert main([*words, "--samples", "10"]) == 0
    files = {path: path.read_bytes() for path in Path("outputs/edit/seed-7").iterdir()}
    assert main([*words, "--strength", "3", "seed=999999"]) == 2 and "seed must be at most" in capsys.readouterr().err
    assert files == {path: path.read_bytes() for path in Path("outputs/edit/seed-7").iterdir()}

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(edit, "strip_figure", stopped)
    with suppress(KeyboardInterrupt):
        main([*words, "--strength", "3", "--samples", "0"])
    assert not Path("outputs/edit/seed-7/edit.json").exists(), "the new picture is not the old record's"


def test_what_is_measured_and_drawn_is_what_the_mask_leaves(
    settings: list[str], photograph: Path, directions_file: Path
):
    """A mask of one corner hardly changes the person, in the record and in the strip."""
    records, strips = [], []
    for name, region in (("whole", []), ("corner", ["--keep-outside", "0,0.2,0.2,0.4"])):
        words = ["edit", str(photograph), "--direction", f"{directions_file}:smile", "--strength", "6", *region]
        assert main([*words, "--samples", "0", "--animation", "none", "--output", name, *settings]) == 0
        records.append(json.loads(Path(name, "astronaut/edit.json").read_text()))
        strips.append(np.array(Image.open(Path(name, "astronaut/strip.png")).convert("RGB")).astype(int))
    assert records[1]["identity"] > records[0]["identity"] and records[1]["identity"] > 0.9
    assert np.abs(strips[0] - strips[1]).max() > 10


def test_one_photograph_without_the_region_does_not_stop_the_others(
    settings: list[str], directions_file: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    Path("in").mkdir()
    Image.fromarray(data.astronaut()).save("in/b.png")
    for name in ("a", "c"):
        Image.new("RGB", (200, 200), "teal").save(f"in/{name}.png")
    words = ["--direction", f"{directions_file}:smile", "--keep-outside", "mouth", "--samples", "0"]
    words += ["--animation", "none"]
    assert main(["edit", "in", *words, *settings, "evaluation=faceapi"]) == 1
    assert "in/a.png is not edited" in caplog.text and "in/c.png is not edited" in caplog.text
    assert capsys.readouterr().out.count("reconstruction error") == 1
    assert {path.name for path in Path("outputs/edit").iterdir()} == {"b"}
    Path("in/b.png").unlink()
    assert main(["edit", "in", *words, *settings, "evaluation=faceapi"]) == 2


def test_a_ready_made_direction_is_named_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = ["edit", "7", "--strength", "1", "--samples", "0", "--animation", "none", "diffusion.num_steps=10"]
    assert main([*words, "--direction", "smile"]) == 0
    assert json.loads(Path("outputs/edit/seed-7/edit.json").read_text())["directions"][0]["name"] == "smile"
    capsys.readouterr()
    assert main([*words, "--direction", "smlie"]) == 2
    assert "did you mean 'smile'" in capsys.readouterr().err


def test_a_face_is_aligned_edited_and_read_without_the_hub(
    settings: list[str], directions_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The astronaut's mouth, found by its points, in a frame that is turned as her head is."""
    original = data.astronaut()
    Image.fromarray(original).save("astronaut.png")
    words = ["edit", "astronaut.png", "--direction", f"{directions_file}:smile", "--strength", "3"]
    words += ["--animation", "none", "--samples", "0", "--keep-outside", "mouth", *settings]
    words += ["evaluation=faceapi"]
    assert main(words) == 0
    record = json.loads(Path("outputs/edit/astronaut/edit.json").read_text())
    assert record["by_face"] and abs(record["frame"]["right"][1]) > 1
    assert record["largest_change_outside"] == 0 and -1 <= record["identity"] <= 1
    assert record["off_manifold"] is None
    change = np.abs(np.array(Image.open("outputs/edit/astronaut/edited.png")).astype(int) - original.astype(int))
    rows, columns = np.nonzero(change.max(axis=2))
    assert 120 < rows.min() < rows.max() < 175 and 180 < columns.min() < columns.max() < 260
    assert main(["invert", "astronaut.png", *settings, "evaluation=faceapi"]) == 0
    assert "reconstruction error of its face" in capsys.readouterr().out


def test_a_folder_inverted_once_and_a_seed_go_the_same_way(
    settings: list[str], photograph: Path, directions_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(photograph.read_bytes() + name.encode())
    assert main(["invert", str(folder), *settings]) == 0
    assert capsys.readouterr().out.count("reconstruction error") == 2
    before = {path: path.stat().st_mtime_ns for path in Path("outputs/inversions").iterdir()}
    file = str(directions_file)
    words = ["edit", str(folder), "7", "--direction", file, "--direction", f"{file}:1", "--strength", "1"]
    assert main([*words, "--strength", "-1", "--animation", "none", *settings]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("outputs/inversions").iterdir()} == before
    records = {p.parent.name: json.loads(p.read_text()) for p in Path("outputs/edit").glob("*/edit.json")}
    assert set(records) == {"a", "b", "seed-7"} and "generated" in records["seed-7"]["note"]
    assert [part["strength"] for part in records["a"]["directions"]] == [1.0, -1.0]


def test_odd_names_and_odd_neighbours_in_a_folder(
    settings: list[str], directions_file: Path, capsys: pytest.CaptureFixture[str]
):
    """Equal stems, a sign that settings have, letters of four bytes, a note of another system beside a picture."""
    Path("in").mkdir()
    names = ["a.jpg", "a.png", "a-2.png", "k=v.png", "new year.png", "\U0001f600" * 55 + ".png", "...png"]
    for name in names:
        Image.new("RGB", (20, 20), "teal").save(Path("in", name), "JPEG" if name.endswith("jpg") else "PNG")
    Path("in", "._a.jpg").write_bytes(b"\0\5\26\7")
    Path("in", "...png").rename("...png")
    words = ["--direction", f"{directions_file}:smile", "--samples", "0", "--animation", "none", *settings]
    assert main(["edit", "in", "...png", *words]) == 0
    folders = {path.parent.name for path in Path("outputs/edit").rglob("edited.png")}
    assert folders >= {"a", "a-2", "a-3", "k=v", "new year", "\U0001f600" * 55} and len(folders) == 7
    assert {path.name for path in Path("outputs").iterdir()} == {"edit", "inversions"}
    assert main(["edit", "in/k=v.png", "--output", "other", *words]) == 0
    assert Path("other/k=v/edited.png").is_file()


def test_a_broken_picture_in_a_folder_is_found_before_any_work(
    settings: list[str], directions_file: Path, capsys: pytest.CaptureFixture[str]
):
    Path("in").mkdir()
    Image.new("RGB", (20, 20)).save("in/a.png")
    Path("in/z.jpg").write_bytes(b"")
    for words in (["edit", "in", "--direction", str(directions_file)], ["invert", "in"]):
        assert main([*words, *settings]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "in/z.jpg cannot be read as an image" in err
        assert not Path("outputs").exists()


@pytest.fixture
def measured_file(tiny_model: DiffusionModel, directions_file: Path, tmp_path: Path) -> Path:
    """The directions' first with a range from -1 to 2, above 0 unevenly spaced."""
    strengths = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.2, 0.5, 1.0, 2.0)
    found = SliderRange(
        "smile", -1.0, 2.0, "age", "identity", strengths, strengths, ((0.0, 0.0, 0.0),) * 9, (), {}, "scorer", (1,)
    )
    path = tmp_path / "measured.safetensors"
    with_ranges(Directions.load(directions_file), {0: found}).save(path)
    return path


def test_pictures_are_as_far_apart_as_the_slider_and_what_is_beyond_it_is_said(
    settings: list[str], measured_file: Path, caplog: pytest.LogCaptureFixture
):
    words = ["edit", "7", "--direction", f"{measured_file}:smile", "--samples", "0", "--animation", "none", *settings]
    assert main([*words, "--strength", "2"]) == 0
    assert "safe range" not in caplog.text
    strip = json.loads(Image.open("outputs/edit/seed-7/strip.png").info["hspace-strip"])
    assert strip["columns"] == ["-2", "-1", "unedited", "+0.5", "+2"]
    assert json.loads(Path("outputs/edit/seed-7/edit.json").read_text())["directions"][0]["safe"] == [-1.0, 2.0]
    assert main([*words, "--strength", "2.5"]) == 0
    assert "smile at 2.5 is outside its safe range, -1 to 2: beyond it identity changes too much" in caplog.text
    assert main([*words, "--direction", f"{measured_file}:age", "--strength", "2", "--strength", "9"]) == 0
    strip = json.loads(Image.open("outputs/edit/seed-7/strip.png").info["hspace-strip"])
    assert strip["columns"] == ["-100%", "-50%", "unedited", "+50%", "+100%"], "each has a strength of its own"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "name a photograph"),
        (["7"], "needs --direction"),
        (["nowhere.jpg", "--direction", "none.safetensors"], "nowhere.jpg is neither an image nor a folder"),
        (["7", "--direction", "none.safetensors"], "none.safetensors"),
        (["7", "--direction", "FILE:smil"], "did you mean 'smile'"),
        (["7", "--direction", "FILE:"], "must name a direction after its colon"),
        (["7", "--direction", "ready:portraits:"], "must name a direction after its colon, or be ready:portraits"),
        (["7", "--direction", "FILE", "--strength", "1", "--strength", "2"], "one finite --strength for each"),
        (["7", "--direction", "FILE", "--strength", "x"], "invalid float value"),
        (["7", "--direction", "FILE", "--strength", "nan"], "one finite --strength for each"),
        (["7", "--direction", "FILE", "--keep-outside", "0,0,a,1"], "--keep-outside"),
        (["7", "--direction", "FILE", "--keep-outside", "nose2"], "mask must be one of"),
        (["7", "--direction", "FILE", "--animation", "mp4"], "--animation"),
        (["7", "--direction", "FILE", "--samples", "5"], "--samples must be 0, or at least 10, got 5"),
        (["7", "--direction", "FILE", "diffusion.num_steps=4"], "do not fit: process is timesteps"),
        (["7", "--direction", "FILE", "seeed=1"], "did you mean 'seed'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: list[str], hint: str, settings: list[str], directions_file: Path, capsys: pytest.CaptureFixture[str]
):
    given = [word.replace("FILE", str(directions_file)) for word in words]
    assert main(["edit", *settings, *given]) == 2
    out, err = capsys.readouterr()
    assert out == "" and hint in err and err.count("\n") == 1
    assert not Path("outputs").exists()
