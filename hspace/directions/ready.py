"""Ready-made directions of the embedded models: found, calibrated and measured beforehand."""

from pathlib import Path

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.settings import Settings
from hspace.directions.shipped import ready_path
from hspace.system.registry import unknown
from hspace.types import InputError


class ReadySettings(Settings):
    """Settings of `method=ready`."""

    attribute: str = "glasses"
    """Attribute that the direction changes."""

    def count(self) -> int:
        """Number of directions."""
        return 1


def file_of(model: DiffusionModel, settings: ReadySettings) -> Path:
    """The file of a model's ready-made directions.

    Raises:
        InputError: If it has none.
    """
    return ready_path(model.model_id)


@method("ready", settings=ReadySettings, kept=False, samples=False, given=file_of)
def find(model: DiffusionModel, sources: Sources, settings: ReadySettings) -> Directions:
    """The ready-made direction of an attribute; strength 1 changes it by 1 sd.

    Raises:
        InputError: If the model has no ready-made directions, or none of the attribute.
    """
    found = Directions.load(file_of(model, settings))
    if settings.attribute not in found.meta.names:
        raise InputError(unknown("method.attribute", settings.attribute, found.meta.names))
    return found.select([found.meta.names.index(settings.attribute)])
