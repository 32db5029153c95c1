"""Directions or an operator that were found before, or elsewhere."""

from pathlib import Path

from pydantic import Field

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.method import Sources, method
from hspace.directions.operators import Found, load_found
from hspace.directions.settings import Settings


class FileSettings(Settings):
    """Settings of `method=file`."""

    path: Path = Field()
    """Safetensors, as hspace writes it; must fit the model, tap and steps."""


@method("file", settings=FileSettings, kept=False, samples=False, given=lambda _, settings: settings.path)
def find(model: DiffusionModel, sources: Sources, settings: FileSettings) -> Found:
    """Directions or an operator from a file, which this run names, applies and measures."""
    return load_found(settings.path)
