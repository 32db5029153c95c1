"""Pictures and animations of images as PNG, GIF and WebP, each with a note on how it was made."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from hspace.output.drawing import NOTE
from hspace.system.files import write_bytes
from hspace.types import Images, InputError

Pixels = UInt8[np.ndarray, "rows columns 3"]
"""One picture, (height, width, 3) uint8."""

ANIMATIONS = (".gif", ".webp")
DESCRIPTION = 0x010E
"""EXIF tag of an image's description."""


def to_pixels(images: Images) -> list[Pixels]:
    """Images in [-1, 1], (batch, 1 or 3, height, width), as pictures; values outside are clipped, grey becomes RGB."""
    bytes_ = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(bytes_.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy())


def encode_png(picture: Pixels, note: str = "") -> bytes:
    """A picture as the bytes of a PNG; a note becomes its text `Description`."""
    texts = PngImagePlugin.PngInfo()
    if note:
        texts.add_itxt(NOTE, note)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", pnginfo=texts)
    return stream.getvalue()


def write_png(path: str | Path, picture: Pixels, note: str) -> Path:
    """Writes a picture with a note, atomically."""
    write_bytes(path, encode_png(picture, note))
    return Path(path)


def write_animation(
    path: str | Path, pictures: Sequence[Pixels], note: str, *, milliseconds: int = 90, largest: int = 512
) -> Path:
    """Writes an animation that runs through the pictures and back, for ever.

    Args:
        path: File to write, a `.gif` or a `.webp`.
        pictures: At least two pictures of one size.
        note: Text for the GIF's comment, or the WebP's EXIF description.
        milliseconds: Time for which each picture is shown.
        largest: Largest side in pixels, to which larger pictures are reduced.

    Raises:
        InputError: If there are fewer than two pictures, or the suffix is of neither format.
    """
    suffix = Path(path).suffix.lower()
    if len(pictures) < 2 or suffix not in ANIMATIONS:
        raise InputError(f"an animation is two or more pictures in a .gif or .webp file, got {len(pictures)} in {path}")
    frames = [_at_most(Image.fromarray(picture), largest) for picture in (*pictures, *pictures[-2:0:-1])]
    stream, common = io.BytesIO(), {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    if suffix == ".gif":
        frames[0].save(stream, "GIF", comment=note.encode(), **common)
    else:
        frames[0].save(stream, "WEBP", exif=_exif(note), lossless=max(frames[0].size) <= 128, quality=90, **common)
    write_bytes(path, stream.getvalue())
    return Path(path)


def read_note(path: str | Path) -> str:
    """The note of a picture or animation that was written here; empty without one.

    Examples:
        >>> path = write_png("edited.png", np.zeros((4, 4, 3), dtype=np.uint8), "Edited by hspace")
        >>> read_note(path)
        'Edited by hspace'
    """
    with Image.open(path) as image:
        comment = image.info.get("comment", b"")
        described = str(image.getexif().get(DESCRIPTION, "")).encode("latin-1", "replace")
        text = image.info.get(NOTE) or described or comment
    return text.decode() if isinstance(text, bytes) else str(text)


def _exif(note: str) -> Image.Exif:
    exif = Image.Exif()
    # Pillow writes bytes as they are; text it would make ASCII.
    exif[DESCRIPTION] = note.encode()
    return exif


def _at_most(image: Image.Image, largest: int) -> Image.Image:
    """The image itself, or smaller; `thumbnail` keeps its proportions."""
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return image
