"""Ready-made directions: in the package, chosen by attribute, for the model that they were found on."""

from pathlib import Path

import pytest

from hspace.cli import main
from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.embedded import EMBEDDED
from hspace.directions import shipped
from hspace.directions.hub import local_path
from hspace.directions.ready import ReadySettings
from hspace.directions.record import Directions
from hspace.directions.shipped import FILES, ready_models, ready_path
from hspace.studio.sliders import find_sliders
from hspace.types import InputError
from hspace.worlds.portraits.faces import JUDGED


def test_they_fit_the_model_that_they_come_with() -> None:
    assert ready_models() == ["portraits"] and set(FILES) <= set(EMBEDDED)
    found = Directions.load(ready_path("portraits"))
    found.check(load_model("portraits", num_steps=10), eta=1.0)
    assert {"glasses", "hat", "age", "yaw"} <= set(found.meta.names) <= {attribute.id for attribute in JUDGED}
    effects = found.meta.effects
    assert effects is not None and set(effects["attributes"]) == set(found.meta.names)
    assert found.meta.annotator is not None and found.meta.annotator["id"] != effects["judge"]


def test_models_have_the_names_that_a_configuration_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else lies in a world's folder: two models of a world have directions of their own."""
    place = tmp_path / "weights" / "portraits"
    (place / "ldm").mkdir(parents=True)
    for name in ("directions.safetensors", "ldm/directions.safetensors"):
        (place / name).write_bytes(b"")
    monkeypatch.setattr(shipped, "package_path", lambda name: tmp_path / name)
    monkeypatch.setitem(FILES, "portraits-128", "portraits/ldm/directions.safetensors")
    assert ready_models() == ["portraits", "portraits-128"]
    assert ready_path("portraits-128") == place / "ldm" / "directions.safetensors"


def test_a_word_names_them_where_a_file_does() -> None:
    assert local_path("ready:portraits") == ready_path("portraits")
    (slider,) = find_sliders("ready:portraits:yaw")
    assert slider.name == "yaw" and slider.path == ready_path("portraits")


def test_a_model_without_any_is_named() -> None:
    with pytest.raises(InputError, match="ready-made directions are of portraits, got model 'sdxl'"):
        ready_path("sdxl")


def test_they_are_listed_and_never_changed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directions"]) == 0
    assert "yaw" in capsys.readouterr().out
    before = ready_path("portraits").read_bytes()
    assert main(["range", "--direction", "ready:portraits:yaw"]) == 2
    assert "ready:portraits:yaw is not to be changed" in capsys.readouterr().err
    for words in (["range"], ["calibrate", "--attribute", "yaw"]):
        assert main([*words, "--direction", "yaw"]) == 2
        assert "yaw is ready-made and not to be changed: copy " in capsys.readouterr().err
    assert ready_path("portraits").read_bytes() == before
    assert main(["range", "--direction", "hub:owner/name"]) == 2, "nor is the hub's cache"
    assert "hub:owner/name is not to be changed" in capsys.readouterr().err


def test_an_unknown_attribute_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=ready", "method.attribute=clothes", "tracking.mode=disabled", f"output_dir={tmp_path / 'out'}"]
    assert main(words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_what_is_taken_without_a_word_is_among_them() -> None:
    assert ReadySettings(name="ready").attribute in Directions.load(ready_path("portraits")).meta.names
