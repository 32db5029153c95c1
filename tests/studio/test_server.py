"""The studio's server in a process of its own: what it answers, and what it does not let itself be talked into."""

import base64
import io
import json
import socket
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
import uvicorn
from hydra import compose, initialize_config_dir
from PIL import Image

from hspace.commands.studio import serve
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.record import Directions
from hspace.directions.shipped import ready_path
from hspace.edits.sums import edit_offsets
from hspace.output.animation import to_pixels
from hspace.runs.parsing import parse
from hspace.studio.session import Session
from hspace.studio.shelf import Choice, Shelf
from hspace.studio.sliders import Bench, Slider
from hspace.studio.stream import watched
from hspace.system.files import package_path
from hspace.types import InputError

TAB = {"tab": "t", "source": "seed-2000000"}


def picture(text: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("injection", ["symmetric", "asyrp"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_watched_edit_ends_as_sampling_does(
    tiny_model: DiffusionModel, directions_file: Path, eta: float, injection: str
):
    offsets = edit_offsets(Directions.load(directions_file), torch.tensor([[1.0, 0.0], [-2.0, 0.5]]), 3)
    latents = tiny_model.latents([4])
    *previews, last = watched(tiny_model, latents, offsets, sampler=Sampler(eta=eta, injection=injection))
    both = latents.select([0, 0])
    expected = sample(tiny_model, both, sampler=Sampler(eta=eta, injection=injection), delta_h=offsets).x_0
    assert len(previews) == 2 and torch.equal(last, expected)


def test_a_strip_and_an_exact_image_agree(served, tiny_model: DiffusionModel):
    status, frames = served.post("strip", {**TAB, "slider": 0})
    assert status == 200 and [frame.get("step") for frame in frames] == [1, 2, 3, None]
    strip = picture(frames[2]["image"])
    assert strip.shape == (16, 9 * 16, 3)
    strengths = served.post("source", TAB) and json.loads(served.ask("GET", "/api/state")[1])["sliders"][0]["strengths"]
    status, frames = served.post("exact", {**TAB, "terms": {"0": strengths[7]}})
    assert frames[-1]["done"] and -1 <= frames[-1]["identity"] <= 1
    exact = picture(frames[-2]["image"]).astype(int)
    assert np.abs(exact - strip[:, 112:128]).max() <= 1
    (unedited,) = to_pixels(sample(tiny_model, tiny_model.latents([2_000_000])).x_0)
    assert np.abs(strip[:, 64:80].astype(int) - unedited).max() <= 1


def test_the_page_begins_with_the_configured_steps_and_can_take_others(
    tiny_model: DiffusionModel, tiny_pipeline_dir: Path, directions_file: Path, tmp_path: Path
):
    words = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", "edit.stop=2"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = parse(compose("config", overrides=words))
    directions = Directions.load(directions_file)
    session = Session(Bench(cfg, tiny_model, (Slider(directions_file, directions, 0),), None, None), tmp_path, (4,))
    state, source = session.state(), session.source("seed-4")
    assert (state["steps"], state["window"]) == (3, [0, 2])
    offset = torch.tensor([[state["sliders"][0]["strengths"][7], 0.0]])
    for window in ((0, 2), (0, 3), (1, 3)):
        *_, strip = session.strip(source, 0, *window)
        offsets = edit_offsets(directions, offset, 3, *window)
        assert (strip[7] - sample(tiny_model, source.latents, delta_h=offsets).x_0[0]).abs().max() < 1e-4


def test_a_mask_keeps_the_outside(served):
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:9, 3:11] = 255
    painted = base64.b64encode(mask.tobytes()).decode()
    unedited = picture(served.post("source", TAB)[1][0]["image"]).astype(int)
    frames = served.post("exact", {**TAB, "terms": {"0": 2.0, "1": -1}, "mask": painted})[1]
    change = np.abs(picture(frames[-2]["image"]) - unedited).max(axis=2)
    assert change[mask == 0].max() == 0 and change[mask > 0].max() > 10


def test_directions_found_kept_and_pictures_saved_stay_in_the_folder(served):
    mask = base64.b64encode(np.full((16, 16), 255, dtype=np.uint8).tobytes()).decode()
    found = served.post("find", {**TAB, "mask": mask, "step": 1, "count": 2})[1][0]["sliders"]
    assert [slider["name"] for slider in found] == ["region 1", "region 2"]
    kept = served.post("keep", {**TAB, "terms": {"0": 1.0, "1": -0.5}, "name": "../../wide smile"})[1][0]["sliders"][0]
    frames = served.post("exact", {**TAB, "terms": {str(kept["id"]): 1.0}})[1]
    both = served.post("exact", {**TAB, "terms": {"0": 1.0, "1": -0.5}})[1]
    assert frames[-2]["image"] == both[-2]["image"]
    saved = served.folder / served.post("save", {**TAB, "terms": {"0": 1.0}})[1][0]["file"]
    assert "Edited by hspace studio: smile at 1" in Image.open(saved).info["Description"]
    written = {path.relative_to(served.folder).parts[:2] for path in served.folder.rglob("*") if path.is_file()}
    assert written == {("server.log",), ("outputs", "studio")}


def test_an_uploaded_photograph_is_a_source(served, photograph: Path):
    status, body = served.ask("POST", "/api/upload", photograph.read_bytes(), X_Name="me.jpg")
    name = json.loads(body)["source"]
    answer = served.post("source", {"source": name})[1][0]
    assert status == 200 and answer["error"] < 1e-4 and picture(answer["image"]).shape == (16, 16, 3)
    assert {"id": name, "name": "me.jpg", "kind": "photo"} in json.loads(served.ask("GET", "/api/state")[1])["sources"]


def test_a_jpeg_of_several_pictures_is_one(served, photograph: Path):
    several = io.BytesIO()
    with Image.open(photograph) as image:
        image.convert("RGB").save(several, format="MPO", save_all=True, append_images=[image.convert("RGB")])
    status, body = served.ask("POST", "/api/upload", several.getvalue(), X_Name="phone.jpg")
    assert status == 200 and served.post("source", {"source": json.loads(body)["source"]})[0] == 200


def test_a_model_is_chosen_by_its_number_and_has_files_of_its_own(served, photograph: Path):
    names = json.loads(served.ask("GET", "/api/models")[1])["models"]
    assert names[1:] == ["portraits", "portraits-128", "rooms"]
    states = [json.loads(served.ask("GET", f"/api/state?model={number}")[1]) for number in (0, 1)]
    assert [state["model"] for state in states] == names[:2] and [state["height"] for state in states] == [16, 64]
    ready = Directions.load(ready_path("portraits")).meta.names
    assert [slider["name"] for slider in states[1]["sliders"]] == list(ready) and "smile" in ready
    name = json.loads(served.ask("POST", "/api/upload", photograph.read_bytes() + b"2", X_Name="%E7%8C%AB.jpg")[1])[
        "source"
    ]
    shown = json.loads(served.ask("GET", "/api/state?model=1")[1])["sources"]
    assert {"id": name, "name": "猫.jpg", "kind": "photo"} in shown
    assert picture(served.post("source?model=1", {"source": name})[1][0]["image"]).shape == (64, 64, 3)
    body = {**TAB, "terms": {"0": 1.0}, "name": "twice"}
    for path in ("keep?model=1", "keep?model=1", "save?model=1"):
        assert served.post(path, body)[0] == 200
    kept = (served.folder / "outputs" / "studio" / "portraits" / "directions").iterdir()
    assert {path.name for path in kept} == {"twice.safetensors", "twice-2.safetensors"}


@pytest.mark.parametrize(
    "number", ["4", "999", "-1", "1.0", "1e0", "٣", "", "portraits", "../portraits", "/etc/passwd", "%00", "9" * 5000]
)
@pytest.mark.parametrize("path", ["state", "source", "exact", "strip", "upload"])
def test_no_other_model_is_opened(served, path: str, number: str):
    method = "GET" if path == "state" else "POST"
    status, answer = served.ask(method, f"/api/{path}?model={quote(number)}", json.dumps({**TAB, "slider": 0}).encode())
    assert status == 400 and b"model" in answer


def test_a_model_that_cannot_be_loaded_is_one_line_and_asked_again():
    tried = []

    def broken() -> Session:
        tried.append(1)
        raise InputError("weights are damaged")

    shelf = Shelf([Choice("mine", broken)])
    for _ in range(2):
        with pytest.raises(InputError, match="weights are damaged"):
            shelf.session(0)
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"X_Token": None}, 403),
        ("/", {"X_Token": "x"}, 403),
        ("/?token=%ff", {"X_Token": None}, 403),
        ("/api/state", {"Host": "evil.example"}, 403),
        ("/api/state", {"Host": "127.0.0.1"}, 403),
        ("/api/state", {"Host": None}, 403),
        ("/api/state", {"Origin": "http://evil.example"}, 403),
        ("/studio.css", {"X_Token": None}, 200),
        ("/studio.css/../session.py", {}, 404),
        ("/../../etc/passwd", {}, 404),
        ("/%2e%2e/session.py", {}, 404),
    ],
)
def test_only_this_page_with_its_token_is_answered(served, path: str, headers: dict, status: int):
    # Without a host uvicorn itself answers 400.
    assert served.ask("GET", path, **headers)[0] in (status, 400 if headers.get("Host", "") is None else status)


def test_the_answer_forbids_what_the_page_does_not_need(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        lines = [f"GET {served.url.partition(str(served.port))[2]} HTTP/1.1", f"Host: 127.0.0.1:{served.port}"]
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        head = connection.makefile("rb").read().partition(b"\r\n\r\n")[0].decode().lower()
    assert "default-src 'none'" in head and "nosniff" in head and "no-referrer" in head and "unsafe" not in head


def hostile() -> list[tuple[str, bytes, dict[str, str]]]:
    """200 requests that nobody means well by: (path, body, headers)."""
    values = [None, True, -1, 3, 10**30, 1e308, "", "x", "../../x", "seed-99999999999999999999", "photo-0", [], {}]
    values += ["\x00", "\ud800", "é" * 50_000, [[[]]], {"0": "1"}, {"0": 1e300}, {"-1": 1}, {"٣": 1}, {"99": 1}]
    keys = ["source", "terms", "slider", "start", "stop", "mask", "tab", "name"]
    cases = [
        (path, json.dumps({**TAB, "slider": 0, "terms": {"0": 1}, "name": "n", key: value}).encode(), {})
        for i, key in enumerate(keys)
        for j, value in enumerate(values)
        for path in [["exact", "strip", "keep", "find", "save", "source"][(i + j) % 6]]
    ]
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "GIF")
    uploads = [
        b"",
        b"x",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bomb.getvalue(),
        gif.getvalue(),
        b"<svg/>",
        bytes(21 * 2**20),
    ]
    cases += [("upload", data, {"X_Name": name}) for data in uploads for name in ("../x", "a" * 5000)]
    bodies = [b"", b"{", b"[]", b"1", b"null", b'{"a":NaN}', b"[" * 100_000, b"\xff\xfe", bytes(5 * 2**20)]
    return cases + [(path, body, {}) for path in ("exact", "find") for body in bodies][: 200 - len(cases)]


@pytest.mark.slow
def test_two_hundred_hostile_requests_leave_no_trace(served):
    cases = hostile()
    assert len(cases) == 200
    slowest = 0.0
    for path, body, headers in cases:
        started = time.monotonic()
        try:
            status, answer = served.ask("POST", f"/api/{path}", body, **headers)
        except (BrokenPipeError, ConnectionResetError):
            continue
        slowest = max(slowest, time.monotonic() - started)
        assert status < 500 and b"Traceback" not in answer, (path, body[:200], answer)
    print(f"slowest of 200 hostile requests: {slowest:.2f} s")
    assert slowest < 30 and "Traceback" not in served.log.read_text()
    written = {path.relative_to(served.folder).parts[:2] for path in served.folder.rglob("*") if path.is_file()}
    assert written <= {("server.log",), ("outputs", "studio")}
    assert served.ask("GET", "/api/alive")[1] == b'{"alive":0}'


def test_the_address_can_be_asked_as_soon_as_it_is_printed(monkeypatch: pytest.MonkeyPatch):
    connected = []

    def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        with socket.create_connection(sockets[0].getsockname(), timeout=5):
            connected.append(server.config.app)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    serve(Shelf([]))
    assert len(connected) == 1


def test_a_half_sent_request_holds_up_nobody(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"POST /api/exact HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        assert served.ask("GET", "/api/state")[0] == 200
