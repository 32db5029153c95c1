"""`hspace range`, `calibrate` and `directions` from the command line; what they measure stays in the file."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from hspace.cli import main
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.evaluation.ranges import range_of
from hspace.runs.parsing import parse
from hspace.studio.sliders import find_sliders, fitted
from hspace.system import workers
from hspace.system.files import package_path


@pytest.fixture
def file(directions_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "directions.safetensors"
    path.write_bytes(directions_file.read_bytes())
    return path


def test_what_is_measured_is_kept_and_listed(file: Path, tiny_pipeline_dir: Path, capsys: pytest.CaptureFixture[str]):
    model = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", f"cache_dir={file.parent / 'cache'}"]
    model += ["evaluation.reference_samples=24"]
    assert main(["range", "--direction", str(file), "--samples", "10", *model]) == 0
    assert capsys.readouterr().out.count(" to ") == 2
    words = ["--attribute", "skin", "--effect", "0.2", "--samples", "3"]
    assert main(["calibrate", "--direction", f"{file}:age", *words, *model]) == 0
    assert "age: skin changes by" in capsys.readouterr().out
    kept = Directions.load(file)
    assert set(kept.meta.calibration or {}) == {"smile", "age"}
    assert set((kept.meta.calibration or {})["age"]) == {"range", "calibration"}
    measured = range_of(kept, 0)
    assert measured is not None and len(measured.strengths) == 9
    assert main(["directions", str(file.parent)]) == 0
    listed = capsys.readouterr().out
    assert "smile" in listed and listed.count("safe from") == 2


def test_a_range_of_other_edits_is_left_out(
    file: Path, tiny_model: DiffusionModel, tiny_pipeline_dir: Path, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    model = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", f"cache_dir={file.parent / 'cache'}"]
    model += ["evaluation.reference_samples=24"]
    words = ["--samples", "10", "diffusion.injection=asyrp", "edit.stop=2"]
    assert main(["range", "--direction", f"{file}:age", *words, *model]) == 0
    assert main(["directions", str(file)]) == 0
    assert "with injection=asyrp, stop=2" in capsys.readouterr().out
    (slider,) = find_sliders(f"{file}:age")

    def taken(*settings: str) -> bool:
        caplog.clear()
        with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
            cfg = parse(compose("config", [*model, *settings]))
        return fitted(slider, cfg, tiny_model).range is not None

    assert taken("diffusion.injection=asyrp", "edit.stop=2") and caplog.text == ""
    assert not taken() and len(caplog.records) == 1
    assert "age, measured with injection=asyrp, stop=2, is not used: hspace range measures it anew" in caplog.text
    assert not taken("diffusion.injection=asyrp") and "measured with stop=2," in caplog.text
    assert slider.range is not None, "the file's own is kept"
    asyrp = ("diffusion.injection=asyrp", "edit.stop=2")
    assert not taken(*asyrp, "diffusion.eta=0", "allow=[eta]")
    assert "age, measured with eta=1.0, is not used" in caplog.text
    before = file.read_bytes()
    for command in (["range"], ["calibrate", "--attribute", "skin"]):
        assert main([*command, "--direction", f"{file}:age", *words, *model, "diffusion.eta=0", "allow=[eta]"]) == 2
        assert "measures directions as they were found: leave out allow=[eta]" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_several_processes_measure_what_one_measures(
    file: Path, tiny_pipeline_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crews: list[int] = []
    crew = workers._crew
    monkeypatch.setattr(workers, "_crew", lambda count, make: crews.append(count) or crew(count, make))
    model = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", "evaluation.reference_samples=24"]

    def measured(count: int) -> dict[str, Any]:
        words = [*model, f"workers={count}", f"cache_dir={file.parent / str(count)}"]
        named = ["--direction", f"{file}:age", "--samples", "10"]
        assert main(["range", *named, *words]) == 0
        assert main(["calibrate", *named, "--attribute", "skin", "--effect", "0.2", *words]) == 0
        return (Directions.load(file).meta.calibration or {})["age"]

    alone = measured(1)
    assert not crews
    together = measured(2)
    assert crews and set(crews) == {2}
    for ours, theirs in zip(alone["range"]["effect"], together["range"]["effect"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert alone["range"]["tried"] == pytest.approx(together["range"]["tried"], rel=1e-4)
    assert alone["calibration"]["strength"] == pytest.approx(together["calibration"]["strength"], rel=1e-3)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["range"], "needs --direction"),
        (["range", "x", "--direction", "FILE"], "does not take the word 'x'"),
        (["calibrate", "--direction", "FILE"], "--attribute"),
        (["calibrate", "--direction", "FILE", "--attribute", "smiles"], "unknown attribute 'smiles'"),
        (["range", "--direction", "FILE", "--samples", "1"], "at least 10 samples"),
        (["range", "--direction", "FILE", "--others", "inf"], "other effect must be a number above 0, in sd, got inf"),
        (["range", "--direction", "FILE", "--others", "nan"], "got nan"),
        (["directions", "none"], "not found: none"),
        (["studio", "exprt", "x"], "use it as hspace studio"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], hint: str, file: Path, tiny_pipeline_dir: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(file.parent)
    settings = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", "evaluation.reference_samples=24"]
    model = [] if words[0] in ("directions", "studio") else settings
    assert main([word.replace("FILE", str(file)) for word in words] + model) == 2
    out, err = capsys.readouterr()
    assert out == "" and hint in err and err.count("\n") == 1
