"""Every mode and depth of the meant formats is scaled right, or refused; nothing else is opened."""

import os
import shutil
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from hspace.diffusion.photographs import load_images
from hspace.directions.masks import png_mask
from hspace.system.pictures import MAX_PIXELS, read_picture
from hspace.types import InputError

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
"""Greys that 1, 2, 4, 8, 12 and 16 bits can nearly say."""


def read(path: Path, background: str = "white") -> np.ndarray:
    return np.asarray(read_picture(path, background=background)).astype(int)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, samples: np.ndarray, bits: int, colour: int, *more: bytes) -> Path:
    """A PNG by the letter of its standard; samples are (height, width, channels)."""
    height, width, _ = samples.shape
    rows = samples.reshape(height, -1)
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in rows]
    else:
        digits = ["".join(f"{value:0{bits}b}" for value in row) for row in rows]
        packed = [bytes(int(line[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(line), 8)) for line in digits]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in packed))
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def tiff(path: Path, samples: np.ndarray, bits: int, photometric: int, *, order: str = "<", kind: int = 1) -> Path:
    """A TIFF by the letter of its standard, of one strip; kind 1 is unsigned, 2 signed, 3 floating-point."""
    height, width, channels = samples.shape
    types = {1: "u", 2: "i", 3: "f"}
    data = samples.astype(f"{order}{types[kind]}{bits // 8}").tobytes()
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, channels), (278, 4, height), (279, 4, len(data)), (339, 3, kind),
    ]  # fmt: skip
    if channels > 1:  # as many numbers as channels lie behind the pixels
        more = struct.pack(f"{order}{channels}H", *[bits] * channels)
        tags[2] = (258, 3, 8 + len(data))
        data += more
    entries = b""
    for tag, type_, value in tags:
        count = channels if tag == 258 else 1
        where = type_ == 4 or (tag == 258 and channels > 2)
        cell = struct.pack(f"{order}I", value) if where else struct.pack(f"{order}HH", value, 0)
        if tag == 258 and channels == 2:
            cell = struct.pack(f"{order}HH", bits, bits)
        entries += struct.pack(f"{order}HHI", tag, type_, count) + cell
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
    return path


def scaled(bits: int) -> np.ndarray:
    """The greys in so many bits, (2, 3, 1)."""
    return np.rint(GREY / 255 * (2**bits - 1)).astype(np.int64)[..., None]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_greyscale_of_any_depth_is_scaled_right(bits: int, tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", scaled(bits), bits, 0)
    wanted = np.rint(scaled(bits) / (2**bits - 1) * 255).repeat(3, axis=-1)
    assert np.array_equal(read(path), wanted)
    light = wanted[..., 0] > 127
    assert np.array_equal(png_mask(path, (2, 3)).numpy(), light)
    assert np.allclose(load_images([path], (2, 3))[0].permute(1, 2, 0).numpy(), wanted / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("colour", [False, True])
def test_colours_and_transparency_of_any_depth_are_scaled_right(
    bits: int, alpha: bool, colour: bool, tmp_path: Path
) -> None:
    grey = scaled(bits)
    samples = np.concatenate([grey, grey[::-1], 0 * grey], axis=-1) if colour else grey
    opacity = np.array([[0, 1, 0], [1, 0, 1]])[..., None]
    whole = np.concatenate([samples, opacity * (2**bits - 1)], axis=-1) if alpha else samples
    path = png(tmp_path / "a.png", whole, bits, 2 * colour + 4 * alpha)
    wanted = np.rint(samples / (2**bits - 1) * 255)
    wanted = wanted if colour else wanted.repeat(3, axis=-1)
    for background, value in (("white", 255), ("black", 0)):
        laid = np.where(opacity == 1, wanted, value) if alpha else wanted
        assert np.array_equal(read(path, background), laid)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_grey_is_laid_on_the_background(bits: int, tmp_path: Path) -> None:
    value = int(scaled(bits)[0, 2, 0])
    path = png(tmp_path / "a.png", scaled(bits), bits, 0, chunk(b"tRNS", struct.pack(">H", value)))
    assert read(path)[0, 2].tolist() == [255] * 3 and read(path, "black")[0, 2].tolist() == [0] * 3
    assert read(path)[1, 0].tolist() == [153] * 3


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + chunk(b"tRNS", bytes([0, 255]))
    path = png(tmp_path / "a.png", np.array([[[0], [1]]]), 8, 3, palette)
    assert read(path).tolist() == [[[255] * 3, [0, 0, 255]]]
    assert png_mask(png(tmp_path / "m.png", np.array([[[0], [1]]]), 1, 0), (1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_16_bits(order: str, tmp_path: Path) -> None:
    wanted = GREY[..., None].repeat(3, axis=-1)
    assert np.array_equal(read(tiff(tmp_path / "g.tif", scaled(16), 16, 1, order=order)), wanted)
    colours = scaled(16).repeat(3, axis=-1)
    assert np.array_equal(read(tiff(tmp_path / "c.tif", colours, 16, 2, order=order)), wanted)
    if order == "<":  # Pillow reads no other
        assert np.array_equal(read(tiff(tmp_path / "w.tif", 65535 - scaled(16), 16, 0, order=order)), wanted)


UNKNOWN: dict[str, Callable[[Path], Path]] = {
    "floating point": lambda path: tiff(path, GREY[..., None] / 255, 32, 1, kind=3),
    "32 bits": lambda path: tiff(path, scaled(16), 32, 1),
    "signed 16 bits": lambda path: tiff(path, scaled(16) // 2, 16, 1, kind=2),
    "LAB": lambda path: tiff(path, scaled(8).repeat(3, axis=-1), 8, 8),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_has_no_stated_range_is_refused(kind: str, tmp_path: Path) -> None:
    path = UNKNOWN[kind](tmp_path / "a.tif")
    with pytest.raises(InputError, match="whose range is unknown: save it with 8 or 16 bits"):
        read(path)
    with pytest.raises(InputError):
        load_images([path], (2, 2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp", ".webp"])
def test_what_pillow_saves_of_every_mode_is_read_as_it_was_or_refused(mode: str, suffix: str, tmp_path: Path) -> None:
    plain = Image.new("RGB", (8, 8), (0, 0, 0))
    plain.paste((255, 255, 255), (0, 0, 4, 8))
    wanted = np.asarray(plain).astype(int)
    if mode == "I;16":
        picture = Image.fromarray((wanted[..., 0] * 257).astype(np.uint16))
    elif mode == "LAB":
        picture = Image.new("LAB", (8, 8))
    else:
        picture = plain.convert(mode)
    path = tmp_path / f"a{suffix}"
    try:
        picture.save(path)
        with Image.open(path) as saved:
            saved.load()
    except (OSError, KeyError, ValueError):
        pytest.skip(f"Pillow does not save {mode} as {suffix}, or not so that it can read it itself")
    try:
        found = read(path)
    except InputError as error:
        assert mode in ("LAB", "I", "F") and "\n" not in str(error)
    else:
        # Pillow cuts 32 bits to the 16 of a PNG, and takes what it is given as LAB for colours of a WebP.
        assert mode in ("I", "LAB") or abs(found - wanted).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_the_exif_tag_turns_photographs_and_masks_upright(orientation: int, mode: str, tmp_path: Path) -> None:
    upright = np.zeros((2, 4), np.uint8)
    upright[0, 0] = 255
    turn: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    stored = np.ascontiguousarray(turn[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = (
        Image.fromarray(stored).convert("RGB") if mode == "RGB" else Image.fromarray(stored.astype(np.uint16) * 257)
    )
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png")[..., 0], upright)
    assert np.array_equal(png_mask(tmp_path / "a.png", (2, 4)).numpy(), upright > 0)


def test_a_picture_of_more_than_50_megapixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 10_000, MAX_PIXELS // 10_000 + 1, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"not decoded"))
    for read_it in (lambda path: load_images([path], (2, 2)), lambda path: png_mask(path, (2, 2))):
        with pytest.raises(InputError, match="at most 50 million pixels, got 10000 x 5001"):
            read_it(tmp_path / "a.png")


FOREIGN: dict[str, bytes] = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "PPM": b"P6 1 1 255 abc",
    "GIF": b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    "text": b"hello",
    "nothing": b"",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_not_opened_whatever_they_are_called(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "bin" / "canary"
    canary.parent.mkdir()
    for program in ("gs", "gswin32c", "gswin64c"):
        script = canary.with_name(program)
        script.write_text(f"#!/bin/sh\ntouch {canary}\n")
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{canary.parent}{os.pathsep}{os.environ['PATH']}")
    assert shutil.which("gs") == str(canary.with_name("gs"))
    (tmp_path / "a.jpg").write_bytes(FOREIGN[kind])
    with pytest.raises(InputError, match="cannot be read as an image") as caught:
        load_images([tmp_path / "a.jpg"], (2, 2))
    assert "\n" not in str(caught.value) and not canary.exists()


def test_damaged_pictures_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    noise = Image.fromarray(draw.integers(0, 255, (9, 7, 3), np.uint8))
    options: dict[str, dict[str, Any]] = {".png": {}, ".jpg": {}, ".tif": {}, ".bmp": {}, ".webp": {}}
    refused = 0
    for suffix, option in options.items():
        path = tmp_path / f"a{suffix}"
        noise.save(path, **option)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for place in draw.integers(0, len(data), 4):
                data[place] = draw.integers(256)
            path.write_bytes(bytes(data[: draw.integers(1, len(data))] if draw.random() < 0.3 else data))
            try:
                assert read(path).ndim == 3
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 50


@pytest.fixture
def swapped() -> bytes:
    """A colour profile in which the first channel is green and the second red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = profile.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    return named.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_another_profile_become_those_of_srgb(mode: str, swapped: bytes, tmp_path: Path) -> None:
    """A photograph of a telephone, which a program without its profile would show in other colours."""
    colour = (200, 40, 90) + ((128,) if mode == "RGBA" else ())
    for name, profile in (("own", swapped), ("plain", None), ("broken", swapped[:60])):
        Image.new(mode, (4, 4), colour).save(tmp_path / f"{name}.png", icc_profile=profile)
    own, plain, broken = (read(tmp_path / f"{name}.png") for name in ("own", "plain", "broken"))
    assert np.abs(own[..., [1, 0, 2]] - plain).max() <= 2 and np.abs(own - plain).max() > 50
    assert np.array_equal(broken, plain), "a damaged profile says nothing"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new(mode, (4, 4), colour).save(tmp_path / "srgb.png", icc_profile=srgb)
    assert np.array_equal(read(tmp_path / "srgb.png"), plain)
