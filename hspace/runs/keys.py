"""Keys of results: all that a stage's result depends on."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.operators import Operator
from hspace.edits.changes import Change
from hspace.runs.config import Config
from hspace.scorers.identity import scorer_identity
from hspace.system import distributed
from hspace.system.cache import SHARDS, cached, place, unfinished_place
from hspace.system.hashes import path_sha256
from hspace.system.shards import in_shards
from hspace.types import Embedder, RegionNetwork, Scorer

VERSIONS = {
    "collect": 3, "annotate": 4, "discover": 7, "calibrate": 3, "read": 2, "unit": 2, "swap": 1, "invert": 1,
    "effects": 1, "find": 2, "dose": 1, "exchange": 1, "levels": 3, "seconds": 2, "edits": 1,
}  # fmt: skip
"""Version of each stage; after a change to a higher one, older results of the stage are not used."""
PLACES = ("output_dir", "cache_dir")
"""Keys of a configuration whose paths are written to, and not read."""


def keep(cfg: Config, stage: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of a stage's result, from the run's cache; see `cached`.

    All of several processes build it, since they exchange their parts, and the result of the first one is kept.
    """
    key = {"version": VERSIONS[stage], **key}
    folder = place(cfg.cache_dir, stage, key)
    if distributed.rank() > 0:
        if distributed.from_first(False):
            scratch = unfinished_place(folder) / SHARDS / f"rank-{distributed.rank()}"
            scratch.mkdir(parents=True, exist_ok=True)
            build(scratch)
            distributed.together()
        distributed.together()
        return folder
    built = False

    def build_together(folder: Path) -> None:
        nonlocal built
        built = distributed.from_first(True)
        build(folder)
        distributed.together()

    cached(cfg.cache_dir, stage, key, build_together)
    if not built:
        distributed.from_first(False)
    distributed.together()
    return folder


def keep_rows(
    cfg: Config, model: DiffusionModel, stage: str, n: int, make: Callable[[range], Tensor], *, size: int, **key: Any
) -> Tensor:
    """Rows 0 to n - 1 of a result that the sampler's settings and `key` determine, from the cache.

    Args:
        cfg: Configuration of the run.
        model: Its model.
        stage: Folder of the cache.
        n: Number of rows.
        make: Function that gives a range of rows, on the CPU.
        size: Number of rows that are made together, and are kept if the process is killed after them.
        **key: Further facts that the rows depend on, as JSON types.
    """

    def build(folder: Path) -> None:
        rows = in_shards(folder / SHARDS / stage, n, make, size=size)
        save_file({"rows": rows.contiguous()}, folder / "rows.safetensors")

    folder = keep(cfg, stage, {**key, **sampler_key(cfg, model)}, build)
    return load_file(folder / "rows.safetensors")["rows"]


def keep_part(cfg: Config, stage: str, key: dict[str, Any], n: int, build: Callable[[Path, range], None]) -> Path:
    """Like `keep`, for a result of which each process makes and keeps its own share of n rows."""
    rows = distributed.share(n)
    part = {"rows": [rows.start, rows.stop]} if distributed.world() > 1 else {}
    key = {"version": VERSIONS[stage], **key, **part}
    return cached(cfg.cache_dir, stage, key, lambda folder: build(folder, rows))


def files_key(cfg: Any) -> dict[str, str | None]:
    """Hashes of every file and folder that a configuration, or a part of it, names, by key.

    A path names one, and so does a text with an ending, such as a mask, that is the name of a file. Models and scorers
    are left out: they are known by their identities, which stay the same when a file is written anew.
    """
    return {name: path_sha256(path.expanduser()) for name, path in _paths(cfg, "")}


def _paths(value: Any, key: str) -> Iterator[tuple[str, Path]]:
    """Every path in a value of any nesting, with its key."""
    if isinstance(value, Path):
        yield key, value
    elif isinstance(value, str):
        if _is_file(value):
            yield key, Path(value)
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _paths(part, f"{key}[{i}]")
    elif isinstance(value, Mapping) or hasattr(value, "__dict__"):
        parts = value if isinstance(value, Mapping) else vars(value)
        for name, part in parts.items():
            if key or name not in PLACES:
                yield from _paths(part, f"{key}.{name}" if key else str(name))


def _is_file(text: str) -> bool:
    try:
        return bool(Path(text).suffix) and Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        # Too long for a name, or with a user that is not there: a prompt, for example.
        return False


def sampler_key(cfg: Config, model: DiffusionModel) -> dict[str, Any]:
    """All of the model and the sampler that generated samples depend on."""
    return {"provenance": model.provenance(eta=cfg.diffusion.eta).to_dict(), "dtype": cfg.dtype}


def edit_key(cfg: Config, model: DiffusionModel) -> dict[str, Any]:
    """All that an edit depends on beside its offsets and the samples; the window only if it leaves steps out."""
    steps = range(len(model.process.timesteps))
    window = cfg.sampler.window(len(steps))
    key: dict[str, Any] = {"injection": cfg.diffusion.injection}
    return key if window == steps else key | {"window": [window.start, window.stop]}


def network_key(network: Scorer | Embedder | RegionNetwork) -> dict[str, Any]:
    """All that scores depend on."""
    return {**scorer_identity(network)}


def change_key(change: Change) -> str | dict[str, Any]:
    """All that a change does to h or x_T."""
    if not isinstance(change, Operator):
        return tensor_sha256(change)
    tensors = {name: tensor_sha256(tensor) for name, tensor in change.tensors().items()}
    return {"one_sided": change.one_sided, **tensors}


def tensor_sha256(tensor: Tensor) -> str:
    """SHA-256 of a tensor's shape and its numbers in float32."""
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + tensor.float().contiguous().numpy().tobytes()).hexdigest()
