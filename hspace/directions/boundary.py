# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""A linear boundary between examples: the normal of the plane that separates them."""

from collections.abc import Sequence
from typing import Literal

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.annotations import Annotations, extremes
from hspace.directions.examples import (
    ExampleSettings,
    codes_of,
    difference_meta,
    how_chosen,
    index_of,
    without_conditions,
)
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.types import InputError

CLASSIFIERS = {
    "logistic": lambda: LogisticRegression(max_iter=1000),
    "svm": lambda: LinearSVC(max_iter=10_000, random_state=0),
}
"""Linear classifiers of scikit-learn for `boundary`, with their default penalty."""


class BoundarySettings(ExampleSettings):
    """Settings of `method=boundary`."""

    classifier: Literal["logistic", "svm"] = "logistic"
    """Linear classifier whose boundary it is."""
    joint: bool = False
    """Whether one plane separates the whole trajectories; else each step has its own."""


@method("boundary", settings=BoundarySettings, reads=("annotations",), varying=True)
def find(model: DiffusionModel, sources: Sources, settings: BoundarySettings) -> Directions:
    """The normal of a linear boundary between the samples with most and least of an attribute.

    Source: Shen et al. 2020 (arXiv 1907.10786), sec. 3.2, in another space.
    """
    annotations, recorded = index_of(sources, settings)

    def one(attribute: str, match: Sequence[str] = ()) -> Directions:
        return boundary(
            model, annotations, attribute, k=settings.k, space=settings.space, classifier=settings.classifier,
            joint=settings.joint, match=match, batch_size=sources.sampler.batch_size, recorded=recorded,
        )  # fmt: skip

    return without_conditions(model, sources, settings, one)


def boundary(
    model: DiffusionModel,
    annotations: Annotations,
    attribute: str,
    *,
    k: int,
    space: str = "h",
    classifier: str = "logistic",
    joint: bool = False,
    match: Sequence[str] = (),
    batch_size: int = 16,
    recorded: Recorded | None = None,
) -> Directions:
    """The normal of the plane that separates the samples with most of an attribute from those with least.

    Its length is the distance of the two sides' means along it, so that strength 1 goes from one mean to the other.
    Memory: 8 k · steps · d bytes, twice.

    Args:
        model: The model of the annotations.
        annotations: Scored samples.
        attribute: Attribute that the direction changes; binary or continuous.
        k: Examples on each side.
        space: `h` or `x_T`.
        classifier: `logistic` or `svm`.
        joint: Whether one plane separates whole trajectories; otherwise each step has a plane of its own.
        match: Attributes in which the two sides are to be alike; see `extremes`.
        batch_size: Number of samples per pass.
        recorded: Recorded h of the scored samples; without it that of the chosen ones is generated again.

    Returns:
        One direction of unit "difference".

    Raises:
        InputError: If the classifier is unknown, the annotations are of another model, the recorded samples are
            others or are given where several processes run, or the examples cannot be chosen, see `extremes`.

    Source: Shen et al. 2020 (arXiv 1907.10786), sec. 3.2, in another space.
    """
    annotations.check(model)
    if classifier not in CLASSIFIERS:
        raise InputError(f"classifier must be one of {', '.join(CLASSIFIERS)}, got {classifier}")
    examples = extremes(annotations, attribute, k, match=match)
    codes = torch.cat(list(codes_of(model, examples.plus + examples.minus, annotations, space, batch_size, recorded)))
    shape = codes.shape[1:]
    groups = codes.flatten(2) if space == "h" and not joint else codes.flatten(1)[:, None]
    normal = torch.stack([_normal(points[:k], points[k:], classifier) for points in groups.unbind(1)])
    method = f"boundary {classifier}{' joint' if joint else ''}{how_chosen(annotations, match)}"
    meta = difference_meta(
        model, space, annotations.eta, method, attribute, annotations.seeds, annotations.provenance.annotator
    )
    return Directions(normal.reshape(1, *shape), meta)


def _normal(plus: Tensor, minus: Tensor, classifier: str) -> Tensor:
    """Normal (d,) of the plane between two groups (k, d), as long as their means are apart along it."""
    # The mean is subtracted first, since LinearSVC penalises a large intercept.
    points = torch.cat([plus, minus])
    points = points - points.mean(0)
    labels = [1] * len(plus) + [0] * len(minus)
    fitted = CLASSIFIERS[classifier]().fit(points.numpy(), labels)
    normal = torch.from_numpy(fitted.coef_[0]).float()
    normal = normal / normal.norm()
    return normal * ((plus.mean(0) - minus.mean(0)) @ normal)
