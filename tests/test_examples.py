"""The examples of docs/extending.md, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

from hspace.directions.record import Directions

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def run(example: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_own_checkpoint(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    run("own_checkpoint.py", tiny_pipeline_dir, tmp_path)
    assert (tmp_path / "edited.png").stat().st_size > 500
    assert len(Directions.load(tmp_path / "directions.safetensors").directions) == 2


def test_own_method_and_own_scorer(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    run("own_method.py", tiny_pipeline_dir, tmp_path)
    path = tmp_path / "difference.safetensors"
    assert Directions.load(path).meta.method == "late-minus-early"
    assert "late minus early: brightness" in run("own_scorer.py", tiny_pipeline_dir, path)
