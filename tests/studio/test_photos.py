"""Cutting a photograph out and putting an edit back, and inversions as files."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.identity import Identity
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.scorers.faceapi import FaceFinder
from hspace.studio.inverting import inversion
from hspace.studio.photos import Frame, central_box, cut_out, face_frame, find_points, open_photo, paste, weights_of
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


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


def test_a_face_lies_as_in_celeba_hq_however_the_photograph_is_turned(finder: FaceFinder, tmp_path: Path):
    """Eyes on a level line around 46% of the height, mouth below their middle: where those of CelebA-HQ lie."""
    upright = Image.fromarray(data.astronaut()[:300, 60:400])
    for angle in (-20, 0, 20):
        path = tmp_path / f"{angle}.png"
        upright.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=(90, 90, 90)).save(path)
        photo = open_photo(path, (256, 256), finder)
        assert photo.by_face and abs(math.degrees(math.atan2(photo.frame.right[1], photo.frame.right[0])) + angle) < 6
        view = ((photo.aligned[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
        points = find_points(view, finder)
        assert points is not None
        eyes, mouth = points[36:48].reshape(2, 6, 2).mean(1), points[48:68].mean(0)
        assert abs(eyes[1, 1] - eyes[0, 1]) < 12 and np.abs(eyes.mean(0) - [128, 118]).max() < 14
        assert np.abs(mouth - [128, 178]).max() < 16


def test_the_frame_of_a_face_is_that_of_the_paper():
    """The formulas of appendix C, with complex numbers: a quarter turn back is a product with -i."""
    points = np.random.default_rng(0).normal(size=(68, 2)) + np.array([3, 5])
    e0, e1 = (complex(*points[i : i + 6].mean(0)) for i in (36, 42))
    x, y = e1 - e0, (e0 + e1) / 2 - (complex(*points[48]) + complex(*points[54])) / 2
    # In images, where y points down, the paper's y' goes from the mouth up to the eyes.
    axis = x + y * 1j
    axis *= max(4 * abs(x), 3.6 * abs(y)) / 2 / abs(axis)
    centre = (e0 + e1) / 2 - 0.1 * y
    frame = face_frame(points, (8, 8))
    assert np.allclose([complex(*frame.centre), complex(*frame.right), complex(*frame.down)], [centre, axis, axis * 1j])
    wide = face_frame(points, (8, 16))
    assert np.allclose(np.array(wide.right), 2 * np.array(frame.right)) and wide.down == frame.down


def test_what_is_cut_out_of_a_turned_frame_is_the_photographs(photograph: Path):
    """A smooth picture, cut out by a turned frame, is the picture's own function at the frame's places."""
    y, x = np.mgrid[0:200, 0:240] + 0.5
    smooth = np.stack([x, y, (x + y) / 2], axis=-1).round().astype(np.uint8)
    frame = Frame((120.0, 100.0), (48.0, 36.0), (-36.0, 48.0))
    seen = (cut_out(smooth, frame, (20, 20))[0] + 1) * 127.5
    across = (torch.arange(20) + 0.5) / 10 - 1
    wanted_x = 120 + 48 * across[None] - 36 * across[:, None]
    wanted_y = 100 + 36 * across[None] + 48 * across[:, None]
    assert (seen[0] - wanted_x).abs().max() < 1.5 and (seen[1] - wanted_y).abs().max() < 1.5
    beyond = cut_out(smooth, replace(frame, centre=(0.0, 0.0)), (20, 20))
    assert beyond.isfinite().all() and (beyond > -1).any()


def test_a_turned_frame_takes_changes_at_its_own_place_and_no_other(photograph: Path):
    photo = open_photo(photograph, (16, 16))
    turned = replace(photo, frame=Frame((150.0, 110.0), (40.0, 30.0), (-30.0, 40.0)))
    weights = weights_of(turned, None)
    zero, bright = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    bright[..., :8] = 0.5
    grey = np.full_like(photo.pixels, 100)
    pasted = paste(replace(turned, pixels=grey), zero, bright, weights).astype(int)
    y, x = np.mgrid[0:220, 0:300] + 0.5
    across, along = (0.8 * (x - 150) + 0.6 * (y - 110)) / 50, (-0.6 * (x - 150) + 0.8 * (y - 110)) / 50
    outside = (abs(across) > 1) | (abs(along) > 1)
    assert not weights[outside].any() and (pasted[outside] == 100).all()
    core = (abs(across) < 0.8) & (abs(along) < 0.8)
    assert (pasted[core & (across < -0.3)] == 164).all() and (pasted[core & (across > 0.3)] == 100).all()


def test_without_a_face_the_middle_is_taken(finder: FaceFinder, tmp_path: Path):
    Image.effect_noise((120, 90), 60).convert("RGB").save(tmp_path / "noise.png")
    photo = open_photo(tmp_path / "noise.png", (16, 16), finder)
    assert not photo.by_face and photo.box == (0, 15, 90, 105)


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
    (path,) = (each for each in tmp_path.iterdir() if ".image" not in each.name)
    loaded = Latents.load(path)
    assert torch.equal(loaded.x_T, kept.latents.x_T) and loaded.provenance is not None
    assert torch.equal(sample(tiny_model, loaded, sampler=Sampler(eta=eta)).x_0, back)
    with pytest.raises(InputError, match="eta"):
        sample(tiny_model, loaded, sampler=Sampler(eta=0.25))


def test_another_model_or_a_damaged_file_is_no_hit(tiny_model: DiffusionModel, photograph: Path, tmp_path: Path):
    photo = open_photo(photograph, (16, 16))
    inversion(tiny_model, photo, 1.0, tmp_path)
    assert not inversion(
        replace(tiny_model, identity=Identity({"network.tensors": "0" * 64})), photo, 1.0, tmp_path
    ).kept
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    assert not inversion(tiny_model, photo, 1.0, tmp_path).kept and inversion(tiny_model, photo, 1.0, tmp_path).kept
