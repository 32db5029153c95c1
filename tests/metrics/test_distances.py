import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hspace.metrics.distances import image_distances
from hspace.metrics.fid import FID
from hspace.types import InputError


class Pixels(nn.Module):
    """The pixels themselves as features; counts the images that it has seen."""

    id = "pixels"
    dim = 12
    seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1)


def _images(seed: int) -> Tensor:
    return torch.rand(60, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_every_pair_has_the_distance_of_its_images_and_each_image_is_embedded_once() -> None:
    original, edited = _images(0), _images(1) * 0.5
    sets = {"edited": edited, "original": original, "reconstruction": original.clone()}
    pixels = Pixels()
    found = image_distances(sets, pixels, min_samples=2, subset_size=30, batch_size=7)
    assert pixels.seen == 180
    assert list(found) == [("original", "reconstruction"), ("original", "edited"), ("reconstruction", "edited")]
    fid = FID(Pixels(), min_samples=2)
    fid.update(original[0::2], real=True)
    fid.update(edited[1::2], real=False)
    assert found["original", "edited"].fid == pytest.approx(float(fid.compute()), rel=1e-6)
    assert found["original", "edited"] == found["reconstruction", "edited"]
    assert found["original", "edited"].images == 30 and found["original", "edited"].kid.mean > 0


def test_an_edit_that_does_nothing_is_at_kid_0_in_the_mean() -> None:
    kids = []
    for seed in range(20):
        images = _images(seed)
        sets = {"original": images, "edited": images + 0.01}
        kids.append(image_distances(sets, Pixels(), min_samples=2, subset_size=30)["original", "edited"].kid.mean)
    mean, error = float(np.mean(kids)), float(np.std(kids, ddof=1)) / 20**0.5
    assert abs(mean) < 2.5 * error


def test_few_images_are_reported_and_unknown_sets_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        image_distances({"original": _images(0), "edited": _images(1)}, Pixels(), subset_size=30)
    assert "FID of 30 images is biased" in caplog.text and "KID of 30 images is uncertain" in caplog.text
    with pytest.raises(InputError, match=r"among original, reconstruction, edited, got \['real', 'edited'\]"):
        image_distances({"real": _images(0), "edited": _images(1)}, Pixels())
    with pytest.raises(InputError, match=r"of the same samples, got \[60, 50\]"):
        image_distances({"original": _images(0), "edited": _images(1)[:50]}, Pixels())
