"""Preprocessing against transformers' own, and what is said of models that cannot be read."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hspace.scorers.clip import load_clip
from hspace.scorers.hub import load_classifier, load_features, load_parser
from hspace.scorers.pretrained import Preprocessing, read_pretrained
from hspace.types import InputError


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("crop", [None, 20])
def test_images_are_prepared_as_transformers_prepares_them(resample: int, crop: int | None) -> None:
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    size = {"shortest_edge": 24} if crop else {"height": 24, "width": 20}
    cut = {"crop_size": {"height": crop, "width": crop}} if crop else {}
    theirs = clip.CLIPImageProcessorPil(size=size, do_center_crop=bool(crop), resample=resample, **cut)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((60, 80), Image.Resampling.BICUBIC)
    expected = torch.as_tensor(np.asarray(theirs(image, return_tensors="np")["pixel_values"]))
    images = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours = Preprocessing.from_dict(theirs.to_dict(), "m")(images)
    assert ours.shape == expected.shape
    # Pillow rounds to whole grey values after each of two passes.
    assert (ours - expected).abs().max() < 1.5 / 255 / 0.26


def test_what_cannot_be_read_is_one_line(
    make_classifier: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"nowhere is neither a folder nor a hub id \(owner/name\)"):
        load_classifier("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be read as a model for images") as caught:
        load_classifier(str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)
    folder = shutil.copytree(make_classifier(["a", "b"]), tmp_path / "whole")
    with pytest.raises(InputError, match=r"lacks weights of a Dinov2Model"):
        read_pretrained("Dinov2Model", str(folder))
    (folder / "preprocessor_config.json").write_text('{"size": null}')
    with pytest.raises(InputError, match="must have a size and resample 2 or 3, got None and None"):
        load_classifier(str(folder))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs transformers: pip install transformers"):
        load_classifier(str(folder))


CODE = "import pathlib\npathlib.Path({canary!r}).touch()\nclass Own: pass\n"


@pytest.mark.parametrize("load", [load_classifier, load_features, load_parser, load_clip])
def test_code_beside_weights_is_never_run_nor_asked_about(
    load: Callable[[str], object], tiny_clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, canary = shutil.copytree(tiny_clip_dir, tmp_path / "own"), tmp_path / "canary"
    config = json.loads((folder / "config.json").read_text())
    kinds = ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoModelForSemanticSegmentation")
    own = {"auto_map": {kind: "code.Own" for kind in kinds}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config | own))
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        values["auto_map"] = {"AutoImageProcessor": "code.Own", "AutoTokenizer": ["code.Own", None]}
        (folder / name).write_text(json.dumps(values))
    (folder / "code.py").write_text(CODE.format(canary=str(canary)))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    monkeypatch.setattr("signal.alarm", lambda seconds: asked.append(seconds) or 0)
    try:
        load(str(folder))
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        if load is not load_clip:  # which reads a class of transformers itself
            assert "it needs code of its own (auto_map in its config.json), which is never run" in str(error)
    assert not canary.exists() and not asked


BROKEN = [
    {"size": -1}, {"size": {"height": "x", "width": 3}}, {"size": 10**9}, {"image_mean": None},
    {"image_std": [0, 0, 0]}, {"image_std": [1]}, {"image_mean": "abc"}, {"rescale_factor": "x"}, {"resample": []},
    {"crop_size": {"height": 1e999}}, {"size": {"shortest_edge": None}}, {"image_std": [float("nan")] * 3},
    {"resample": {}}, {"size": True},
]  # fmt: skip


@pytest.mark.parametrize("spoil", BROKEN, ids=str)
def test_a_broken_preprocessing_is_one_line(spoil: dict[str, Any], tiny_backbone_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_backbone_dir, tmp_path / "m")
    record = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(record | spoil))
    try:
        load_features(str(folder))
    except InputError as error:
        assert "\n" not in str(error) and "preprocessing" in str(error)
    else:
        assert spoil in ({"size": True}, {"crop_size": {"height": 1e999}})


OFFLINE = """
import sys
from hspace.scorers.factory import load_scorer
from hspace.types import InputError
try:
    load_scorer("clip:openai/clip-vit-base-patch32")
except InputError as error:
    print(error, file=sys.stderr)
"""


def test_without_a_network_a_hub_id_is_one_line_after_one_request(tmp_path: Path) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, timeout=300)
        server.shutdown()
    assert done.stderr.count("\n") == 1 and "is not in the hub's cache, and the hub does not give it" in done.stderr
    assert [path for path in asked if "/models/" in path] == ["/api/models/openai/clip-vit-base-patch32"]
