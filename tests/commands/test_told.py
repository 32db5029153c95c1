"""What a run tells of what it was given: a pinned model, doubtful judges, other etas, directions that do nothing."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hspace.cli import main
from hspace.directions.record import Directions

COMMIT = "a" * 40
FEW = [
    "diffusion.num_steps=2", "method.k=1", "method.num_samples=4", "edit.strengths=[-1,1]", "tracking.mode=disabled",
    "evaluation.num_samples=10", "evaluation.reference_samples=12", "evaluation.calibration_samples=4", "device=cpu",
]  # fmt: skip
MARK = "made for the embedded portraits, not for this model"


@pytest.fixture(scope="module")
def hub(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the hub in which tiny/faces lies, and no network."""
    cache = tmp_path_factory.mktemp("hub")
    shutil.copytree(tiny_pipeline_dir, cache / "models--tiny--faces" / "snapshots" / COMMIT)
    (cache / "models--tiny--faces" / "refs").mkdir()
    (cache / "models--tiny--faces" / "refs" / "main").write_text(COMMIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="module")
def finished(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in float64 of a pinned model, of someone whose files nobody else may read."""
    folder = tmp_path_factory.mktemp("told")
    words = [*FEW, "model.path=tiny/faces", f"model.revision={COMMIT}", "dtype=float64"]
    said = logging.FileHandler(folder / "said.txt")
    logging.getLogger("hspace").addHandler(said)
    umask = os.umask(0o077)
    try:
        assert main([*words, f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"]) == 0
    finally:
        os.umask(umask)
        logging.getLogger("hspace").removeHandler(said)
    return folder / "out"


@pytest.fixture
def record(finished: Path) -> dict[str, Any]:
    return json.loads((finished / "run.json").read_text())


def test_directions_that_no_edit_was_needed_for_belong_to_no_injection(finished: Path) -> None:
    assert Directions.load(finished / "directions.safetensors").meta.provenance.injection is None


def test_the_record_tells_the_commit_of_a_model_of_the_hub(record: dict[str, Any]) -> None:
    assert (record["model"]["id"], record["model"]["commit"]) == ("tiny/faces", COMMIT)
    assert record["config"]["model"]["revision"] == COMMIT and record["config"]["dtype"] == "float64"


def test_a_revision_that_is_not_there_is_one_line(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FEW, "model.path=tiny/faces", f"model.revision={'b' * 40}", f"output_dir={tmp_path / 'out'}"]) == 2
    _, err = capsys.readouterr()
    assert err.startswith("hspace: error: tiny/faces is not a folder, and the hub") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_files_have_the_mode_that_umask_says(finished: Path) -> None:
    files = [path for path in finished.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(files) > 8 and {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_an_own_checkpoint_under_the_judge_of_portraits_is_told_in_console_table_and_record(finished: Path) -> None:
    (told,) = [line for line in (finished.parent / "said.txt").read_text().splitlines() if MARK in line]
    assert "evaluation=clip" in told
    for name in ("run.json", "tables/effects.csv", "tables/effects.md"):
        assert MARK in (finished / name).read_text(), name


def test_directions_of_one_eta_are_refused_at_another_before_any_work(
    finished: Path, hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in FEW if not word.startswith("method.")]
    words += ["model.path=tiny/faces", "method=file", f"method.path={finished / 'directions.safetensors'}"]
    assert main([*words, "diffusion.eta=0", f"output_dir={tmp_path / 'out'}"]) == 2
    assert "eta is 1 in the directions, 0 here; allow=eta uses them all the same" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_direction_without_any_effect_has_effects_of_0(finished: Path, hub: Path, tmp_path: Path) -> None:
    path = tmp_path / "nothing.safetensors"
    found = Directions.load(finished / "directions.safetensors")
    replace(found, directions=torch.zeros_like(found.directions)).save(path)
    words = [word for word in FEW if not word.startswith("method.")]
    words += ["model.path=tiny/faces", "method=file", f"method.path={path}", f"cache_dir={tmp_path / 'cache'}"]
    assert main([*words, f"output_dir={tmp_path / 'out'}"]) == 0
    findings = json.loads((tmp_path / "out" / "run.json").read_text())["findings"]
    effects = [value for key, value in findings.items() if key.startswith("effect/")]
    assert effects and set(effects) == {0.0}
