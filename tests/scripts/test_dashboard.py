"""The workspace is built without a server, and shows what runs log."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


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
    assert list(shown) == ["Overall", "Over strength", "Figures", "Progress and memory"]
    assert '"mean/accuracy"' in shown["Overall"] and '"identity/direction_7"' in shown["Over strength"]
    assert "progress/seconds" in shown["Progress and memory"]


def test_a_report_shows_the_same_panels_with_a_word_on_each(tmp_path: Path) -> None:
    specification = build(tmp_path, "--report")
    assert specification["project"]["name"] == "faces"
    blocks = specification["spec"]["blocks"]
    grids = [json.dumps(block["metadata"]) for block in blocks if block["type"] == "panel-grid"]
    assert len(grids) == 4 and '"mean/accuracy"' in grids[0] and '"figures/samples"' in grids[2]
    assert "compares runs side by side" in json.dumps(blocks)
