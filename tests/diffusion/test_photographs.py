"""Photographs are read upright, cut about their centre, and resized without aliasing."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hspace.diffusion.photographs import find_images, load_images
from hspace.types import InputError


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_values_at_the_same_size(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    images = load_images([save(tmp_path / "a.png", pixels)], (6, 4))
    assert images.dtype == torch.float32
    assert torch.equal(images[0].permute(1, 2, 0), torch.from_numpy(pixels) / 127.5 - 1)


def test_the_centre_is_kept(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, 4:8] = 255
    assert torch.equal(load_images([save(tmp_path / "wide.png", pixels)], (4, 4)), torch.ones(1, 3, 4, 4))


def test_resizing_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    image = load_images([save(tmp_path / "stripes.png", stripes)], (8, 8))
    assert image.abs().max() <= 0.05


def test_upright_by_exif_and_transparent_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    image = load_images([save(tmp_path / "a.png", pixels, exif=exif)], (4, 4))[0]
    assert torch.equal(image[:, 3], torch.ones(3, 4)) and torch.equal(image[:, 0], -torch.ones(3, 4))
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    assert torch.equal(load_images([save(tmp_path / "b.png", clear)], (4, 4)), torch.ones(1, 3, 4, 4))


def test_files_of_a_folder_in_order(tmp_path: Path) -> None:
    grey = np.full((4, 4), 128, dtype=np.uint8)
    for name in ("b.PNG", "a.jpg", "c.webp"):
        save(tmp_path / name, grey)
    (tmp_path / "notes.txt").write_text("no image")
    found = find_images(tmp_path)
    assert [path.name for path in found] == ["a.jpg", "b.PNG", "c.webp"]
    assert find_images(found[0]) == [found[0]]
    assert load_images(found, (2, 2)).shape == (3, 3, 2, 2)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image in the folder"):
        find_images(tmp_path)
    with pytest.raises(InputError, match="is neither an image nor a folder"):
        find_images(tmp_path / "missing")
    with pytest.raises(InputError, match="at least one image file, got none"):
        load_images([], (4, 4))
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:1000])
    (tmp_path / "text.png").write_text("hello")
    for name in ("cut.png", "text.png", "missing.png"):
        with pytest.raises(InputError, match=rf"{name} cannot be read as an image"):
            load_images([tmp_path / name], (4, 4))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_no_record_could_hold_is_named(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.png")
    Image.new("RGB", (8, 8)).save(path)
    for given in (tmp_path, path):
        with pytest.raises(InputError, match=r"must be UTF-8, got '.*udcff\.png': rename it"):
            find_images(given)
