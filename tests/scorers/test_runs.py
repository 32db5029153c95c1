"""Whole runs with networks of the hub's kinds in every role, as photographs need them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hspace.cli import main
from hspace.directions.record import Directions

TINY = [
    "diffusion.num_steps=3", "edit.strengths=[-2,2]", "evaluation.num_samples=4", "evaluation.calibration_samples=8",
    "batch_size=32", "device=cpu", "tracking.mode=disabled",
]  # fmt: skip


@pytest.fixture
def words(
    make_classifier: Callable[..., Path], tiny_clip_dir: Path, tiny_backbone_dir: Path, tiny_parser_dir: Path,
    tiny_pipeline_dir: Path, tmp_path: Path,
) -> list[str]:  # fmt: skip
    labels = ["Smiling", "Young", "Pointy_Nose"]
    return [
        *TINY, f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", "evaluation=hub",
        f"evaluation.annotator=hub:{make_classifier(labels, 'multi_label_classification')}",
        f"evaluation.judge=clip:{tiny_clip_dir}", f"evaluation.identity=hub:{tiny_backbone_dir}",
        f"evaluation.regions=hub:{tiny_parser_dir}",
    ]  # fmt: skip


def test_directions_are_named_by_what_annotator_and_judge_both_read(words: list[str], tmp_path: Path) -> None:
    assert main([*words, "method.num_samples=12", "method.k=2", f"output_dir={tmp_path / 'pca'}"]) == 0
    with (tmp_path / "pca" / "tables" / "directions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["target"] for row in rows} <= {"smile", "age", ""} and {row["judge"] for row in rows} == {"clip:clip"}


def test_a_parser_gives_the_mask_of_a_named_region(words: list[str], tmp_path: Path) -> None:
    jacobian = ["method=jacobian", "method.k=1", "method.steps=[1]"]
    assert main([*words, *jacobian, "method.mask=mouth", f"output_dir={tmp_path / 'mouth'}"]) == 0
    assert main([*words, *jacobian, "method.mask=null", f"output_dir={tmp_path / 'all'}"]) == 0
    mouth, whole = (Directions.load(tmp_path / name / "directions.safetensors").directions for name in ("mouth", "all"))
    assert (mouth - whole).abs().max() > 1e-3


def test_one_model_under_two_names_is_no_independent_judge(
    words: list[str], tiny_clip_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(tiny_clip_dir, tmp_path / "copy")
    same = [*words, f"evaluation.annotator=clip:{copy}", "method.num_samples=12", "method.k=1"]
    assert main([*same, f"output_dir={tmp_path / 'refused'}"]) == 2
    assert "would grade its own choices" in capsys.readouterr().err.splitlines()[-1]
    assert main([*same, "evaluation.allow_same_scorer=true", f"output_dir={tmp_path / 'forced'}"]) == 0
    judge = json.loads((tmp_path / "forced" / "run.json").read_text())["judge"]
    assert judge == "clip:clip (NOT INDEPENDENT: also the annotator)"


def test_scorers_without_a_common_attribute_are_refused(
    words: list[str], make_classifier: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [*words, f"evaluation.annotator=hub:{make_classifier(['cat', 'dog'])}", f"output_dir={tmp_path / 'out'}"]
    assert main(other) == 2
    assert "the annotator reads cat, dog, the judge smile, glasses" in capsys.readouterr().err.splitlines()[-1]
