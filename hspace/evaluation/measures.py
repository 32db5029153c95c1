"""Measures: numbers that a run reads off every direction at every strength, by name.

`evaluation.measures` lists those of a run, in the order of its table's columns. A measure of your own is a function in
a file, such as `evaluation.measures=[effect,my_measures:contrast]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.diffusion.sampler import Sampler
from hspace.directions.operators import Found, Operator
from hspace.evaluation.manifold import HGaussian, off_manifold, own_gaussian
from hspace.evaluation.readings import Sweep, score
from hspace.metrics.angles import principal_angles
from hspace.metrics.correlation import correlation
from hspace.metrics.distances import Distance, distance, image_distances
from hspace.metrics.dose import DoseResponse, dose_response
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.identity import stranger_threshold
from hspace.metrics.interval import Interval, mean_interval
from hspace.metrics.locality import Locality, LocalityValues, feature_distance
from hspace.system.registry import Registry
from hspace.types import Embedder, Images, Scorer

Value = Interval | float | None
"""Result of a measure; None where there is nothing to measure, such as the effect on a missing target."""
SUBSET = 100
"""Number of images of a subset of the kernel distance, if there are so many."""


@runtime_checkable
class Laboratory(Protocol):
    """The parts of a run, beside the readings, that a measure may ask for."""

    @property
    def model(self) -> DiffusionModel:
        """The model."""
        ...

    @property
    def annotator(self) -> Scorer:
        """The scorer that names directions, and that some methods learn from."""
        ...

    def unit(self, scorer: Scorer) -> Tensor:
        """The sd of each of its scores over unedited samples, (attributes,)."""
        ...

    @property
    def features(self) -> Embedder:
        """The embedder whose features compare images."""
        ...

    @property
    def real(self) -> Tensor | None:
        """Features of the configured real images, (n, dim); None where there are none."""
        ...

    def region(self, images: Images) -> Tensor:
        """The region that the configuration names, bool (n or 1, height, width)."""
        ...

    def recorded(self) -> Recorded:
        """H of discovery samples."""
        ...

    def found_again(self) -> Found:
        """What the same method finds on other discovery samples."""
        ...

    @property
    def sampler(self) -> Sampler:
        """Settings of the sampling and of the edited steps."""
        ...


@dataclass(frozen=True)
class Edited:
    """One direction at one strength on all evaluation samples, which a measure reads.

    Attributes:
        sweep: Readings of the judge for all directions at all strengths.
        directions: Directions, or the operator, as they are applied.
        direction: Index of the direction; 0 for an operator.
        strength: Strength, in the direction's unit.
        target: Attribute that the direction should raise, or None.
        lab: Other parts of the run.
    """

    sweep: Sweep
    directions: Found
    direction: int
    strength: float
    target: str | None
    lab: Laboratory

    @property
    def row(self) -> int:
        """Of the edit, in the readings."""
        return self.sweep.row(self.direction, self.strength)

    @property
    def original(self) -> Images:
        """The unedited images, (n, C, H, W) in [-1, 1]; of all samples where the measure needs `images`."""
        return self.sweep.readings.images[:, 0]

    @property
    def edited(self) -> Images:
        """The same samples edited, (n, C, H, W)."""
        return self.sweep.readings.images[:, 1 + self.row]

    @property
    def effects(self) -> EffectMatrix:
        """Effects of every direction at this strength."""
        return self.sweep.effects(self.strength)

    @property
    def is_largest(self) -> bool:
        """Whether it is the largest strength, at which numbers of the direction as a whole are given."""
        return self.strength == max(self.sweep.strengths)

    @cached_property
    def outside(self) -> LocalityValues:
        """Likeness to the unedited samples outside the region."""
        locality = Locality(feature_distance(self.lab.features))
        locality.update(self.original, self.edited, self.lab.region(self.original))
        return locality.compute()

    @cached_property
    def dose(self) -> DoseResponse | None:
        """Of the direction, at its largest strength; None at others, and where there is no effect on a target."""
        if self.target is None or not self.is_largest:
            return None
        sweep, readings, j = self.sweep, self.sweep.readings, self.direction
        effects = [sweep.effects(s).cell(j, self.target).value for s in sweep.strengths]
        cosine = [float(readings.cosine[sweep.row(j, s)].mean()) for s in sweep.strengths]
        if not np.isfinite(effects).all():
            return None
        return dose_response(sweep.strengths, effects, cosine, threshold=stranger_threshold(readings.people[:, 0]))

    @cached_property
    def distance(self) -> Distance:
        """Of the edits from the real images; without these, of every second edit from the samples between, unedited."""
        if self.lab.real is not None:
            return from_real(self.lab, self.edited)
        images = {"original": self.original, "edited": self.edited}
        size = min(SUBSET, len(self.original) // 2)
        (found,) = image_distances(images, self.lab.features, min_samples=2, subset_size=size).values()
        return found


@dataclass(frozen=True)
class Measure:
    """A number to be read off an edit.

    Attributes:
        name: Name of its column in the table and of its key in the record.
        unit: Unit in words.
        higher_is_better: Whether more is better; None where neither more nor less is.
        read: Function that gives the number, with its 95% interval where it has one.
        needs: `images` if it needs the images of all samples, `region` if it needs a named region, `halves` if
            it compares two sets of images: the edits with the real images, or two halves of the samples; `varying` if
            it needs h to differ from sample to sample.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    read: Callable[[Edited], Value]
    needs: frozenset[str] = frozenset()


def measure(
    name: str, *, unit: str, higher_is_better: bool | None, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Edited], Value]], Measure]:
    """Decorator that makes a measure of a function; see `Measure`."""

    def made(read: Callable[[Edited], Value]) -> Measure:
        found = Measure(name, unit, higher_is_better, read, frozenset(needs))
        # Lists show the first line of the docstring.
        object.__setattr__(found, "__doc__", read.__doc__)
        return found

    return made


@measure("effect", unit="sd of the unedited samples", higher_is_better=None)
def effect(edited: Edited) -> Value:
    """Mean change of the target's score."""
    return None if edited.target is None else edited.effects.cell(edited.direction, edited.target)


@measure("gap", unit="sd of the unedited samples", higher_is_better=None, needs=("images",))
def gap(edited: Edited) -> Value:
    """The annotator's effect on the target less the judge's, on the same edited images; 0 where both see the same."""
    scorer, target = edited.lab.annotator, edited.target
    if target is None or target not in scorer.attributes:
        return None
    before, after = score(scorer, edited.original), score(scorer, edited.edited)
    column = scorer.attributes.index(target)
    seen = (scorer.visible(before) & scorer.visible(after))[:, column]
    change = (after - before)[:, column].double() / edited.lab.unit(scorer)[column]
    difference = torch.where(seen, change, torch.nan).numpy() - edited.sweep.readings.changes(edited.row, target)
    return mean_interval(difference[np.isfinite(difference)])


@measure("selectivity", unit="share", higher_is_better=True)
def selectivity(edited: Edited) -> Value:
    """Share of all that the edit moves which falls on its target; chance is 1 / number of judged attributes."""
    return None if edited.target is None else edited.effects.selectivity_of(edited.direction, edited.target)


@measure("accuracy", unit="share", higher_is_better=True)
def accuracy(edited: Edited) -> Value:
    """Share that flips to the asked side of the target of the visible samples that could flip."""
    if edited.target is None:
        return None
    return edited.sweep.readings.accuracy(edited.row, edited.target, edited.strength)


@measure("order", unit="correlation", higher_is_better=None)
def order(edited: Edited) -> Value:
    """Correlation of the target's score after with before: 1 if all samples keep their order, 0 if it is erased."""
    if edited.target is None:
        return None
    readings = edited.sweep.readings
    column = readings.scorer.attributes.index(edited.target)
    seen = readings.visible[edited.row, :, column]
    before, after = readings.original[seen, column], readings.edited[edited.row, seen, column]
    return correlation(before.double().numpy(), after.double().numpy())


@measure("identity", unit="cosine", higher_is_better=True)
def identity(edited: Edited) -> Value:
    """Mean cosine of the identity embeddings, of all that a person owns, to those of the unedited samples."""
    return edited.sweep.readings.identity(edited.row)


@measure("likeness", unit="cosine", higher_is_better=True)
def likeness(edited: Edited) -> Value:
    """The same of shape and features, which no judged attribute is; empty where no encoder reads them."""
    return edited.sweep.readings.likeness(edited.row)


@measure("ssim_outside", unit="structural similarity", higher_is_better=True, needs=("images", "region"))
def ssim_outside(edited: Edited) -> Value:
    """Likeness to the unedited samples outside the method's mask."""
    return edited.outside.ssim


@measure("psnr_outside", unit="dB", higher_is_better=True, needs=("images", "region"))
def psnr_outside(edited: Edited) -> Value:
    """Signal-to-noise ratio of the change outside the method's mask."""
    return edited.outside.psnr


@measure("distance_outside", unit="1 - cosine of features", higher_is_better=False, needs=("images", "region"))
def distance_outside(edited: Edited) -> Value:
    """Perceptual distance to the unedited samples outside the method's mask."""
    return edited.outside.perceptual


@measure("dose_slope", unit="sd per unit of strength", higher_is_better=None)
def dose_slope(edited: Edited) -> Value:
    """Effect on the target per strength, of the line through all strengths."""
    return edited.dose and edited.dose.slope


@measure("dose_linearity", unit="share", higher_is_better=True)
def dose_linearity(edited: Edited) -> Value:
    """Share of the squared effects on the target that the line through all strengths explains."""
    return edited.dose and edited.dose.r2


@measure("dose_saturation", unit="share", higher_is_better=False)
def dose_saturation(edited: Edited) -> Value:
    """Share of the effect per strength that is lost between the smallest and the largest strength."""
    return edited.dose and edited.dose.saturation


@measure("breaks_at", unit="strength", higher_is_better=True)
def breaks_at(edited: Edited) -> Value:
    """Smallest strength at which the person passes for a stranger; empty where there is none."""
    return edited.dose and edited.dose.breaks_at


@measure("off_manifold", unit="Mahalanobis distance over sqrt(d)", higher_is_better=False, needs=("varying",))
def off_manifold_cost(edited: Edited) -> Value:
    """Increase of the distance of h from the model's own samples, mean over steps."""
    gaussian = _gaussian(edited.lab.recorded())
    costs = off_manifold(
        edited.lab.model, edited.directions, gaussian, edited.sweep.readings.seeds, component=edited.direction,
        strength=edited.strength, sampler=edited.lab.sampler,
    )  # fmt: skip
    return mean_interval(costs.mean(dim=1).numpy())


@measure("stability", unit="degrees", higher_is_better=False)
def stability(edited: Edited) -> Value:
    """Angle to the span of directions found on other samples; 90 at chance, empty if the method reads no samples."""
    if not edited.is_largest or isinstance(edited.directions, Operator):
        return None
    found = edited.lab.found_again()
    assert not isinstance(found, Operator), "the same method finds the same kind"
    own, again = edited.directions.directions, found.directions
    # A name may have turned a direction, and effects scaled it.
    first, second = (F.normalize(each.abs().flatten(1)) for each in (own, again))
    found_anew = not torch.allclose(first, second, atol=1e-6)
    return float(principal_angles(own[[edited.direction]], again)) if found_anew else None


@measure("kid", unit="kernel distance", higher_is_better=False, needs=("images", "halves"))
def kid(edited: Edited) -> Value:
    """Kernel distance of the edits from the images in dataset.path; without, from the other half, unedited."""
    return edited.distance.kid.mean


@measure("fid", unit="squared Fréchet distance", higher_is_better=False, needs=("images", "halves"))
def fid(edited: Edited) -> Value:
    """Fréchet distance of the edits from the images in dataset.path; without, from the other half, unedited."""
    return edited.distance.fid


MEASURES: Registry[Measure] = Registry(
    "measure",
    Measure,
    {
        found.name: f"{__name__}:{attribute}" for attribute, found in list(globals().items())
        if isinstance(found, Measure)
    },
)  # fmt: skip
"""All measures by name."""


def from_real(lab: Laboratory, images: Images) -> Distance:
    """Distance of samples or edits from the real images, of which the run has some."""
    assert lab.real is not None, "the run has real images"
    features = score(lab.features, images)
    size = min(SUBSET, len(features), len(lab.real))
    return distance(lab.real, features, lab.features, min_samples=2, subset_size=size)


def least_images(name: str, lab: Laboratory) -> int:
    """The smallest number of images, real ones and edits, that a measure compares.

    A covariance of fewer images than features is singular, and the Fréchet distance then says how few they are; the
    kernel distance takes one of its subsets.
    """
    return {"fid": lab.features.dim + 1, "kid": SUBSET}.get(name, 2)


@cache
def _gaussian(recorded: Recorded) -> HGaussian:
    """The same for all edits of a run."""
    return own_gaussian(recorded)
