"""What is written of an experiment, whatever it measures."""

import json
from pathlib import Path

import pytest
import torch

from hspace.cli import main
from hspace.output.figures import grid_figure
from hspace.output.tables import Table
from hspace.runs.lab import Lab
from hspace.runs.procedures import EXPERIMENTS
from hspace.runs.report import Result

MARK = "portraits-annotator (NOT INDEPENDENT: also the annotator"


@pytest.fixture
def words(tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of an experiment that measures nothing; how often it ran stands in the folder."""

    def run(lab: Lab) -> Result:
        """Measures nothing."""
        (lab.cfg.output_dir / "ran").open("a").write("x")
        picture = grid_figure(torch.zeros(1, 3, 8, 8), 1, lab.figures / "a.png")
        table = Table(("edit", "effect"), (("smile", 1.0), ("hat", 2.0)), "Effects.")
        return Result("It moves.", {"moved": 1}, {"A picture": picture}, {"effects": table})

    monkeypatch.setitem(EXPERIMENTS._registered, "fig3", run)
    return [
        "experiment=fig3", f"model.path={tiny_pipeline_dir}", f"output_dir={tmp_path / 'out'}", "device=cpu",
        f"cache_dir={tmp_path / 'cache'}", "tracking.mode=disabled",
    ]  # fmt: skip


@pytest.mark.parametrize("judge", ["portraits-judge", "portraits-annotator"])
def test_a_judge_that_annotated_is_marked_in_every_table(words: list[str], tmp_path: Path, judge: str) -> None:
    assert main([*words, f"evaluation.judge={judge}", "evaluation.allow_same_scorer=true"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    kept = [(tmp_path / "out" / "tables" / f"effects.{kind}").read_text() for kind in ("csv", "md")]
    assert [MARK in text for text in (*kept, record["conclusion"])] == [judge == "portraits-annotator"] * 3
    assert "It moves." in record["conclusion"] and record["judge"].startswith(judge)


def test_a_record_is_used_again_while_its_files_are_there(words: list[str], tmp_path: Path) -> None:
    assert main(words) == main(words) == 0
    out = tmp_path / "out"
    assert (out / "ran").read_text() == "x"
    for file in ("figures/a.png", "tables/effects.csv", "run.json"):
        (out / file).unlink()
        ran = len((out / "ran").read_text())
        assert main(words) == main(words) == 0 and (out / file).is_file()
        assert len((out / "ran").read_text()) == ran + 1, file
