"""What W&B's own client sends of a run, and reads of a project, checked at a stand-in of the server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from wandb_server import Standin, listening, logged_in

from hspace.system.files import sha256_file

ROOT = Path(__file__).parents[2]
ONLINE = """
import sys
from pathlib import Path
from hspace.metrics.interval import Interval
from hspace.output.tables import Table
from hspace.runs import tracking
picture = Path(sys.argv[2])
spec = tracking.RunSpec("the-id", "a name", "pca", {"seed": 3}, Path(sys.argv[1]), "online", group="g", tags=("t",))
nan = float("nan")
with tracking.open_run(spec) as run:
    run.log_progress("read", 1, 2)
    run.log_metrics({"strength": 1.0, "effect/direction_0": 0.5})
    run.log_image("directions", picture)
    run.log_table("effects", Table(("a", "b"), ((Interval(0.5, 0.4, 0.6, 20), Interval(nan, nan, nan, 2)),), "Some."))
    run.log_artifact("directions-pca", "directions", [picture])
    run.summary({"mean/effect": 1.25})
"""


@pytest.fixture
def server() -> Iterator[Standin]:
    with listening(Standin()) as standin:
        yield standin


def test_an_online_run_sends_config_curves_pictures_tables_and_artifacts(server: Standin, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (4, 6)).save(picture)
    command = [sys.executable, "-c", ONLINE, tmp_path / "out", picture]
    done = subprocess.run(command, env=logged_in(server, tmp_path), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    opened = server.sent("UpsertBucket")[0]
    named = {key: opened[key] for key in ("name", "displayName", "project", "groupName", "jobType", "tags")}
    place = {"project": "hspace", "groupName": "g", "jobType": "pca", "tags": ["t"]}
    assert named == {"name": "the-id", "displayName": "a name", **place}
    assert json.loads(opened["config"])["seed"] == {"value": 3}
    last = json.loads(server.sent("UpsertBucket")[-1]["config"])
    assert last["artifacts"]["value"]["directions-pca"]["files"][picture.name]["sha256"] == sha256_file(picture)

    points = [point for point in server.history if "effect/direction_0" in point]
    assert [(point["strength"], point["effect/direction_0"]) for point in points] == [(1, 0.5)]
    assert next(point["progress/read"] for point in server.history if "progress/read" in point) == 0.5
    (drawn,) = (body for name, body in server.files.items() if name.startswith("media/images/figures/directions_"))
    assert drawn == picture.read_bytes()
    (table,) = (body for name, body in server.files.items() if name.endswith(".table.json"))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not of JSON, and a browser does not read it")

    assert json.loads(table, parse_constant=refuse)["data"] == [[[0.5, 0.4, 0.6, 20], [None, None, None, 2]]]
    sent = {each["input"]["artifactCollectionName"]: each["input"] for each in server.sent("CreateArtifact")}
    assert sent["directions-pca"]["artifactTypeName"] == "directions" and sent["directions-pca"]["runName"] == "the-id"
    assert json.loads(sent["directions-pca"]["metadata"])["producer"] == "the-id"
    assert json.loads(server.files["wandb-summary.json"])["mean/effect"] == 1.25


def test_the_runs_of_a_project_are_collected(server: Standin, tmp_path: Path) -> None:
    for seed in (0, 1):
        config = json.dumps({"seed": {"value": seed}, "method": {"value": {"name": "pca"}}})
        run = {"id": f"id{seed}", "name": f"id{seed}", "displayName": f"run {seed}", "state": "finished", "tags": []}
        summary = json.dumps({"mean/effect": 0.5 + seed})
        server.runs.append({**run, "projectId": "1", "config": config, "summaryMetrics": summary, "user": {}})
    command = [sys.executable, ROOT / "scripts" / "collect.py", "wandb:me/faces/study", "--output", "."]
    done = subprocess.run(command, env=logged_in(server, tmp_path), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (asked,) = server.sent("Runs")
    assert (asked["entity"], asked["project"]) == ("me", "faces")
    assert json.loads(asked["filters"]) == {"state": "finished", "group": "study"}
    assert (tmp_path / "collected.csv").read_text().split() == [
        "run,seed,mean/effect",
        "run",
        "0,0,0.5",
        "run",
        "1,1,1.5",
    ]
