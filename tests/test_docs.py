"""The documentation's site names every public name and every setting, and builds without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hspace
from hspace.directions.settings import METHODS
from hspace.runs.config import known_keys

ROOT = Path(__file__).parents[1]


def test_the_reference_has_every_public_name_once() -> None:
    named = re.findall(r"^::: hspace\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted(hspace.__all__)


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_every_setting(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    settings = pages["configuration.html"]
    sections = {key.rpartition(".")[0] for key in known_keys()}
    keys = [key for key in known_keys() if key not in sections and not key.startswith("method")]
    missing = [key for key in keys if f"<code>{key}</code>" not in settings]
    assert not missing
    assert all(f"method={name}" in settings for name in METHODS.names())
    # Equations are drawn by the browser itself, and no page asks another host for anything.
    assert "<math" in pages["method.html"]
    for name, page in pages.items():
        outside = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page)
        assert not outside, (name, outside)
