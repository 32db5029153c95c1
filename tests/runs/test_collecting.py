"""Many runs become one table of what differs between them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hspace.runs.collecting import Record, collected_table, read_folders, seeds_table
from hspace.types import InputError

ROOT = Path(__file__).parents[2]


def config(**more: Any) -> dict[str, Any]:
    return {"seed": 0, "output_dir": f"{more}", "method": {"name": "pca", "k": 8}, "edit": {"strengths": [1.0]}} | more


def save(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    results = {"mean/effect": seed / 2, "effect/yaw/direction_0": 1.0}
    (folder / "run.json").write_text(json.dumps({"config": config(seed=seed), "findings": results}))


def test_columns_are_what_differs_and_the_overall_figures() -> None:
    records = [
        Record("a", config(), {"mean/effect": 0.5, "identity/direction_0": 1.0}),
        Record("b", config(edit={"strengths": [2.0, 3.0]}), {"mean/effect": 1.5, "state": "finished"}),
    ]
    table = collected_table(records)
    assert table.columns == ("run", "edit.strengths", "mean/effect")
    assert table.rows == (("a", "[1.0]", 0.5), ("b", "[2.0, 3.0]", 1.5))


def test_folders_are_searched_and_copies_left_out(tmp_path: Path) -> None:
    for seed in (1, 0):
        save(tmp_path / f"run-{seed}", seed)
    save(tmp_path / "run-0" / "wandb" / "copy", 5)
    (tmp_path / "study").mkdir()
    experiment = {"config": config(study={"title": "A figure"}), "findings": {"found": 3, "by": {"a": 1}}}
    (tmp_path / "study" / "run.json").write_text(json.dumps(experiment))
    records = read_folders([tmp_path])
    assert [record.name for record in records] == ["run-0", "run-1", "study"]
    assert collected_table(records).columns == ("run", "seed", "mean/effect", "found")
    with pytest.raises(InputError, match="no finished run"):
        read_folders([tmp_path / "nowhere"])
    (tmp_path / "run-1" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="run-1"):
        read_folders([tmp_path])


def test_the_script_writes_the_table(tmp_path: Path) -> None:
    for seed in (0, 1):
        save(tmp_path / "runs" / f"run-{seed}", seed)
    script = [sys.executable, str(ROOT / "scripts" / "collect.py")]
    done = subprocess.run([*script, "runs", "--output", "table"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table" / "collected.csv").read_text() == "run,seed,mean/effect\nrun-0,0,0.0\nrun-1,1,0.5\n"
    done = subprocess.run([*script, "nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_seeds_are_summed_up_by_mean_sd_and_n() -> None:
    records = [
        Record(
            f"{strength}-{seed}", config(seed=seed, edit={"strengths": [strength]}), {"mean/effect": strength * seed}
        )
        for strength in (1.0, 2.0)
        for seed in (0, 1, 5)
    ]
    table = seeds_table(records)
    assert table is not None and table.columns == ("edit.strengths", "n", "mean/effect", "mean/effect sd")
    sd = (((0 - 2) ** 2 + (1 - 2) ** 2 + (5 - 2) ** 2) / 2) ** 0.5
    assert table.rows == (("[1.0]", 3, 2.0, pytest.approx(sd)), ("[2.0]", 3, 4.0, pytest.approx(2 * sd)))
    assert seeds_table(records[:1]) is None and seeds_table(records[::3]) is None


def test_runs_of_other_studies_and_the_same_seed_again_are_not_more_seeds() -> None:
    records = [
        Record("run", config(seed=seed, study={"title": str(seed), "target": target}), {"ratio": target + seed})
        for target in (0.5, 1.0)
        for seed in (0, 1)
    ]
    table = seeds_table([*records, records[0]])
    assert table is not None and table.columns == ("study.target", "n", "ratio", "ratio sd")
    assert [row[:3] for row in table.rows] == [(0.5, 2, 1.0), (1.0, 2, 1.5)]
    assert seeds_table([records[0], records[0]]) is None


def test_a_figure_that_a_run_lacks_has_no_mean() -> None:
    records = [Record(f"{seed}", config(seed=seed), {"a": 1.0} | ({"b": 2.0} if seed else {})) for seed in (0, 1, 2)]
    table = seeds_table(records)
    assert table is not None and table.columns == ("n", "a", "a sd", "b", "b sd")
    assert table.rows == ((3, 1.0, 0.0, None, None),)


def test_what_studies_are_about_is_told_apart_among_those_of_one_procedure() -> None:
    def run(procedure: str, target: float) -> Record:
        return Record(procedure, config(procedure=procedure, study={"target": target}), {})

    assert collected_table([run("fig9", 0.5), run("fig11", 1.0)]).columns == ("run", "procedure")
    several = [run("fig9", 0.5), run("fig11", 1.0), run("fig9", 1.0)]
    assert collected_table(several).columns == ("run", "procedure", "study.target")
