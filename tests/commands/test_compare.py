"""Finished runs against each other, from what two real runs left."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hspace.cli import main

WORDS = [
    "diffusion.num_steps=2", "edit.strengths=[-1,2]", "evaluation.num_samples=12", "evaluation.reference_samples=24",
    "method.attribute=skin", "method.k=4", "method.num_samples=16", "batch_size=64", "device=cpu",
    "tracking.mode=disabled",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("compare")
    folders = [root / "supervised", root / "boundary"]
    for folder in folders:
        words = [f"model.path={tiny_pipeline_dir}", f"cache_dir={root / 'cache'}", f"method={folder.name}"]
        assert main([*words, *WORDS, f"output_dir={folder}"]) == 0
    return folders


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def changes(run: Path, strength: str) -> np.ndarray:
    """The signed changes of skin in sd, read off the run's files by hand."""
    unit = json.loads((run / "run.json").read_text())["findings"]["unit"]["skin"]
    rows = rows_of(run / "samples" / "scores.csv")
    before, after = (
        np.array([float(row["skin"]) for row in rows if row["edit"] == edit])
        for edit in ("unedited", f"skin at strength {strength}")
    )
    return (after - before) / unit


def copy(run: Path, target: Path, edit: Callable[[list[dict[str, str]]], None]) -> Path:
    """A run whose scores are others."""
    shutil.copytree(run, target)
    path = target / "samples" / "scores.csv"
    rows = rows_of(path)
    edit(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return target


def compare(runs: list[Path], out: Path, *words: str) -> dict[str, dict[str, str]]:
    assert main(["compare", *map(str, runs), "--output", str(out), *words]) == 0
    return {row["figure"]: row for row in rows_of(out.with_suffix(".csv"))}


def test_runs_on_the_same_samples_are_paired(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(runs, tmp_path / "table")
    assert set(found) == {"effect", "identity"} and all(row["samples"] == "paired" for row in found.values())
    effect = found["effect"]
    assert (effect["attribute"], effect["run"], effect["other run"]) == ("skin", "supervised", "boundary")
    difference = changes(runs[0], "2") - changes(runs[1], "2")
    assert float(effect["difference"]) == pytest.approx(difference.mean(), abs=1e-6)
    assert float(effect["difference_low"]) < difference.mean() < float(effect["difference_high"])
    assert int(effect["difference_n"]) == 12 and effect["judge"].startswith("portraits-judge")
    assert (tmp_path / "table.tex").is_file() and "| skin | effect |" in capsys.readouterr().out


def test_the_caption_says_at_which_strength_each_run_is_compared(runs: list[Path], tmp_path: Path) -> None:
    for words, told in (
        ([], "supervised at +2, boundary at +2"),
        (["--strength=-1"], "supervised at -1, boundary at -1"),
    ):
        compare(runs, tmp_path / "table", *words)
        assert f"Compared are {told}" in (tmp_path / "table.md").read_text()


def test_an_effect_against_the_direction_counts_as_such(runs: list[Path], tmp_path: Path) -> None:
    def turned(rows: list[dict[str, str]]) -> None:
        before = {row["seed"]: float(row["skin"]) for row in rows if row["edit"] == "unedited"}
        for row in rows:
            row["skin"] = str(2 * before[row["seed"]] - float(row["skin"]))

    effect = compare([runs[0], copy(runs[0], tmp_path / "turned", turned)], tmp_path / "table")["effect"]
    assert float(effect["its value"]) == pytest.approx(-float(effect["other value"]), abs=1e-6)
    assert float(effect["difference"]) == pytest.approx(2 * float(effect["its value"]), abs=1e-6)


def test_runs_on_other_samples_are_not(runs: list[Path], tmp_path: Path) -> None:
    def other_seeds(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["seed"] = str(int(row["seed"]) + 10_000)

    def other_images(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["skin"] = str(float(row["skin"]) + 1)

    wanted = stats.ttest_ind(changes(runs[0], "2"), changes(runs[1], "2"), equal_var=False)
    for name, edit in (("seeds", other_seeds), ("images", other_images)):
        other = copy(runs[1], tmp_path / name, edit)
        effect = compare([runs[0], other], tmp_path / f"{name}-table")["effect"]
        assert effect["samples"] == "separate"
        assert float(effect["difference_low"]) == pytest.approx(wanted.confidence_interval().low, abs=1e-4)


def test_mistakes_are_one_line(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = copy(runs[1], tmp_path / "bare", lambda rows: None)
    (bare / "samples" / "scores.csv").unlink()
    judged = copy(runs[1], tmp_path / "judged", lambda rows: None)
    record = json.loads((judged / "run.json").read_text())
    record["config"]["evaluation"]["judge"] = "clip:x"
    (judged / "run.json").write_text(json.dumps(record))
    first = str(runs[0])
    for words, hint in (
        ([first], "RUN RUN"),
        ([first, first], "runs must differ"),
        ([first, str(tmp_path)], f"error: {tmp_path / 'run.json'}: No such file or directory"),
        ([first, str(bare)], "keeps no scores"),
        ([first, str(judged)], "same evaluation.judge"),
        ([first, str(runs[1]), "--strength", "7"], "no direction with a target at strength 7"),
    ):
        assert main(["compare", *words]) == 2
        out, err = capsys.readouterr()
        assert out == "" and hint in err and err.count("\n") == 1
