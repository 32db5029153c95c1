"""The workspace and the report: as files without a key, and as a stand-in of W&B's server is sent them with one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb_server import Standin, listening, logged_in

ROOT = Path(__file__).parents[2]
OPENED = ["Overall", "Over strength", "Figures", "Progress and memory"]
"""Titles of the parts, in order."""


def build(folder: Path, *words: str) -> dict[str, Any]:
    """What the script writes where there is no key."""
    pytest.importorskip("wandb_workspaces")
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"NETRC": str(folder / "none"), "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "dashboard.py", "--project", "faces", "--output", "spec.json", *words],
        cwd=folder, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "spec.json" in done.stdout
    return json.loads((folder / "spec.json").read_text())


def test_without_a_key_the_workspace_is_a_file(tmp_path: Path) -> None:
    specification = build(tmp_path)
    assert specification["project"] == "faces"
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    shown = {section["name"]: json.dumps(section["panels"]) for section in sections if section["panels"]}
    assert list(shown) == OPENED
    assert '"mean/accuracy"' in shown["Overall"] and '"identity/direction_7"' in shown["Over strength"]
    assert "progress/seconds" in shown["Progress and memory"]


def test_a_report_shows_the_same_panels_with_a_word_on_each(tmp_path: Path) -> None:
    specification = build(tmp_path, "--report")
    assert specification["project"]["name"] == "faces"
    blocks = specification["spec"]["blocks"]
    grids = [json.dumps(block["metadata"]) for block in blocks if block["type"] == "panel-grid"]
    assert len(grids) == 4 and '"mean/accuracy"' in grids[0] and '"figures/samples"' in grids[2]
    assert "compares runs side by side" in json.dumps(blocks)


def publish(standin: Standin, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The script with a key of the stand-in."""
    pytest.importorskip("wandb_workspaces")
    command = [sys.executable, ROOT / "scripts" / "dashboard.py", "--project", "faces", *words]
    return subprocess.run(command, cwd=folder, env=logged_in(standin, folder), capture_output=True, text=True)


def test_with_a_key_the_workspace_is_sent(tmp_path: Path) -> None:
    with listening(Standin()) as standin:
        done = publish(standin, tmp_path)
    assert done.returncode == 0, done.stderr
    (sent,) = standin.sent("UpsertView2")
    assert (sent["entityName"], sent["projectName"], sent["type"]) == ("me", "faces", "project-view")
    assert sent["displayName"] == "hspace" and "id" not in sent  # a new view: nobody's own is written over
    sections = json.loads(sent["spec"])["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections][:4] == OPENED
    assert done.stdout.strip().startswith(f"{standin.address}/me/faces?nw=")
    assert not (tmp_path / "outputs").exists()


def test_with_a_key_the_report_is_sent(tmp_path: Path) -> None:
    with listening(Standin()) as standin:
        done = publish(standin, tmp_path, "--report", "--entity", "team")
    assert done.returncode == 0, done.stderr
    (sent,) = standin.sent("upsertView")
    assert (sent["entityName"], sent["projectName"], sent["type"]) == ("team", "faces", "runs")
    blocks = json.loads(sent["spec"])["blocks"]
    assert [block["children"][0]["text"] for block in blocks if block["type"] == "heading"] == OPENED
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    assert [grid["runSets"][0]["project"]["entityName"] for grid in grids] == ["team"] * 4
    assert done.stdout.strip() == f"{standin.address}/team/faces/reports/hspace:-directions--VmlldzoxMjM="


def test_a_report_on_a_project_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    standin = Standin()
    standin.projects = False
    with listening(standin) as served:
        done = publish(served, tmp_path, "--report")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "hspace: error: W&B project me/faces: Run set 'runs' project 'me/faces' not found" in done.stderr
    assert not standin.sent("upsertView")


def test_without_its_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "wandb_workspaces.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb_workspaces'\")")
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "dashboard.py"], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    told = "hspace: error: No module named 'wandb_workspaces'; pip install '.[dashboard]' brings it\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_the_sweep_is_sent_as_its_file_says(tmp_path: Path) -> None:
    sweep = ROOT / "scripts" / "sweep.yaml"
    wandb = Path(sys.executable).with_name("wandb")
    with listening(Standin()) as standin:
        done = subprocess.run(
            [wandb, "sweep", "--project", "hspace", sweep],
            cwd=tmp_path, env=logged_in(standin, tmp_path), capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sent,) = standin.sent("UpsertSweep")
    assert sent["projectName"] == "hspace"
    assert yaml.safe_load(sent["config"]) == yaml.safe_load(sweep.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_an_agent_of_the_sweep_runs_hspace_which_sends_its_run(tmp_path: Path, tiny_pipeline_dir: Path) -> None:
    chosen = {"method": "random", "seed": 1, "debug": "default", "device": "cpu", "model.path": str(tiny_pipeline_dir)}
    chosen |= {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
    asked = {key: {"value": value} for key, value in chosen.items()}
    binaries = Path(sys.executable).parent
    standin = Standin()
    standin.sweep = (ROOT / "scripts" / "sweep.yaml").read_text(encoding="utf-8")
    standin.commands = [{"type": "run", "run_id": "first", "program": None, "args": asked}]
    with listening(standin) as served:
        env = logged_in(served, tmp_path)
        done = subprocess.run(
            [binaries / "wandb", "agent", "--count", "1", "me/hspace/sweep-id"],
            cwd=tmp_path, env=env | {"PATH": f"{binaries}{os.pathsep}{env['PATH']}"}, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    opened = standin.sent("UpsertBucket")[0]
    assert (opened["name"], opened["sweep"], opened["project"]) == ("first", "sweep-id", "hspace")
    config = {key: held["value"] for key, held in json.loads(opened["config"]).items() if key != "_wandb"}
    assert (config["method"], config["settings"]["method"]["name"]) == ("random", "random")
    assert "tables/directions" in json.loads(standin.files["wandb-summary.json"])
    assert any("strength" in point for point in standin.history)
