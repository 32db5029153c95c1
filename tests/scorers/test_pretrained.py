"""Preprocessing against transformers' own, and what is said of models that cannot be read."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hspace.scorers.hub import load_classifier
from hspace.scorers.pretrained import Preprocessing, read_pretrained
from hspace.types import InputError


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("crop", [None, 20])
def test_images_are_prepared_as_transformers_prepares_them(resample: int, crop: int | None) -> None:
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    size = {"shortest_edge": 24} if crop else {"height": 24, "width": 20}
    cut = {"crop_size": {"height": crop, "width": crop}} if crop else {}
    theirs = clip.CLIPImageProcessorPil(size=size, do_center_crop=bool(crop), resample=resample, **cut)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((60, 80), Image.Resampling.BICUBIC)
    expected = torch.as_tensor(np.asarray(theirs(image, return_tensors="np")["pixel_values"]))
    images = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours = Preprocessing.from_dict(theirs.to_dict(), "m")(images)
    assert ours.shape == expected.shape
    # Pillow rounds to whole grey values after each of two passes.
    assert (ours - expected).abs().max() < 1.5 / 255 / 0.26


def test_what_cannot_be_read_is_one_line(
    make_classifier: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no folder nowhere, and no hub id either, which would be owner/name"):
        load_classifier("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be read as a model for images") as caught:
        load_classifier(str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)
    folder = shutil.copytree(make_classifier(["a", "b"]), tmp_path / "whole")
    with pytest.raises(InputError, match=r"lacks weights of a Dinov2Model"):
        read_pretrained("Dinov2Model", str(folder))
    (folder / "preprocessor_config.json").write_text('{"size": null}')
    with pytest.raises(InputError, match="must have a size and resample 2 or 3, got None and None"):
        load_classifier(str(folder))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs transformers: pip install 'hspace\[hub\]'"):
        load_classifier(str(folder))
