# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The operator that erases an attribute: after it no linear map of h says anything about the attribute."""

from pydantic import Field
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, steps_of
from hspace.directions.leace import Eraser, fit_eraser
from hspace.directions.method import Sources, method
from hspace.directions.operators import Operator, OperatorSettings, operator_meta, stacked
from hspace.directions.settings import MAX_SAMPLES


class EraseSettings(OperatorSettings):
    """Settings of `method=erase`."""

    num_samples: int = Field(500, ge=3, le=MAX_SAMPLES)
    """Annotated samples that the operator is fitted to."""
    one_sided: bool = False
    """Whether only samples with more than the mean of the attribute are changed."""


@method("erase", settings=EraseSettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: EraseSettings) -> Operator:
    """Erases an attribute from h: each sample gets the mean of what a linear readout sees of it.

    Source: Belrose et al. 2023 (arXiv 2306.03819), LEACE, as an edit of h at every step.
    """
    recorded, annotations = sources.annotated(settings.num_samples)
    return erase(model, recorded, annotations, settings.attribute, one_sided=settings.one_sided)


def erase(
    model: DiffusionModel, recorded: Recorded, annotations: Annotations, attribute: str, *, one_sided: bool = False
) -> Operator:
    """Edits h' = h - strength W^-1 u u^T W (h - mean) with W = S^(-1/2) and a unit vector u ~ W S_hz.

    S is the covariance of h, S_hz that with the score z. At strength 1 no linear regression of z on h' is left at any
    step of unedited samples; later steps of an edited trajectory differ.

    Args:
        model: Model of the recording and the annotations.
        recorded: Recorded h of the samples.
        annotations: Scores of the same samples, in the same order; those that hide the attribute are left out.
        attribute: Attribute to erase; binary or continuous.
        one_sided: Whether only samples whose readout is above the mean are changed; then a trace is left.

    Returns:
        An operator of rank 1.

    Raises:
        InputError: If model or samples differ, several processes run, fewer than three samples show the attribute, or
            it does not vary among them.

    Source: Belrose et al. 2023 (arXiv 2306.03819), theorem 4.2; see `fit_eraser`.
    """
    steps = steps_of(model, recorded, annotations)
    column = annotations.column(attribute)
    shown = annotations.visible[:, column]
    scores = annotations.scores[shown][:, [column]].double()
    maps = [_towards(fit_eraser(seen, scores), seen, scores) for seen in (h[shown] for h in steps)]
    settings = {"attribute": attribute, "one_sided": one_sided}
    mean, left, right = (
        stacked(parts, model.h_shape)
        for parts in zip(*((each.mean, each.left.T, each.right) for each in maps), strict=True)
    )
    return Operator(
        operator_meta(model, annotations, attribute, "erase", settings), "erase", mean, left, right,
        one_sided=one_sided,
    )  # fmt: skip


def _towards(eraser: Eraser, samples: Tensor, scores: Tensor) -> Eraser:
    """The same map with readouts that rise with the scores."""
    readout = (samples - eraser.mean) @ eraser.right.T
    sign = 1.0 if float((readout * (scores - scores.mean())).sum()) >= 0 else -1.0
    return Eraser(eraser.mean, sign * eraser.left, sign * eraser.right)
