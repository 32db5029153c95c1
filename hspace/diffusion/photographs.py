# pyright: strict, reportUnknownMemberType=false
"""Photographs from files and folders, as batches in [-1, 1]."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from hspace.system.files import is_utf8
from hspace.system.pictures import read_picture
from hspace.types import Images, InputError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the files in a folder that are read as images."""


def find_images(path: str | Path) -> list[Path]:
    """The image file itself, or those of a folder in the order of their names; folders inside it are not searched.

    Hidden files are left out: other systems leave notes on a picture beside it, under its name after a dot.

    Raises:
        InputError: If the file or folder does not exist, or the folder holds no image, or a name is not UTF-8, which
            no record could hold.
    """
    path = Path(path).expanduser()
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is neither an image nor a folder")
    found = [path] if path.is_file() else sorted(filter(_is_shown, path.iterdir()))
    if not found:
        raise InputError(f"no image in the folder {path}; images end in {', '.join(SUFFIXES)}")
    for each in found:
        if not is_utf8(str(each)):
            raise InputError(f"the name of a photograph must be UTF-8, got {str(each)!a}: rename it")
    return found


def _is_shown(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")


def load_images(paths: Sequence[str | Path], size: tuple[int, int]) -> Images:
    """Read images, cut each about its centre to the wanted shape, and resize it with antialiasing.

    Args:
        paths: Image files. A photograph is turned upright by its EXIF tag, and transparency is laid on white.
        size: (height, width) in pixels.

    Returns:
        (batch, 3, height, width), float32 in [-1, 1].

    Raises:
        InputError: If `paths` is empty, or a file cannot be read; see `read_picture`.
    """
    if not paths:
        raise InputError("give at least one image file, got none")
    return torch.stack([_load(Path(path), size) for path in paths])


def _load(path: Path, size: tuple[int, int]) -> torch.Tensor:
    height, width = size
    picture = read_picture(path, background="white")
    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 127.5 - 1
