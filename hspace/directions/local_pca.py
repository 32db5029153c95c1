"""Principal components of h around one sample, which are directions of that sample alone."""

from pydantic import Field

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.method import Sources, method
from hspace.directions.pca import ComponentSettings, pca
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES


class LocalPcaSettings(ComponentSettings):
    """Settings of `method=local_pca`."""

    k: int = Field(4, ge=1)
    """Components kept; a strength is in standard deviations."""
    num_samples: int = Field(200, ge=2, le=MAX_SAMPLES)
    """Neighbours generated."""
    sample: int = Field(0, ge=0, lt=MAX_SAMPLES)
    """Seed of the sample."""


@method("local_pca", settings=LocalPcaSettings, varying=True)
def find(model: DiffusionModel, sources: Sources, settings: LocalPcaSettings) -> Directions:
    """Principal components of h around one sample, whose noise is varied a little.

    Source: the code of Haas et al. 2024: x_T and z become sqrt(.85) x + sqrt(.15) noise.
    """
    recorded = sources.recorded_around(settings.sample, settings.num_samples)
    return pca(recorded, model, k=settings.k, memory=sources.memory)
