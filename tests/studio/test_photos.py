"""Cutting a photograph out and putting an edit back, and inversions as files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.identity import Identity
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.studio.inverting import inversion
from hspace.studio.photos import central_box, open_photo, paste, weights_of
from hspace.types import InputError


@pytest.mark.parametrize(
    ("whole", "size", "box"),
    [
        ((220, 300), (16, 16), (0, 40, 220, 260)),
        ((300, 220), (16, 16), (40, 0, 260, 220)),
        ((100, 100), (10, 20), (25, 0, 75, 100)),
        ((7, 5), (64, 64), (1, 0, 6, 5)),
    ],
)
def test_the_box_is_the_largest_in_the_middle(whole, size, box):
    assert central_box(whole, size) == box


def test_the_aligned_part_is_the_turned_photographs_middle(photograph: Path):
    photo = open_photo(photograph, (16, 16))
    assert photo.pixels.shape == (220, 300, 3) and photo.box == (0, 40, 220, 260)
    reduced = np.array(Image.fromarray(photo.pixels[:, 40:260]).resize((16, 16), Image.Resampling.BOX))
    aligned = ((photo.aligned[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(int)
    assert np.abs(aligned - reduced).mean() < 6


def test_a_paste_without_a_change_is_the_photograph(photograph: Path):
    photo = open_photo(photograph, (16, 16))
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    assert np.array_equal(paste(photo, image, image, weights_of(photo, None)), photo.pixels)


def test_a_change_arrives_inside_and_nowhere_else(photograph: Path):
    photo = open_photo(photograph, (16, 16))
    weights = weights_of(photo, [0.25, 0.4, 0.75, 0.6])
    rows, columns = np.nonzero(weights)
    assert rows.min() >= 55 and rows.max() < 165 and columns.min() >= 120 and columns.max() < 180
    zero = torch.zeros(1, 3, 16, 16)
    pasted = paste(replace(photo, pixels=np.full_like(photo.pixels, 100)), zero, zero + 0.21, weights).astype(int)
    assert (pasted[weights == 0] == 100).all() and (pasted[weights == 1] == 127).all() and (weights == 1).sum() > 1000


def test_a_png_masks_the_photograph_not_the_part(photograph: Path, tmp_path: Path):
    mask = np.zeros((110, 150), dtype=np.uint8)
    mask[:, :75] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    weights = weights_of(open_photo(photograph, (16, 16)), str(tmp_path / "m.png"))
    assert not weights[:, 150:].any() and not weights[:, :40].any() and (weights[110, 50:140] == 1).all()


def test_a_mask_beside_the_part_is_refused(photograph: Path):
    with pytest.raises(InputError, match="nothing of the part"):
        weights_of(open_photo(photograph, (16, 16)), [0, 0, 1, 0.1])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_an_inversion_is_kept_and_gives_the_photograph_back(
    eta: float, tiny_model: DiffusionModel, photograph: Path, tmp_path: Path
):
    photo = open_photo(photograph, (16, 16))
    made = inversion(tiny_model, photo, eta, tmp_path)
    kept = inversion(tiny_model, photo, eta, tmp_path)
    assert (made.kept, kept.kept) == (False, True) and made.error == kept.error
    assert made.error < 1e-5 or eta == 0
    back = sample(tiny_model, kept.latents, sampler=Sampler(eta=eta)).x_0
    assert (back - made.x_0).abs().max() < 1e-5
    assert len(list(tmp_path.iterdir())) == 1


def test_another_model_or_a_damaged_file_is_no_hit(tiny_model: DiffusionModel, photograph: Path, tmp_path: Path):
    photo = open_photo(photograph, (16, 16))
    inversion(tiny_model, photo, 1.0, tmp_path)
    assert not inversion(
        replace(tiny_model, identity=Identity({"network.tensors": "0" * 64})), photo, 1.0, tmp_path
    ).kept
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    assert not inversion(tiny_model, photo, 1.0, tmp_path).kept and inversion(tiny_model, photo, 1.0, tmp_path).kept
