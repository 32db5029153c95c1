"""Files of a checkpoint: JSON, networks, text encoders and schedulers, and errors that fit on one line."""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open

from hspace.diffusion.adm import has_legacy_order, own_words, reorder_attention
from hspace.diffusion.process import build_scheduler
from hspace.system.files import parse_json
from hspace.types import InputError, one_line

log: logging.Logger = logging.getLogger(__name__)

WEIGHTS: re.Pattern[str] = re.compile(
    r"(?:diffusion_)?(?:pytorch_)?model(?:\.(fp16|bf16))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)"
)
"""Names of files of weights, those of one part of many too, and their variant."""


HALF = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes of half precision, by their names in safetensors."""


VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
"""Files of which a tokenizer has at least one."""


def read_module(folder: Path, name: str, expected: str, model: str, dtype: torch.dtype = torch.float32) -> Any:
    """A network on the CPU, from safetensors where there are any, else from `.bin` with weights_only.

    Args:
        folder: Folder of the pipeline.
        name: Of the part.
        expected: Its class in diffusers.
        model: The user's name for the pipeline, for messages.
        dtype: Dtype that it is cast to later. Where its files hold nothing else it is read as such, which gives the
            same numbers in half of the memory; elsewhere it is read in float32.

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
        own = own_words(config) | ({"torch_dtype": dtype} if _stored(part, variant) == {dtype} else {})
        loaded = module.from_pretrained(part, output_loading_info=True, local_files_only=True, variant=variant, **own)
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


def read_text_encoder(folder: Path, name: str, kind: str, model: str) -> Any:
    """A text encoder of transformers, as `read_module` reads networks.

    Args:
        folder: Folder of the pipeline.
        name: Of the part.
        kind: Its class in transformers.
        model: The user's name for the pipeline, for messages.

    Raises:
        InputError: If transformers is not installed, or the weights cannot be read or are not complete.
    """
    try:
        import transformers
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise InputError("models with prompts need transformers: pip install transformers") from error
    transformers_logging.disable_progress_bar()
    part = find_part(folder, name)
    variant = _variant(part, name, model)
    try:
        loaded: Any = getattr(transformers, kind).from_pretrained(
            part, local_files_only=True, output_loading_info=True, dtype=torch.float32, variant=variant
        )
    # Broken files raise errors of many kinds: safetensors', pickle's, OSError, ValueError, RuntimeError.
    except Exception as error:
        raise InputError(f"the {_spoken(name)} of {model} cannot be read: {one_line(error)}") from error
    encoder, info = loaded
    if info["missing_keys"]:
        raise InputError(f"the {_spoken(name)} of {model} lacks tensors, e.g. {min(info['missing_keys'])}")
    return encoder.eval().requires_grad_(False)


def check_tokenizer(folder: Path, name: str, model: str) -> None:
    """Check that a tokenizer has its words: without them transformers makes one that knows none.

    Raises:
        InputError: If its folder holds no vocabulary, or one alone that needs sentencepiece, which is not installed.
    """
    found = [file for file in VOCABULARIES if (folder / name / file).is_file()]
    if not found:
        raise InputError(
            f"the {_spoken(name)} of {model} cannot be read: {folder / name} has none of {', '.join(VOCABULARIES)}"
        )
    # Without it transformers takes the file for another kind, and asks for the wrong library.
    if found == ["spiece.model"] and find_spec("sentencepiece") is None:
        raise InputError(f"the {_spoken(name)} of {model} is a spiece.model alone: pip install sentencepiece")


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _variant(part: Path, name: str, model: str) -> str | None:
    """The variant to read where a folder holds no plain weights: half-precision files have `.fp16` in their names."""
    found = [match[1] for path in part.glob("*") if (match := WEIGHTS.fullmatch(path.name))]
    variant = choose_variant(found)
    if variant:
        log.warning("the %s of %s exists in %s only, which is read", name, model, variant)
    return variant


def _stored(part: Path, variant: str | None) -> set[torch.dtype | None]:
    """Dtypes of half precision that a part's safetensors hold, and None for any other."""
    kinds = {path: WEIGHTS.fullmatch(path.name) for path in part.glob("*.safetensors")}
    found = set[torch.dtype | None]()
    for path in (path for path, kind in kinds.items() if kind and kind[1] == variant):
        with safe_open(path, "pt") as tensors:
            found |= {HALF.get(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}
    return found


def choose_variant(found: Sequence[str | None]) -> str | None:
    """The variant to read of those that a part's files have; None where there are plain ones, or no files at all."""
    return min(found, default=None, key=lambda kind: kind != "fp16") if all(found) else None


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
