"""Pictures from strangers: only of the expected formats, of a bounded size, scaled by their own depth."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from hspace.types import InputError, one_line

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that are opened, whatever the name of a file; Pillow would hand others, such as EPS, to other programs."""
MAX_PIXELS = 50_000_000
"""Largest number of pixels; a larger picture is refused before it is decoded."""
EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
"""Modes of Pillow whose values it converts to 8 bits of red, green, blue and alpha itself."""


def read_picture(path: str | Path, *, background: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """A picture in mode RGB, turned upright by its EXIF tag, its colours those of sRGB.

    Greyscale of 12 or 16 bits is scaled to 8 bits; of 16-bit colours Pillow reads the higher 8 bits. Pictures whose
    values have no stated range (32-bit and floating-point greyscale) or no plain meaning (LAB) are refused.

    Args:
        path: File of the picture, whose first frame is read.
        background: Colour behind transparent parts.
        formats: Formats that may be opened, by Pillow's names.

    Raises:
        InputError: If the file is missing, of another format, too large, damaged, or of a refused mode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings of large and odd files, which are judged here.
            return _read(Path(path), background, formats)
    except InputError:
        raise
    # For a stranger's file Pillow raises errors of many kinds: OSError, SyntaxError, struct.error, KeyError ...
    except Exception as error:
        raise InputError(f"{path} cannot be read as an image ({', '.join(formats)}): {one_line(error)}") from error


def _read(path: Path, background: str, formats: tuple[str, ...]) -> Image.Image:
    with Image.open(path, formats=formats) as file:
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise InputError(f"{path} must have at most {MAX_PIXELS // 10**6} million pixels, got {width} x {height}")
        rgba = _rgba(path, file)
    return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")


def _in_srgb(image: Image.Image) -> Image.Image:
    """The picture in the colours of sRGB, where it brings another profile for its kind of pixels."""
    profile, colours = image.info.get("icc_profile"), {"RGBA": "RGB", "RGBX": "RGB"}.get(image.mode, image.mode)
    if not profile or colours not in ("RGB", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return image
        converted = ImageCms.profileToProfile(
            image.convert(colours), own, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):  # a damaged profile, or one of other pixels: they are taken as they are
        return image
    assert converted is not None, "a new picture was asked for"
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _rgba(path: Path, file: Image.Image) -> Image.Image:
    upright = _in_srgb(ImageOps.exif_transpose(file))
    if file.mode in EIGHT_BIT:
        # Pillow converts premultiplied grey to colours only by way of grey.
        return (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
    # Versions of Pillow give 16-bit greyscale of PNG either name.
    if not (file.mode.startswith("I;16") or (file.mode == "I" and file.format == "PNG")):
        raise InputError(f"{path} has pixels of mode {file.mode}, whose range is unknown: save it with 8 or 16 bits")
    tags, values = getattr(file, "tag_v2", {}), np.asarray(upright).astype(np.int64)
    (bits, *_), inverted = tags.get(BITSPERSAMPLE, (16,)), tags.get(PHOTOMETRIC_INTERPRETATION) == 0
    share = values / (2**bits - 1)
    grey = np.rint(255 * (1 - share if inverted else share)).astype(np.uint8)
    opaque = np.where(values == file.info.get("transparency", -1), 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, grey, opaque], axis=-1))
