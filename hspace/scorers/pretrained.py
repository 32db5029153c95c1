"""Networks of the Hugging Face hub, or of folders in its format, and what they want done to an image first.

Needs transformers (extra `hub`). Images are resized and normalised here as tensors: transformers' own way needs
torchvision, or an image at a time.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hspace.types import Images, InputError

RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's codes of the filters that are antialiased here as there."""


@dataclass(frozen=True)
class Preprocessing:
    """From images in [-1, 1] to what a network reads.

    Attributes:
        size: (height, width) to resize to; one number resizes the shorter edge to it.
        crop: (height, width) that is cut out of the middle then; None keeps all.
        mode: `bilinear` or `bicubic`, both with antialiasing.
        scale: Factor of values in 0 to 255.
        mean: Of each channel, taken off after scaling.
        std: Of each channel, divided by.
    """

    size: tuple[int, ...]
    crop: tuple[int, int] | None
    mode: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Images) -> Tensor:
        """(batch, 3, H, W) in [-1, 1] to (batch, 3, height, width) in the network's range."""
        height, width = images.shape[-2:]
        edge = min(height, width)
        size = self.size if len(self.size) == 2 else [round(self.size[0] * side / edge) for side in (height, width)]
        x = F.interpolate((images.clamp(-1, 1) + 1) * 127.5, list(size), mode=self.mode, antialias=True)
        x = x.clamp(0, 255) * self.scale  # bicubic overshoots
        if self.crop is not None:
            top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], self.crop, strict=True))
            x = x[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (x - mean) / std

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], model: str) -> "Preprocessing":
        """Reads a `preprocessor_config.json`.

        Raises:
            InputError: If it has no size, or a filter that is not known.
        """
        size, crop = _size(record.get("size")), _size(record.get("crop_size"))
        if not size or record.get("resample", 2) not in RESAMPLING:
            raise InputError(
                f"the image preprocessing of {model} must have a size and resample 2 or 3, got {record.get('size')} "
                f"and {record.get('resample')}"
            )
        normalise = record.get("do_normalize", True)
        return cls(
            size=size,
            crop=(crop[0], crop[-1]) if crop and record.get("do_center_crop", False) else None,
            mode=RESAMPLING[record.get("resample", 2)],
            scale=float(record.get("rescale_factor", 1 / 255)) if record.get("do_rescale", True) else 1.0,
            mean=tuple(record["image_mean"]) if normalise else (0.0, 0.0, 0.0),
            std=tuple(record["image_std"]) if normalise else (1.0, 1.0, 1.0),
        )


class Pretrained(nn.Module):
    """A network that reads images after its own preprocessing, in evaluation mode, on the device it is moved to."""

    def __init__(self, kind: str, model: str, network: Any, preprocessing: Preprocessing) -> None:
        super().__init__()
        # The last part alone, since a path is this machine's.
        self.id = f"{kind}:{model if is_hub_id(model) else Path(model).expanduser().resolve().name}"
        self.network = network
        self.preprocessing = preprocessing
        self.eval().requires_grad_(False)

    def pixels(self, images: Images) -> Tensor:
        """The network's input, on its device."""
        return self.preprocessing(images.to(next(self.network.parameters()).device))


def read_pretrained(auto: str, model: str) -> tuple[Any, Preprocessing]:
    """A network and its preprocessing.

    Args:
        auto: Class of transformers that reads it, such as `AutoModelForImageClassification`.
        model: A folder, or a hub id, whose files are downloaded where they are not there yet.

    Raises:
        InputError: If transformers is not installed, there is no such model, its files cannot be read, or weights are
            missing, which would then be random.
    """
    transformers = import_transformers(model)
    local = Path(model).expanduser().is_dir()
    if not local and not is_hub_id(model):
        raise InputError(f"no folder {model}, and no hub id either, which would be owner/name")
    source = str(Path(model).expanduser()) if local else model
    try:
        network, info = getattr(transformers, auto).from_pretrained(
            source, local_files_only=local, output_loading_info=True, dtype=torch.float32
        )
        record, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source, local_files_only=local)
    # Broken files and networks raise errors of many kinds: OSError, ValueError, safetensors', huggingface_hub's.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{model} cannot be read as a model for images: {reason}") from error
    if info["missing_keys"]:
        raise InputError(f"{model} lacks weights of a {type(network).__name__}, e.g. {min(info['missing_keys'])}")
    return network, Preprocessing.from_dict(record, model)


def is_hub_id(model: str) -> bool:
    """Whether it has the form owner/name and is no folder here."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model)) and not Path(model).is_dir()


def import_transformers(model: str) -> Any:
    """The library, without its progress bars and warnings.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import transformers
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise InputError(f"{model} needs transformers: pip install 'hspace[hub]'") from error
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    return transformers


def _size(value: Any) -> tuple[int, ...]:
    """A size as transformers writes it: a number, {"shortest_edge": n} or {"height": h, "width": w}; () for others."""
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, Mapping) and {"height", "width"} <= value.keys():
        return (int(value["height"]), int(value["width"]))
    if isinstance(value, Mapping) and "shortest_edge" in value:
        return (int(value["shortest_edge"]),)
    return ()
