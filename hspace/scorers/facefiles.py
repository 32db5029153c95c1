"""Weights of face-api: those that lie in this package, and those of the npm package `@vladmandic/face-api`.

Both hold bytes that stand for `byte * scale + min`. The npm package is read as an unpacked folder: for each network a
manifest of names, shapes and scales, and one file of numbers.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from hspace.system.files import package_path, parse_json, write_atomic
from hspace.types import InputError, in_one_line

FILES = {
    "detector": "tiny_face_detector_model",
    "landmarks": "face_landmark_68_model",
    "expressions": "face_expression_model",
    "age": "age_gender_model",
    "identity": "face_recognition_model",
}
"""Names of the networks' files in the npm package."""
LARGEST = 2**26
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class Stored:
    """A tensor as it is stored.

    Attributes:
        values: Bytes, or float32, in TensorFlow's layout.
        scale: Factor of the bytes.
        low: What is added to them.
    """

    values: np.ndarray
    scale: float = 1.0
    low: float = 0.0


def embedded(network: str) -> dict[str, Tensor]:
    """Weights of a network that lies in this package, by its key in `FILES`."""
    with safe_open(_embedded_file(), framework="np") as file:
        scales = json.loads(file.metadata()["scales"])
        names = [name for name in file.keys() if name.startswith(f"{network}:")]
        stored = {name: Stored(file.get_tensor(name), *scales.get(name, (1.0, 0.0))) for name in names}
    return {name.partition(":")[2]: in_torch(name, tensor) for name, tensor in stored.items()}


def embed(networks: dict[str, dict[str, Stored]]) -> Path:
    """Writes networks into this package; returns the file."""
    flat = {f"{network}:{name}": each for network, tensors in networks.items() for name, each in tensors.items()}
    scales = {name: (each.scale, each.low) for name, each in flat.items() if each.values.dtype == np.uint8}
    with write_atomic(_embedded_file()) as temporary:
        arrays = {name: np.ascontiguousarray(each.values) for name, each in flat.items()}
        save_file(arrays, temporary, metadata={"scales": json.dumps(scales)})
    return _embedded_file()


def read_network(package: Path, network: str) -> dict[str, Stored]:
    """The tensors of a network of the npm package, by the names of its manifest.

    Args:
        package: Folder of the package.
        network: Key of `FILES`.

    Raises:
        InputError: If the package lacks the network, or its files do not fit together.
    """
    with in_one_line(str(package)):
        manifest = parse_json(_read(package, f"{FILES[network]}-weights_manifest.json"))
        stored: dict[str, Stored] = {}
        for group in manifest:
            data = memoryview(b"".join(_read(package, file) for file in group["paths"]))
            for entry in group["weights"]:
                stored[entry["name"]], data = _entry(entry, data)
            if data:
                raise InputError(f"{package} holds more numbers of {FILES[network]} than its manifest names")
    return stored


def in_torch(name: str, stored: Stored) -> Tensor:
    """A tensor's float32 values in torch's layout."""
    values = stored.values
    if values.dtype == np.uint8:
        # TensorFlow.js reckons in float64 and stores float32.
        values = (values * np.float64(stored.scale) + stored.low).astype(np.float32)
    if values.ndim == 4:
        values = values.transpose((2, 3, 0, 1) if name.endswith("depthwise_filter") else (3, 2, 0, 1))
    return torch.from_numpy(np.array(values.T if values.ndim == 2 else values))


def _embedded_file() -> Path:
    return package_path("weights") / "faceapi" / "networks.safetensors"


def _entry(entry: dict, data: memoryview) -> tuple[Stored, memoryview]:
    """One tensor from the front of the data, and the rest."""
    quantised = entry.get("quantization")
    kind = np.dtype(quantised["dtype"] if quantised else entry["dtype"])
    size = math.prod(entry["shape"]) * kind.itemsize
    values = np.frombuffer(data[:size], dtype=kind).reshape(entry["shape"])
    scales = (quantised["scale"], quantised["min"]) if quantised else ()
    return Stored(values, *scales), data[size:]


def _read(package: Path, name: str) -> bytes:
    """A file of the package, wherever it lies in it."""
    path = next(package.rglob(name), None)
    if path is None or path.stat().st_size > LARGEST:
        raise InputError(f"{package} has no {name} of at most {LARGEST >> 20} MB: is it @vladmandic/face-api?")
    return path.read_bytes()
