"""Inversions of photographs, kept as files, so that only the first edit of a photograph waits for its inversion.

An inversion is two files of one name: `.safetensors` holds its `Latents`, `.image.safetensors` what they give back.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.inversion import ddim_inversion, edit_friendly_inversion
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.studio.photos import Photo
from hspace.system.records import check_floats, check_names, load_record, save_record
from hspace.types import Images, InputError

FORMAT = 3


@dataclass(frozen=True)
class Inversion:
    """The noise of one photograph.

    Attributes:
        latents: Latents of one sample that `sample` turns into `x_0` at the same eta.
        x_0: Reconstructed image, (1, channel, height, width), on the CPU.
        error: Root mean square difference between `x_0` and the photograph, in images of [-1, 1].
        kept: Whether it was read from a file.
    """

    latents: Latents
    x_0: Images
    error: float
    kept: bool = False


def inversion(model: DiffusionModel, photo: Photo, eta: float | Sequence[float], folder: Path) -> Inversion:
    """The inversion of a photograph: read from `folder`, or made and written there.

    It is edit-friendly if any step has noise, and DDIM if eta is 0. The name of the file holds a hash of the
    photograph, the model, its steps and eta, so that a stale file is never read.

    Args:
        model: The model.
        photo: Photograph of three channels; grey models get its lightness.
        eta: Stochasticity of the later sampling.
        folder: Folder of the inversions.

    Raises:
        InputError: If the model's images have neither one nor three channels.
        OSError: If the file cannot be written.
    """
    etas = model.process.etas(eta)
    facts = _facts(model, photo, etas)
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    # The names of files are limited in bytes.
    stem = photo.path.stem.encode("utf-8", "replace")[:60].decode("utf-8", "ignore")
    path = folder / f"{stem}-{name}.safetensors"
    return _read(path, model, etas) or _made(model, photo, etas, path)


def _facts(model: DiffusionModel, photo: Photo, etas: tuple[float, ...]) -> dict[str, object]:
    """All that an inversion depends on."""
    process, cond = model.process, model.cond
    prompt = None if cond is None else [cond.prompt, cond.guidance]
    return {
        "format": FORMAT, "photograph": photo.sha256, "frame": astuple(photo.frame), "model": model.identity.sha256,
        "timesteps": process.timesteps, "levels": process.levels(), "prediction": process.prediction_type, "eta": etas,
        "prompt": prompt, "shape": model.image_shape, "dtype": str(model.dtype),
    }  # fmt: skip


def _made(model: DiffusionModel, photo: Photo, etas: tuple[float, ...], path: Path) -> Inversion:
    images = _channels(photo.aligned, model.image_shape[0])
    # The photograph keys the noise, so that two photographs do not share it.
    seed = int(photo.sha256[:12], 16)
    if any(etas):
        found = edit_friendly_inversion(model, images, sampler=Sampler(etas), seeds=[seed])
    else:
        found = ddim_inversion(model, images)
    made = Inversion(found.latents, found.x_0.cpu(), float(found.reconstruction.rms))
    save_record(_image_of(path), {"x_0": made.x_0}, {"error": made.error})
    made.latents.save(path)
    return made


def _read(path: Path, model: DiffusionModel, etas: tuple[float, ...]) -> Inversion | None:
    """The inversion in the files; None where one is missing or damaged, so that it must be made again."""
    try:
        latents = Latents.load(path).fit(model.provenance(eta=etas, tap=False))
        x_0, error = load_record(_image_of(path), "image", _image)
    except InputError:
        return None
    shapes = tuple(latents.x_T.shape), latents.z.shape[1], tuple(x_0.shape)
    if shapes != ((1, *model.sample_shape), len(model.process.timesteps), (1, *model.image_shape)):
        return None
    return Inversion(latents.to(model.device), x_0, error, kept=True)


def _image_of(path: Path) -> Path:
    return path.with_suffix(".image.safetensors")


def _image(facts: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Images, float]:
    """The reconstructed image and its error, which anyone may have written."""
    check_names(tensors, {"x_0"}, set())
    check_floats(tensors)
    if not isinstance(facts.get("error"), float):
        raise InputError("the metadata has no error")
    return tensors["x_0"], facts["error"]


def _channels(image: Images, channels: int) -> Images:
    if channels == 3:
        return image
    if channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
        return (image * weights).sum(1, keepdim=True)
    raise InputError(f"photographs have three channels, and this model's images {channels}: it cannot invert them")
