"""Directions of the tiny model, and a photograph of a person that is in the public domain (NASA)."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions, DirectionsMeta


def directions_of(model: DiffusionModel, names: tuple[str, ...] = ("smile", "age"), size: float = 3.0) -> Directions:
    """Random directions that fit a model, of one norm."""
    steps = len(model.process.timesteps)
    vectors = torch.randn(len(names), steps, *model.h_shape, generator=torch.Generator().manual_seed(5))
    meta = DirectionsMeta(
        space="h", provenance=model.provenance(eta=1.0), model_id=model.model_id, method="random", names=names,
        unit="norm",
    )  # fmt: skip
    return Directions(size * vectors, meta)


@pytest.fixture(scope="session")
def directions_file(tiny_model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("directions") / "tiny.safetensors"
    directions_of(tiny_model).save(path)
    return path


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut Eileen Collins, 300 x 220 pixels, stored lying on its side with the EXIF tag that turns it."""
    path = tmp_path_factory.mktemp("photographs") / "astronaut.jpg"
    upright = Image.fromarray(data.astronaut()).crop((60, 0, 360, 220))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(path, quality=95, exif=exif)
    return path
