"""Files of a checkpoint: JSON, networks and schedulers of diffusers, and errors that fit on one line."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils import logging as diffusers_logging

from hspace.diffusion.adm import has_legacy_order, own_words, reorder_attention
from hspace.diffusion.process import build_scheduler
from hspace.system.files import parse_json
from hspace.types import InputError, one_line

log: logging.Logger = logging.getLogger(__name__)


def read_module(folder: Path, name: str, expected: str, model: str) -> Any:
    """A network in float32 on the CPU, from safetensors where there are any, else from `.bin` with weights_only.

    Raises:
        InputError: If it is of another class, or its weights cannot be read or do not fit its configuration.
    """
    part = find_part(folder, name)
    config = read_json(part / "config.json")
    kind = config.get("_class_name")
    if kind != expected:
        raise InputError(f"the {name} of {model} must be a {expected} of diffusers, got {kind}")
    variant = _variant(part, name, model)
    try:
        module: Any = getattr(diffusers, expected)
        loaded = module.from_pretrained(
            part, output_loading_info=True, local_files_only=True, variant=variant, **own_words(config)
        )
    # Broken files raise errors of many kinds: safetensors', pickle's, OSError, ValueError, RuntimeError.
    except Exception as error:
        raise InputError(f"the weights of {model} cannot be read: {one_line(error)}") from error
    network, info = loaded
    wrong = [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise InputError(f"the weights of {model} do not fit its config.json: {len(wrong)} tensors, e.g. {wrong[0]}")
    if has_legacy_order(config):
        reorder_attention(network)
    for key, tensor in network.state_dict().items():
        # Extremes are NaN where any number is, and take one reading and no memory.
        if tensor.numel() and not all(bool(end.isfinite()) for end in tensor.aminmax()):
            raise InputError(f"the weights of {model} hold NaN or infinite numbers, in {name}.{key}")
    return network


def _variant(part: Path, name: str, model: str) -> str | None:
    """The variant to read where a folder holds no plain weights: half-precision files have `.fp16` in their names."""
    stem = "diffusion_pytorch_model"
    weights = [path.name for path in part.glob(f"{stem}*") if path.suffix in (".safetensors", ".bin")]
    if not weights or any(not file.startswith((f"{stem}.fp16", f"{stem}.bf16")) for file in weights):
        return None
    found = "fp16" if any(".fp16" in file for file in weights) else "bf16"
    log.warning("the %s of %s exists in %s only, which is read", name, model, found)
    return found


def read_scheduler(folder: Path, model: str) -> Any:
    """A pipeline's scheduler; for a bare U-Net the scheduler of DDPM.

    Raises:
        InputError: If its configuration cannot be read, or the scheduler does not exist in diffusers.
    """
    if (folder / "model_index.json").is_file():
        return build_scheduler(read_json(find_part(folder, "scheduler") / "scheduler_config.json"))
    log.warning("%s has no scheduler; DDPM's linear schedule of 1000 steps and eps prediction are assumed", model)
    return DDPMScheduler()


def find_part(folder: Path, name: str) -> Path:
    """A component's folder; old pipelines have all files at the root."""
    return folder / name if (folder / name).is_dir() else folder


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        InputError: If it cannot be read, or holds something else.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


@contextlib.contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Holds back diffusers' own messages; the checks here raise what matters of them."""
    verbosity, bars = diffusers_logging.get_verbosity(), diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        if bars:
            diffusers_logging.enable_progress_bar()
