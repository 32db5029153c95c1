"""Real W&B runs, read back from their transaction logs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb.errors
from hydra import compose, initialize_config_dir
from PIL import Image

from hspace.metrics.interval import Interval
from hspace.output.tables import Table
from hspace.runs.collecting import collected_table, read_folders
from hspace.runs.config import Config
from hspace.runs.parsing import parse
from hspace.runs.tracking import read_project, run_id, track
from hspace.system.files import package_path, sha256_file, write_json
from hspace.types import InputError


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    overrides = [f"output_dir={tmp_path / 'out'}", "tracking.tags=[a-tag]", "tracking.group=a-group"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return parse(compose("config", overrides=overrides))


def read_back(folder: Path, *options: str) -> str:
    wandb = Path(sys.executable).with_name("wandb")
    return subprocess.run(
        [wandb, "leet", "inspect", "--json", *options, folder], capture_output=True, text=True, check=True
    ).stdout


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_offline_run_holds_config_metrics_table_image_and_artifact(cfg: Config, tmp_path: Path, capfd: Any):
    image, directions = tmp_path / "picture.png", tmp_path / "directions.safetensors"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(image)
    directions.write_bytes(b"0123")

    table = Table(("direction", "effect"), (("component 0", Interval(0.5, 0.4, 0.6, 20)), ("other", None)), "Effects.")

    with track(cfg) as run:
        run.log_metrics({"loss": 0.5}, step=7)
        run.log_table("effects", table)
        run.log_image("picture", image)
        run.log_artifact("directions-pca", "directions", [directions])
        run.log_artifact("report-pca", "report", [image])
        run.use_files("found-before", "directions", [directions])
        run.summary({"effect": 1.25})

    assert capfd.readouterr() == ("", "")
    overview = json.loads(read_back(cfg.output_dir / "wandb", "--summary"))
    assert overview["state"] == "finished" and overview["run_id"] == run_id(cfg)
    assert overview["project"] == "hspace" and overview["tags"] == ["a-tag"]
    assert overview["config"]["diffusion"]["num_steps"] == 10
    assert overview["config"]["edit"]["strengths"] == [-3.0, -1.5, 0.0, 1.5, 3.0]
    assert overview["summary"]["loss"] == 0.5 and overview["summary"]["effect"] == 1.25
    artifacts = overview["config"]["artifacts"]
    assert set(artifacts) == {"directions-pca", "report-pca"}
    assert artifacts["directions-pca"]["files"][directions.name]["sha256"] == sha256_file(directions)

    assert overview["config"]["inputs"]["found-before"]["files"] == artifacts["directions-pca"]["files"]

    records = [json.loads(line) for line in read_back(cfg.output_dir / "wandb").splitlines()]
    opened = next(record["run"] for record in records if record["type"] == "run")
    assert opened["run_group"] == "a-group" and opened["job_type"] == "pca"
    logged = [record["artifact"] for record in records if record["type"] == "artifact"]
    assert {"directions-pca", "report-pca"} <= {artifact["name"] for artifact in logged}
    assert any(record["history"]["item"].get("loss") == 0.5 for record in records if record["type"] == "history")
    logged_table = next((cfg.output_dir / "wandb").rglob("*.table.json"))
    assert json.loads(logged_table.read_text())["data"] == [["component 0", [0.5, 0.4, 0.6, 20]], ["other", None]]
    assert next((cfg.output_dir / "wandb").rglob("picture*.png")).read_bytes() == image.read_bytes()
    assert list((cfg.output_dir / "wandb" / "artifacts").rglob("tmp*"))
    assert not (tmp_path / "elsewhere" / "artifacts").exists() and "WANDB_DATA_DIR" not in os.environ


def test_a_run_that_raises_is_marked_failed(cfg: Config):
    with pytest.raises(ZeroDivisionError), track(cfg):
        _ = 1 / 0
    assert json.loads(read_back(cfg.output_dir / "wandb", "--summary"))["exit_code"] == 1


def test_disabled_writes_nothing(cfg: Config, tmp_path: Path):
    disabled = replace(cfg, tracking=replace(cfg.tracking, mode="disabled"))
    picture = tmp_path / "picture.png"
    Image.new("RGB", (2, 2)).save(picture)
    with track(disabled) as run:
        run.log_metrics({"loss": 0.5})
        run.log_table("effects", Table(("a",), ((1,),), "Ones."))
        run.log_image("picture", picture)
        run.log_artifact("report-pca", "report", [picture])
        run.summary({"effect": 1.25})
    assert not files_of(cfg.output_dir)


ONLINE = """
import logging, sys
from hydra import compose, initialize_config_dir
from hspace.runs import tracking
from hspace.runs.parsing import parse
from hspace.system.files import package_path

logging.basicConfig(format="%(message)s")
tracking.ONLINE_TIMEOUT = 1
with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
    cfg = parse(compose("config", overrides=[f"output_dir={sys.argv[1]}", "tracking.mode=online"]))
with tracking.track(cfg) as run:
    run.log_metrics({"loss": 0.5})
"""


@pytest.mark.parametrize("key", [None, "a" * 40], ids=["no login", "no server"])
def test_online_goes_on_offline_with_one_line(cfg: Config, key: str | None, tmp_path: Path):
    # Nothing listens on the discard port of this machine. A fresh process, since W&B reads the address once.
    env = {**os.environ, "WANDB_BASE_URL": "http://127.0.0.1:9", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", ONLINE, str(cfg.output_dir)]
    done = subprocess.run(
        command, env=env | ({"WANDB_API_KEY": key} if key else {}), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == ""
    assert done.stderr.startswith("tracking goes on offline") and done.stderr.count("\n") == 1
    assert json.loads(read_back(cfg.output_dir / "wandb", "--summary"))["summary"]["loss"] == 0.5


def test_the_id_follows_configuration_and_folder_only(cfg: Config):
    assert run_id(cfg) == run_id(replace(cfg, batch_size=3))
    assert run_id(cfg) != run_id(replace(cfg, seed=1))
    assert run_id(cfg) != run_id(replace(cfg, output_dir=cfg.output_dir / "other"))


class Server:
    """In the place of `wandb.Api`: keeps what it was asked."""

    def runs(self, path: str, filters: dict[str, str]) -> list[SimpleNamespace]:
        self.asked = (path, filters)
        return [SimpleNamespace(name=f"run-{i}", config={"seed": i}, summary={"mean/effect": i / 2}) for i in range(2)]


def test_runs_on_the_server_become_the_same_table_as_folders(tmp_path: Path):
    server = Server()
    records = read_project("me/faces/study", server)
    assert server.asked == ("me/faces", {"state": "finished", "group": "study"})
    for record in records:
        write_json(tmp_path / record.name / "run.json", {"config": record.config, "findings": record.results})
    assert collected_table(records) == collected_table(read_folders([tmp_path]))
    with pytest.raises(InputError, match="ENTITY/PROJECT"):
        read_project("faces", server)


def test_a_server_that_cannot_be_asked_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise wandb.errors.UsageError("no API key\nconfigured")

    monkeypatch.setattr("wandb.Api", refuse)
    with pytest.raises(InputError, match="W&B project me/faces: no API key configured"):
        read_project("me/faces")


def test_without_tracking_wandb_is_not_imported() -> None:
    ask = "import hspace.commands.run, sys; print(any(name.startswith('wandb.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout.strip() == "False"


SWEPT = """
import json, sys
from pathlib import Path
from hspace.runs import tracking
spec = tracking.RunSpec("id", "name", "job", {"method": {"name": "pca", "k": 8}}, Path(sys.argv[1]), "offline")
run = tracking._init(spec)
print("config", json.dumps(dict(run.config)))
run.finish()
"""


def test_the_settings_of_a_swept_run_outlive_the_sweeps_own_values(tmp_path: Path) -> None:
    """W&B replaces `method`, a key of the configuration, by the name that the sweep gives."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nmethod:\n  value: pca\n")
    env = {**os.environ, "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    done = subprocess.run([sys.executable, "-c", SWEPT, str(tmp_path)], capture_output=True, text=True, env=env)
    (line,) = (each for each in done.stdout.splitlines() if each.startswith("config "))
    found = json.loads(line.removeprefix("config "))
    assert found == {"method": "pca", "settings": {"method": {"name": "pca", "k": 8}}}
