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
