"""Pictures and animations: read back by Pillow, pixel for pixel, with their notes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hspace.output.animation import read_note, to_pixels, write_animation, write_png
from hspace.types import InputError

NOTE = "A photograph edited by hspace: Lächeln at 2"


def frames(count: int, size: int = 24) -> list[np.ndarray]:
    ramp = torch.linspace(-1, 1, count)[:, None, None, None].expand(count, 3, size, size)
    return to_pixels(ramp)


def test_values_become_bytes_and_grey_becomes_rgb():
    (picture,) = to_pixels(torch.tensor([[[[-3.0, -1.0], [0.0, 1.0]]]]))
    assert picture.tolist() == [[[0] * 3, [0] * 3], [[128] * 3, [255] * 3]]


def test_a_png_keeps_its_pixels_and_its_note(tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = write_png(tmp_path / "new" / "x.png", picture, NOTE)
    assert np.array_equal(np.array(Image.open(path)), picture) and read_note(path) == NOTE


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_runs_there_and_back(suffix: str, tmp_path: Path):
    path = write_animation(tmp_path / f"x{suffix}", frames(4), NOTE)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 6 and image.info["loop"] == 0
        levels = []
        for i in range(6):
            image.seek(i)
            levels.append(int(np.array(image.convert("RGB"))[0, 0, 0]))
    assert np.abs(np.array(levels) - [0, 85, 170, 255, 170, 85]).max() <= 2
    assert read_note(path) == NOTE


def test_a_large_animation_is_made_smaller(tmp_path: Path):
    path = write_animation(tmp_path / "x.gif", frames(2, 100), "", largest=40)
    assert Image.open(path).size == (40, 40)


@pytest.mark.parametrize(("count", "name"), [(1, "x.gif"), (2, "x.png")])
def test_what_is_no_animation_is_refused(count: int, name: str, tmp_path: Path):
    with pytest.raises(InputError, match=name):
        write_animation(tmp_path / name, frames(count), "")
    assert not list(tmp_path.iterdir())
