"""`hspace push` and `hub:OWNER/NAME`, against a local stand-in of the hub's API, through real processes."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hspace.cli import main
from hspace.directions.hub import card
from hspace.directions.record import Directions

ROOT = Path(__file__).parents[2]
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a commit and a download need; files lie in the server's `files`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self.answer(200, {"url": self.address("/me/smiles")})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        assert self.path.startswith("/api/models/me/smiles/commit/main"), self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])  # type: ignore[attr-defined]
        url = self.address(f"/me/smiles/commit/{COMMIT}")
        return self.answer(200, {"success": True, "commitUrl": url, "commitOid": COMMIT})

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        content = self.server.files.get(name)  # type: ignore[attr-defined]
        if "/me/smiles/resolve/" not in self.path or content is None:
            status = 404 if "Authorization" in self.headers else 401  # the hub tells strangers no more
            return self.answer(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self.answer(200, content, etag)

    do_HEAD = do_GET

    def address(self, path: str) -> str:
        address: Any = self.server.server_address
        return f"http://127.0.0.1:{address[1]}{path}"

    def answer(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {}  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def hspace(words: list[str], folder: Path, server: ThreadingHTTPServer, **env: str) -> subprocess.CompletedProcess[str]:
    address = f"http://127.0.0.1:{server.server_address[1]}"
    env = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": "hf_right",
        "HF_HUB_DISABLE_XET": "1",
    } | env
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    command = [sys.executable, "-m", "hspace.cli", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_what_was_pushed_edits_elsewhere(
    hub: ThreadingHTTPServer, directions_file: Path, tiny_pipeline_dir: Path, tmp_path: Path
):
    done = hspace(["push", "me/smiles", str(directions_file)], tmp_path, hub)
    assert (done.returncode, done.stderr) == (0, "") and f"/me/smiles/commit/{COMMIT}" in done.stdout
    files = hub.files  # type: ignore[attr-defined]
    assert files["directions.safetensors"] == directions_file.read_bytes()
    text = files["README.md"].decode()
    assert "| 0 | smile | not measured |" in text and "Responsible use" in text
    words = ["edit", "3", "--direction", "hub:me/smiles:age", "--animation", "none", f"model.path={tiny_pipeline_dir}"]
    done = hspace([*words, "diffusion.num_steps=3"], tmp_path, hub)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "outputs/edit/seed-3/edit.json").read_text())
    assert record["directions"][0]["name"] == "age"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["push", "me", "FILE"], "OWNER/NAME"),
        (["push", "me/smiles"], "use it as hspace push"),
        (["push", "me/smiles", "none.safetensors"], "not found: none.safetensors"),
        (["push", "me/smiles", "FILE", "--strip", "FILE"], "--strip must be a PNG"),
    ],
)
def test_a_mistake_is_one_line_before_the_hub_is_asked(
    words: list[str],
    hint: str,
    directions_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.replace("FILE", str(directions_file)) for word in words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and hint in err


FAR = pytest.mark.slow
"""One of each kind is enough for every day: each takes a process of its own."""


@pytest.mark.parametrize(
    ("words", "env", "hint"),
    [
        (["push", "me/smiles", "FILE"], {"HF_TOKEN": "hf_wrong"}, "no permission (401)"),
        pytest.param(["push", "me/smiles", "FILE"], {"HF_HUB_OFFLINE": "1"}, "told not to be", marks=FAR),
        pytest.param(
            ["push", "me/smiles", "FILE"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached", marks=FAR
        ),
        (
            ["edit", "3", "--direction", "hub:me/nothing"],
            {"HF_TOKEN": ""},
            "me/nothing on the hub: there is none, or it is not yours to see",
        ),
        pytest.param(
            ["method=file", "method.path=hub:me/nothing"], {"HF_HUB_OFFLINE": "1"}, "me/nothing on the hub", marks=FAR
        ),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    words: list[str], env: dict[str, str], hint: str, hub: ThreadingHTTPServer, directions_file: Path, tmp_path: Path
):
    done = hspace([word.replace("FILE", str(directions_file)) for word in words], tmp_path, hub, **env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and hint in done.stderr, done.stderr


def test_names_on_the_card_are_text(directions_file: Path):
    directions = Directions.load(directions_file)
    object.__setattr__(directions.meta, "names", ("<script>|", "[a](http://b)"))
    text = card(directions, "me/x")
    assert "\\<script\\>\\|" in text and "\\[a\\]\\(http://b\\)" in text


@pytest.mark.parametrize("measured", [None, [], 3, {"range": None}, {"calibration": []}])
def test_nonsense_in_a_strangers_measurements_is_not_measured(directions_file: Path, measured: object) -> None:
    directions = Directions.load(directions_file)
    kept = replace(directions, meta=replace(directions.meta, calibration={"smile": measured}))
    assert "| smile | not measured |" in card(kept, "me/x")


def test_a_number_of_samples_on_the_card_is_text(directions_file: Path) -> None:
    directions = Directions.load(directions_file)
    found = {"attribute": "age", "effect": 0.5, "low": 0.4, "high": 0.6, "n": "<img src=x>", "strength": 1.0}
    kept = replace(directions, meta=replace(directions.meta, calibration={"smile": {"calibration": found}}))
    assert "n = \\<img src=x\\>" in card(kept, "me/x")
