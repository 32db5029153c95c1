"""Masks from rectangles, PNG files and named regions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hspace.directions.masks import make_mask, on_grid
from hspace.types import Images, InputError, RegionNetwork


class Halves:
    """Knows the left half of an image, and what is brighter than grey."""

    id = "halves"
    regions = ("left", "bright")

    def __call__(self, images: Images) -> dict[str, Tensor]:
        left = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        left[..., : images.shape[3] // 2] = True
        return {"left": left, "bright": images.mean(dim=1) > 0}


@pytest.fixture
def png(tmp_path: Path) -> Path:
    """16 x 16 pixels: the lower right quarter is just lighter than 50% grey, the rest just darker."""
    grey = np.full((16, 16), 127, np.uint8)
    grey[8:, 8:] = 128
    Image.fromarray(grey).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_a_rectangle_is_in_fractions_of_the_image() -> None:
    expected = torch.zeros(8, 16, dtype=torch.bool)
    expected[2:4, 0:12] = True
    assert torch.equal(make_mask([0.25, 0, 0.5, 0.75], (8, 16)), expected)
    assert make_mask([0, 0, 1, 1], (5, 7)).all()


def test_rectangles_side_by_side_cover_every_pixel_once() -> None:
    left, right = make_mask([0, 0, 1, 0.4], (8, 9)), make_mask([0, 0.4, 1, 1], (8, 9))
    assert (left ^ right).all()


def test_a_png_counts_where_it_is_lighter_than_half_grey(png: Path) -> None:
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[8:, 8:] = True
    assert torch.equal(make_mask(str(png), (16, 16)), expected)


@pytest.mark.parametrize("size", [(4, 4), (32, 32)])
def test_a_png_is_resized_to_the_grid(png: Path, size: tuple[int, int]) -> None:
    assert torch.equal(make_mask(str(png), size), make_mask([0.5, 0.5, 1, 1], size))


def test_a_cell_of_a_coarse_grid_belongs_to_a_region_that_holds_half_of_it() -> None:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:8, :4] = mask[:8, 8:11] = True
    expected = torch.zeros(2, 2, dtype=torch.bool)
    expected[0, 0] = True
    assert torch.equal(on_grid(mask, (2, 2)), expected)


@pytest.mark.parametrize("row", range(16))
def test_a_region_thinner_than_a_cell_is_the_cells_that_hold_most_of_it(row: int) -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[row : row + 3, 8:24] = True
    inside = on_grid(mask, (4, 4))
    rows = {each // 8 for each in range(row, row + 3)}
    held = {r: sum(each // 8 == r for each in range(row, row + 3)) for r in rows}
    (expected,) = (r for r in rows if held[r] == max(held.values()))
    assert inside.nonzero().tolist() == [[expected, 1], [expected, 2]]


@pytest.mark.parametrize("kind", ["RGBA", "P", "1", "I;16"])
def test_png_files_of_every_kind_mean_the_same(png: Path, kind: str) -> None:
    with Image.open(png) as file:
        if kind == "I;16":
            other = Image.fromarray(np.array(file).astype(np.uint16) * 257)
        else:
            other = Image.fromarray(np.where(np.array(file) > 127, 255, 0).astype(np.uint8)).convert(kind)
    path = png.with_name("other.PNG")
    other.save(path)
    assert torch.equal(make_mask(str(path), (16, 16)), make_mask(str(png), (16, 16)))


def test_a_named_region_of_the_samples_own_image() -> None:
    network = Halves()
    assert isinstance(network, RegionNetwork)
    image = -torch.ones(1, 3, 32, 32)
    image[..., :8, :] = 1
    assert torch.equal(make_mask("left", (8, 8), image=image, network=network), make_mask([0, 0, 1, 0.5], (8, 8)))
    assert torch.equal(make_mask("bright", (8, 8), image=image, network=network), make_mask([0, 0, 0.25, 1], (8, 8)))
    with pytest.raises(InputError, match="mask must be one of left, bright, a rectangle or a PNG file, got mouth"):
        make_mask("mouth", (8, 8), image=image, network=network)
    with pytest.raises(InputError, match="mask bright holds no pixel of the 8 x 8 grid"):
        make_mask("bright", (8, 8), image=-torch.ones(1, 3, 32, 32), network=network)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ([0, 0, 1], r"in fractions of 0 to 1, got \[0, 0, 1\]"),
        ([0, 0, 32, 32], "in fractions of 0 to 1"),
        ([0, 0, 1, float("nan")], "in fractions of 0 to 1"),
        ([0.5, 0, 0.5, 1], "holds no pixel"),
        ([0.5, 0, 0.52, 1], "holds no pixel"),
        ("missing.png", "mask missing.png cannot be read as an image"),
        ("mouth", "mask mouth is a named region, and this model has no network that finds regions"),
    ],
)
def test_bad_regions(region: str | list[float], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_mask(region, (16, 16))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 20, 40])
def test_a_broken_png_is_one_line(png: Path, keep: int) -> None:
    png.write_bytes(png.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read as an image") as caught:
        make_mask(str(png), (16, 16))
    assert "\n" not in str(caught.value)
