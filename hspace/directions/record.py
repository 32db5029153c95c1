"""Editing directions as one record, one file format, and the checks that keep both honest."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.process import PREDICTION_TYPES
from hspace.diffusion.sampling import INJECTIONS
from hspace.diffusion.taps import FORMS, is_tap
from hspace.system.files import write_atomic
from hspace.types import InputError

Rule = tuple[Callable[[Any], bool], str]

FORMAT = 1
MAX_FILE_BYTES = 16 * 2**30
MAX_METADATA_CHARACTERS = 16 * 2**20
OPTIONAL_TENSORS = ("mean", "explained_variance", "singular_values", "residuals", "correlation")


@dataclass(frozen=True)
class DirectionsMeta:
    """Where directions come from and what they fit; exactly the keys of the file's metadata.

    Attributes:
        space: "h", one offset per step at the tap, or "x_T", one offset of the terminal image.
        tap: Where h is tapped: before, middle or after.
        timesteps: Model time of each step, descending; step 0 is the noisiest.
        eta: Stochasticity of each step of the samples that the directions were found on, in [0, 1].
        injection: "symmetric" or "asyrp": how the edit is meant to enter the step.
        prediction_type: What the network predicts: epsilon, v_prediction or sample.
        model_id: Name of the model, for people.
        model_sha256: Hash of the U-Net's weights, for `Directions.check`.
        method: The method that found them, such as "pca".
        names: One name per direction.
        unit: What strength 1 means, such as "std".
        seeds: Seeds of the samples that they were found on.
        config_sha256: Hash of the configuration of the run, "" outside a run.
        calibration: What a later calibration found, as JSON; None before one.
        format: Version of the file format.
    """

    space: str
    tap: str
    timesteps: tuple[int, ...]
    eta: tuple[float, ...]
    injection: str
    prediction_type: str
    model_id: str
    model_sha256: str
    method: str
    names: tuple[str, ...]
    unit: str
    seeds: tuple[int, ...] = ()
    config_sha256: str = ""
    calibration: dict[str, Any] | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raises InputError naming the first field that is wrong."""
        _check_meta(vars(self))

    @property
    def annotator(self) -> str | None:
        """Id of the scorer that chose the examples, which `method` ends with; None where nothing was annotated."""
        found = re.search(r"annotated by ([^,]+)", self.method)
        return found and found[1]

    def to_json(self) -> str:
        """The metadata string of a file."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "DirectionsMeta":
        """Inverse of `to_json`.

        Raises:
            InputError: If the text is too long, no JSON object, or its keys or values are not those of a file.
        """
        if len(text) > MAX_METADATA_CHARACTERS:
            raise InputError(f"metadata must be at most {MAX_METADATA_CHARACTERS} characters, got {len(text)}")
        try:
            values = json.loads(text, parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise InputError(f"metadata must be JSON with finite numbers: {_short(error)}") from None
        keys = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != keys:
            wrong = sorted(set(values) ^ keys) if isinstance(values, dict) else type(values).__name__
            raise InputError(f"metadata must have exactly the keys of format {FORMAT}, wrong here: {_short(wrong)}")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        # Before the record exists: its annotations are promises that a stranger has not made.
        _check_meta(arguments)
        return cls(**arguments)


@dataclass(frozen=True)
class Directions:
    """k editing directions. The edit is exactly strength * directions[j]: no other factor is ever applied.

    Attributes:
        directions: float32 (k, steps, C, H, W), or (k, C, H, W) for space x_T.
        meta: What they fit, and what strength 1 means.
        mean: Mean of h, (steps, C, H, W) or (C, H, W); never part of an edit.
        explained_variance: Variance along each component, (k, steps) or (k,); scikit-learn's n - 1.
        singular_values: (k, steps) or (k,), descending.
        residuals: Relative residuals of an iterative solver, (k, steps) or (k,).
        correlation: |correlation| of the same samples' projections at neighbouring steps, (k, steps - 1), in [0, 1].
    """

    directions: Tensor
    meta: DirectionsMeta
    mean: Tensor | None = None
    explained_variance: Tensor | None = None
    singular_values: Tensor | None = None
    residuals: Tensor | None = None
    correlation: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises InputError naming the first tensor whose dtype, shape or values are wrong."""
        steps = len(self.meta.timesteps)
        _check_directions(self.directions, self.meta)
        k, shape = len(self.directions), tuple(self.directions.shape[1:])
        _check_tensor("mean", self.mean, [shape])
        for name in ("explained_variance", "singular_values", "residuals"):
            _check_tensor(name, getattr(self, name), [(k,), (k, steps)])
        _check_tensor("correlation", self.correlation, [(k, steps - 1)])

    def save(self, path: str | Path) -> None:
        """Write the directions as safetensors, atomically.

        Raises:
            OSError: If the file cannot be written.
        """
        tensors = {name: getattr(self, name) for name in ("directions", *OPTIONAL_TENSORS)}
        present = {name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
        with write_atomic(path) as temporary:
            save_file(present, temporary, metadata={"hspace": self.meta.to_json()})

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read directions that anyone may have written; nothing in the file is trusted or executed.

        Raises:
            InputError: If the file is missing, too large, no safetensors file, or breaks the format anywhere.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"directions file not found: {path}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"directions file {path} is larger than {MAX_FILE_BYTES >> 30} GiB")
        try:
            meta, tensors = _read(path)
            return cls(meta=meta, **tensors)
        except InputError as error:
            raise InputError(f"directions file {path}: {error}") from None
        except (SafetensorError, OSError) as error:
            raise InputError(f"directions file {path} is no readable safetensors file: {_short(error)}") from None

    def check(self, model: DiffusionModel) -> None:
        """Check that the directions were found on this model, tap and steps.

        Raises:
            InputError: Naming the directions' value and the model's.
        """
        meta, schedule = self.meta, model.process
        shape = model.h_shape if meta.space == "h" else model.sample_shape
        compared = {
            "model_sha256": (meta.model_sha256, model.model_sha256),
            "tap": (meta.tap, model.denoiser.tap),
            "timesteps": (meta.timesteps, tuple(schedule.timesteps)),
            "prediction_type": (meta.prediction_type, schedule.prediction_type),
            "shape": (tuple(self.directions.shape[-3:]), tuple(shape)),
        }
        for name, (ours, theirs) in compared.items():
            if ours != theirs:
                raise InputError(f"directions do not fit the model: {name} is {ours} in the directions, {theirs} here")

    def select(self, components: Sequence[int]) -> "Directions":
        """The given directions, in the order given.

        Args:
            components: Indices in [0, k), at least one.

        Raises:
            InputError: If an index is out of range.
        """
        k = len(self.directions)
        wrong = [index for index in components if not 0 <= index < k]
        if wrong or len(components) == 0:
            raise InputError(f"components must be indices from 0 to {k - 1}, got {list(components)}")
        index = list(components)
        per_component = [name for name in OPTIONAL_TENSORS if name != "mean"]
        tensors = {name: getattr(self, name) for name in ("directions", *per_component)}
        chosen = {name: tensor[index] for name, tensor in tensors.items() if tensor is not None}
        return replace(self, meta=replace(self.meta, names=tuple(self.meta.names[i] for i in index)), **chosen)

    def norms(self) -> Tensor:
        """L2 norm of each direction at each step, (k, steps), or (k,) for space x_T; float32."""
        return self.directions.flatten(start_dim=-3).norm(dim=-1)


def _read(path: Path) -> tuple[DirectionsMeta, dict[str, Tensor]]:
    """Metadata and tensors of a file, checked as far as names go."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if "hspace" not in metadata:
            raise InputError("must have metadata under the key 'hspace', has none: not written by hspace")
        meta = DirectionsMeta.from_json(metadata["hspace"])
        names = set(file.keys())
        if "directions" not in names or not names <= {"directions", *OPTIONAL_TENSORS}:
            allowed = ", ".join(OPTIONAL_TENSORS)
            raise InputError(f"must hold the tensor 'directions' and at most {allowed}, got {_short(sorted(names))}")
        return meta, {name: file.get_tensor(name) for name in names}


def _check_meta(meta: Mapping[str, Any]) -> None:
    for name, (is_right, rule) in RULES.items():
        if not is_right(meta[name]):
            raise InputError(f"{name} must be {rule}, got {_short(meta[name])}")
    if len(meta["eta"]) != len(meta["timesteps"]):
        raise InputError(f"eta must be one number per step, got {len(meta['eta'])} for {len(meta['timesteps'])} steps")


def _check_directions(directions: Tensor, meta: DirectionsMeta) -> None:
    wanted = (len(meta.names), *((len(meta.timesteps),) if meta.space == "h" else ()))
    shape = tuple(directions.shape)
    right = len(shape) == len(wanted) + 3 and shape[: len(wanted)] == wanted and min(shape) > 0
    if not right:
        raise InputError(
            f"directions must be ({', '.join(map(str, wanted))}, C, H, W) for {len(meta.names)} names, "
            f"{len(meta.timesteps)} timesteps and space {meta.space}, got {shape}"
        )
    _check_tensor("directions", directions, [shape])


def _check_tensor(name: str, tensor: Tensor | None, shapes: list[tuple[int, ...]]) -> None:
    if tensor is None:
        return
    if tensor.dtype != torch.float32:
        raise InputError(f"{name} must be float32, got {str(tensor.dtype).removeprefix('torch.')}")
    if tuple(tensor.shape) not in shapes:
        raise InputError(f"{name} must be {' or '.join(map(str, shapes))}, got {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{name} must be finite, got nan or inf")


def _short(value: object) -> str:
    """A stranger's value on one line, without control characters, at most 100 characters."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"number {text[:20]}")
    return number


def _one_of(choices: tuple[str, ...]) -> Rule:
    return lambda value: value in choices, " or ".join(choices)


def _is_label(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable()


def _are_counts(values: object) -> bool:
    return isinstance(values, tuple) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _are_timesteps(values: Any) -> bool:
    return _are_counts(values) and len(values) > 0 and all(a > b for a, b in pairwise(values))


def _are_etas(values: object) -> bool:
    return isinstance(values, tuple) and all(type(value) in (int, float) and 0 <= value <= 1 for value in values)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


LABEL: Rule = (_is_label, "1 to 200 printable characters")
RULES: dict[str, Rule] = {
    "format": (lambda value: type(value) is int and value == FORMAT, str(FORMAT)),
    "space": _one_of(("h", "x_T")),
    "tap": (is_tap, FORMS),
    "timesteps": (_are_timesteps, "integers >= 0, descending, at least one"),
    "eta": (_are_etas, "numbers in [0, 1]"),
    "injection": _one_of(INJECTIONS),
    "prediction_type": _one_of(PREDICTION_TYPES),
    "model_id": LABEL,
    "model_sha256": (_is_sha256, "64 hexadecimal digits"),
    "method": LABEL,
    "config_sha256": (lambda value: value == "" or _is_sha256(value), "64 hexadecimal digits or empty"),
    "names": (
        lambda values: isinstance(values, tuple) and all(map(_is_label, values)),
        "strings of 1 to 200 printable characters",
    ),
    "unit": LABEL,
    "seeds": (_are_counts, "integers >= 0"),
    "calibration": (lambda value: value is None or isinstance(value, dict), "a JSON object or null"),
}
"""What each field of the metadata may be, and how to say so: the same for our own records and a stranger's file."""
