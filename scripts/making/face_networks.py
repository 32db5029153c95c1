"""Takes the networks of face-api into the package, and records what the original gives on two images.

    npm pack @vladmandic/face-api@1.7.15 && tar xzf vladmandic-face-api-1.7.15.tgz
    npm install @tensorflow/tfjs
    python scripts/making/face_networks.py package

writes hspace/weights/faceapi/networks.safetensors (all but the output for gender, which is unreliable) and
tests/scorers/faceapi.json, by face_networks.js beside this file. Node finds @tensorflow/tfjs in NODE_PATH or in
node_modules of the current folder.
"""

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage import data

from hspace.scorers.facefiles import FILES, embed, read_network

ROOT = Path(__file__).parents[2]
CROP = (75, 163, 187, 279)
"""Face of the astronaut: top, left, bottom, right; not square, so that it needs a border."""


def pictures() -> dict[str, np.ndarray]:
    """Images, (height, width, 3) uint8: a photograph in the public domain, its face, and a pattern."""
    astronaut = data.astronaut()
    top, left, bottom, right = CROP
    y, x = np.mgrid[0:90, 0:120]
    pattern = np.stack([3 * y + 5 * x, 7 * y + 2 * x + 60, y * x], axis=-1) % 256
    return {"astronaut": astronaut, "face": astronaut[top:bottom, left:right], "pattern": pattern.astype(np.uint8)}


def random_package(folder: Path) -> Path:
    """Writes an identity network of random numbers in the form of the npm package; some tensors are not quantised."""
    draws, entries, numbers = np.random.RandomState(0), [], []
    for name, shape in _identity_shapes():
        entry = {"name": name, "shape": shape, "dtype": "float32"}
        middle, width = (1.0 if name.endswith("scale/weights") else 0.0), 0.1
        if name.endswith("filters") or name == "fc":
            width = 1 / math.sqrt(math.prod(shape[:-1]))
        if name.startswith("conv64") and name.endswith("filters"):
            numbers.append(draws.uniform(-width, width, shape).astype("<f4").tobytes())
        else:
            entry["quantization"] = {"dtype": "uint8", "scale": width / 64, "min": middle - 2 * width}
            numbers.append(draws.randint(0, 256, shape).astype(np.uint8).tobytes())
        entries.append(entry)
    file = FILES["identity"]
    folder.mkdir(parents=True, exist_ok=True)
    manifest = [{"weights": entries, "paths": [f"{file}.bin"]}]
    (folder / f"{file}-weights_manifest.json").write_text(json.dumps(manifest))
    (folder / f"{file}.bin").write_bytes(b"".join(numbers))
    return folder


def _identity_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the identity network's tensors."""
    yield from _unit("conv32_down", 7, 3, 32)
    for channels, names in ((32, "123"), (64, "d123"), (128, "d12"), (256, "d12o")):
        for each in names:
            name = {"d": f"conv{channels}_down", "o": f"conv{channels}_down_out"}.get(each, f"conv{channels}_{each}")
            yield from _unit(f"{name}/conv1", 3, channels // 2 if each == "d" else channels, channels)
            yield from _unit(f"{name}/conv2", 3, channels, channels)
    yield "fc", (256, 128)


def _unit(name: str, kernel: int, inner: int, outer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}/conv/filters", (kernel, kernel, inner, outer)
    yield from ((f"{name}/{part}", (outer,)) for part in ("conv/bias", "scale/weights", "scale/biases"))


def main(package: Path) -> None:
    """Embeds the weights and records the outputs."""
    networks = {name: read_network(package, name) for name in FILES}
    networks["age"] = {name: each for name, each in networks["age"].items() if not name.startswith("fc/gender")}
    print(embed(networks))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shapes = {name: picture.shape for name, picture in pictures().items()}
        for name, picture in pictures().items():
            (folder / f"{name}.bin").write_bytes(picture.tobytes())
        (folder / "shapes.json").write_text(json.dumps(shapes))
        random_package(folder / "random")
        script = Path(__file__).with_name("face_networks.js")
        told = subprocess.run(
            ["node", script, package.resolve(), folder], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    path = ROOT / "tests" / "scorers" / "faceapi.json"
    path.write_text(told.strip().splitlines()[-1] + "\n")
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the folder that npm's archive holds")
    main(parser.parse_args().package)
