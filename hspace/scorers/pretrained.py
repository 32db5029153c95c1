"""Networks of the Hugging Face hub, or of folders in its format, and their preprocessing of images.

They need transformers (extra `hub`). Images are resized and normalised here as tensors, since transformers' own way
needs torchvision, or takes one image at a time.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from hspace.system.hub import why_unreachable
from hspace.types import Images, InputError, one_line

RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's codes of the filters that are antialiased here as in Pillow."""
MAX_SIDE = 4096
"""Largest side of an image that a network of these kinds reads."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing from images in [-1, 1] to the input of a network.

    Attributes:
        size: Height and width after resizing; one number is the shorter edge after resizing.
        crop: Height and width that are then cut out of the middle; None keeps all.
        mode: Filter, `bilinear` or `bicubic`, both with antialiasing.
        scale: Factor of values in 0 to 255.
        mean: Mean of each channel, which is subtracted after scaling.
        std: Standard deviation of each channel, which the values are divided by.
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
            InputError: If it has no size, or an unknown filter.
        """
        try:
            return cls._from_dict(record, model)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the image preprocessing of {model} lacks, or has in another form: {error}") from error

    @classmethod
    def _from_dict(cls, record: Mapping[str, Any], model: str) -> "Preprocessing":
        size, crop = _size(record.get("size")), _size(record.get("crop_size"))
        if not size or record.get("resample", 2) not in RESAMPLING:
            raise InputError(
                f"the image preprocessing of {model} must have a size and resample 2 or 3, got {record.get('size')} "
                f"and {record.get('resample')}"
            )
        if not all(1 <= side <= MAX_SIDE for side in (*size, *crop)):
            raise InputError(
                f"the image preprocessing of {model} must have sizes of 1 to {MAX_SIDE}, got {size}, {crop}"
            )
        normalise = record.get("do_normalize", True)
        mean, std = (record["image_mean"], record["image_std"]) if normalise else ([0.0] * 3, [1.0] * 3)
        if len(mean) != 3 or len(std) != 3 or not all(float(value) > 0 for value in std):
            raise InputError(
                f"the image preprocessing of {model} must have three numbers of image_mean and three positive ones of "
                f"image_std, got {mean} and {std}"
            )
        return cls(
            size=size,
            crop=(crop[0], crop[-1]) if crop and record.get("do_center_crop", False) else None,
            mode=RESAMPLING[record.get("resample", 2)],
            scale=float(record.get("rescale_factor", 1 / 255)) if record.get("do_rescale", True) else 1.0,
            mean=tuple(float(value) for value in mean),
            std=tuple(float(value) for value in std),
        )


class Pretrained(nn.Module):
    """A network that reads images after its own preprocessing, in evaluation mode, on the device it is moved to."""

    def __init__(self, kind: str, model: str, network: Any, preprocessing: Preprocessing) -> None:
        super().__init__()
        # The last part alone, since a path is this machine's.
        self.id: str = f"{kind}:{model if is_hub_id(model) else Path(model).expanduser().resolve().name}"
        self.network: Any = network
        self.preprocessing = preprocessing
        self.eval().requires_grad_(False)

    def pixels(self, images: Images) -> Tensor:
        """The network's input, on its device."""
        return self.preprocessing(images.to(next(self.network.parameters()).device))


def read_pretrained(auto: str, model: str) -> tuple[Any, Preprocessing]:
    """A network and its preprocessing.

    Args:
        auto: Class of transformers that reads it, such as `AutoModelForImageClassification`.
        model: Folder, or hub id whose missing files are downloaded.

    Raises:
        InputError: If transformers is not installed, the model does not exist, its files cannot be read, or weights are
            missing, which would then be random.
    """
    transformers = import_transformers(model)
    local = Path(model).expanduser().is_dir()
    if not local and not is_hub_id(model):
        raise InputError(f"{model} is neither a folder nor a hub id (owner/name)")
    source = str(Path(model).expanduser()) if local else model
    unreachable = None if local else why_unreachable(model)
    if unreachable and not isinstance(try_to_load_from_cache(model, "config.json"), str):
        raise InputError(f"{model} is not in the hub's cache, and the hub does not give it: {_reason(unreachable)}")
    here = {"local_files_only": local or unreachable is not None}
    try:
        # Never asks whether to run code that lies beside the weights, as transformers does where it is not told.
        network, info = getattr(transformers, auto).from_pretrained(
            source, output_loading_info=True, dtype=torch.float32, trust_remote_code=False, **here
        )
        record, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source, **here)
    # Broken files and networks raise errors of many kinds: OSError, ValueError, safetensors', huggingface_hub's.
    except Exception as error:
        raise InputError(f"{model} cannot be read as a model for images: {_reason(error)}") from error
    if info["missing_keys"]:
        raise InputError(f"{model} lacks weights of a {type(network).__name__}, e.g. {min(info['missing_keys'])}")
    return network, Preprocessing.from_dict(record, model)


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it needs code of its own (auto_map in its config.json), which is never run"
    return one_line(error)


def is_hub_id(model: str) -> bool:
    """Whether it has the form owner/name and is not a folder here."""
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
        raise InputError(f"{model} needs transformers: pip install transformers") from error
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
