"""Directions of the tiny model, and a photograph of a person that is in the public domain (NASA)."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from vectors import directions_of

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.evaluation.ranges import SliderRange, with_ranges

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def directions_file(tiny_model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("directions") / "tiny.safetensors"
    directions_of(tiny_model).save(path)
    return path


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut Eileen Collins, 300 x 220 pixels, stored lying on its side with the EXIF tag that turns it."""
    path = tmp_path_factory.mktemp("photographs") / "astronaut.jpg"
    upright = Image.fromarray(data.astronaut()).crop((60, 0, 360, 220))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(path, quality=95, exif=exif)
    return path


class Served:
    """A studio in a process of its own, as a user starts it."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.folder, self.log = folder, folder / "server.log"
        command = [sys.executable, "-m", "hspace.cli", "studio", "--no-browser", *words]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output)
        deadline = time.monotonic() + 240  # imports on a busy machine; a crash ends the wait at once
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        self.url, self.port, self.token = found[0], int(found[1]), found[2]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> tuple[int, bytes]:
        """One request; a header of None is left out. Gives status and body."""
        sent = {"Host": f"127.0.0.1:{self.port}", "X-Token": self.token}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, path: str, value: object) -> tuple[int, list]:
        """A JSON request; gives status and the answer's lines of JSON."""
        status, body = self.ask("POST", f"/api/{path}", json.dumps(value).encode())
        return status, [json.loads(line) for line in body.splitlines()]

    def stop(self) -> None:
        """Interrupts it as a user does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="module")
def served(
    tiny_pipeline_dir: Path, directions_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    words = ["--direction", str(directions_file), "--samples", "2", f"model.path={tiny_pipeline_dir}"]
    studio = Served([*words, "diffusion.num_steps=3"], tmp_path_factory.mktemp("served"))
    yield studio
    studio.stop()


@pytest.fixture(scope="session")
def portraits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random directions of the embedded model, short enough to keep its faces; the last one has a range."""
    path = tmp_path_factory.mktemp("directions") / "portraits.safetensors"
    directions = directions_of(load_model("portraits", device="cpu"), ("smile", "age", "yaw"), size=0.2)
    measured = SliderRange(
        "yaw", -2.0, 2.0, "age", "untested", tuple(np.linspace(-2, 2, 9).tolist()), (-2.0, 0.0, 2.0),
        ((None, None, None), (0.0, 0.0, 0.0), (0.5, 0.4, 0.6)), (), {}, "none", tuple(range(1_000_000, 1_000_012)),
        shown=(9, 12, 11),
    )  # fmt: skip
    with_ranges(directions, {2: measured}).save(path)
    return path
