# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Multiple regression of h on all attributes together: what changes with one of them while the others stay."""

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, steps_of
from hspace.directions.examples import difference_meta
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.types import InputError


class RegressionSettings(Settings):
    """Settings of `method=regression`."""

    attribute: str = "glasses"
    """Attribute that the direction is to change: see `hspace list attributes`."""
    num_samples: int = Field(500, ge=3, le=MAX_SAMPLES)
    """Annotated samples that the regression is fitted to."""

    def count(self) -> int:
        """Number of directions."""
        return 1


@method("regression", settings=RegressionSettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: RegressionSettings) -> Directions:
    """The partial effect of an attribute in a multiple regression of h on all attributes.

    Source: ordinary least squares; it holds the other attributes fixed, where the mean difference lets them change too.
    """
    return regression(model, *sources.annotated(settings.num_samples), settings.attribute)


def regression(model: DiffusionModel, recorded: Recorded, annotations: Annotations, attribute: str) -> Directions:
    """The coefficient of one attribute in h = c + sum_a b_a z_a, at every step; z in standard deviations.

    An attribute that an image hides counts as its mean, which says nothing about it.

    Args:
        model: Model of the recording and the annotations.
        recorded: Recorded h of the samples.
        annotations: Scores of the same samples, in the same order.
        attribute: Attribute whose coefficient is found.

    Returns:
        One direction of unit "std": strength 1 goes along with one standard deviation of the score.

    Raises:
        InputError: If model or samples differ, several processes run, or there are not more samples than attributes.
    """
    steps = steps_of(model, recorded, annotations)
    column = annotations.column(attribute)
    scores, others = standardised(annotations), len(annotations.attributes)
    if len(scores) <= others + 1:
        raise InputError(f"regression on {others} attributes needs more samples than that, got {len(scores)}")
    # One row of the pseudo-inverse gives this coefficient, so that h is read once, one step at a time.
    weights = torch.linalg.pinv(scores)[column]
    found = torch.stack([weights @ h for h in steps]).float().unflatten(-1, recorded.h_shape)
    how = f"regression, annotated by {annotations.scorer}"
    meta = difference_meta(
        model, "h", annotations.eta, how, attribute, annotations.seeds, annotations.provenance.annotator
    )
    return Directions(found[None], replace(meta, unit="std"))


def standardised(annotations: Annotations) -> Tensor:
    """Scores with mean 0 and sd 1 over the samples that show them, 0 where hidden or constant, (n, A) float64."""
    scores, shown = annotations.scores.double(), annotations.visible
    count = shown.sum(0).clamp(min=1)
    centred = torch.where(shown, scores - torch.where(shown, scores, 0).sum(0) / count, 0)
    sd = (centred.square().sum(0) / count).sqrt()
    return torch.where(sd > 0, centred / sd.clamp(min=torch.finfo(torch.float64).tiny), 0)
