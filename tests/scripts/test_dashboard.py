"""The workspace is built without a server, and shows what runs log."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_without_a_key_the_specification_is_a_file(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"NETRC": str(tmp_path / "none"), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "dashboard.py", "--project", "faces", "--output", "spec.json"],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "spec.json" in done.stdout
    specification = json.loads((tmp_path / "spec.json").read_text())
    assert specification["project"] == "faces"
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    shown = {section["name"]: json.dumps(section["panels"]) for section in sections if section["panels"]}
    assert list(shown) == ["Overall", "Over strength", "Figures", "Progress and memory"]
    assert '"mean/accuracy"' in shown["Overall"] and '"identity/direction_7"' in shown["Over strength"]
    assert "progress/seconds" in shown["Progress and memory"]
