"""W&B's process killed, its disk full, its server mad: the run says once that tracking stopped, and finishes."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import FORKS, _main

from hspace.runs import tracking

MOMENTS = {
    "the first word": ("define_axis", 1),
    "a stage": ("log_progress", 3),
    "the summary": ("summary", 1),
    "an artifact": ("log_artifact", 2),
    "the end": ("finish", 1),
}
"""What the run asks of W&B when its process is killed: the method, and which call of it."""


def kill_wandb() -> None:
    """Kills W&B's own process, a child of this one."""
    served = [child for child in psutil.Process().children() if "wandb" in child.name() or "gpu" in child.name()]
    assert served
    for child in served:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()


def _main_and_kill(words: list[str], log: Path, method: str, call: int) -> None:
    """`hspace WORDS`, whose W&B is killed just before the given call of a method of `Run`."""
    plain, calls = getattr(tracking.Run, method), iter(range(1, 1000))

    def killing(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            kill_wandb()
        return plain(self, *arguments, **options)

    setattr(tracking.Run, method, killing)
    _main(words, log)


@pytest.mark.parametrize(
    "moment", [pytest.param(each, marks=[pytest.mark.slow] * (each not in ("a stage", "the end"))) for each in MOMENTS]
)
def test_a_run_outlives_the_process_of_wandb(moment: str, tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    words = [
        "debug=default", f"model.path={tiny_pipeline_dir}", f"output_dir={tmp_path / 'out'}", "device=cpu",
        f"cache_dir={tmp_path / 'cache'}", "tracking.mode=offline",
    ]  # fmt: skip
    process = FORKS.Process(target=_main_and_kill, args=(words, tmp_path / "log", *MOMENTS[moment]))
    process.start()
    process.join()
    said = (tmp_path / "log").read_text()
    assert process.exitcode == 0, said
    assert said.count("tracking stopped, and the run goes on") == 1
    assert "Traceback" not in said and "Error" not in said, said
    assert json.loads((tmp_path / "out" / "run.json").read_text())["figures"]


ANSWERS = {
    "words": (200, "text/html", b"<html>hello</html>"),
    "nothing": (200, "application/json", b"null"),
    "a list": (200, "application/json", b"[]"),
    "deep": (200, "application/json", b"[" * 100_000),
    "empty": (200, "application/json", b'{"data": {}}'),
    "of wrong types": (200, "application/json", b'{"data": {"viewer": 3, "serverInfo": [], "upsertBucket": "x"}}'),
    "refusal": (403, "text/plain", b"\xff\xfe no"),
    "moved": (404, "text/plain", b""),
}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server on this machine that gives one answer to everything."""
    code, kind, body = ANSWERS[request.param]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


ONLINE = """
import logging, sys
from pathlib import Path
from hspace.runs import tracking
from hspace.types import InputError
logging.basicConfig(format="%(message)s")
tracking.ONLINE_TIMEOUT, tracking.FINISH_TIMEOUT = 3, 3
spec = tracking.RunSpec("id", "name", "job", {"a": 1}, Path(sys.argv[1]), "online")
with tracking.open_run(spec) as run:
    run.log_metrics({"loss": 0.5})
    run.log_artifact("report", "report", [Path(sys.argv[2])])
    run.use_files("report", "report", [Path(sys.argv[2])])
try:
    tracking.read_project("me/faces")
except InputError as error:
    print(error)
print("finished")
"""


@pytest.mark.parametrize(
    "server",
    [pytest.param(each, marks=[pytest.mark.slow] * (each != "of wrong types")) for each in ANSWERS],
    indirect=True,
)
def test_a_run_outlives_odd_answers_of_a_server(server: str, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"WANDB_BASE_URL": server, "WANDB_API_KEY": "a" * 40, "PYTHONPATH": str(Path(__file__).parents[2])}
    env |= {"NETRC": str(tmp_path / "none"), "HOME": str(tmp_path)}
    (tmp_path / "report.txt").write_text("report")
    command = [sys.executable, "-c", ONLINE, tmp_path / "out", tmp_path / "report.txt"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    problem, end = done.stdout.splitlines()
    assert problem.startswith("W&B project me/faces: ") and end == "finished"
    assert done.stderr.startswith("tracking ") and done.stderr.count("\n") <= 2, done.stderr
