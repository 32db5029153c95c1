# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Strengths that reach the same effect, so that directions of unrelated norms are compared at equal effect.

The annotator reads calibration seeds here. The judge says, on other seeds, what else an edit of that strength does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import as_seeds, check_disjoint
from hspace.diffusion.recording import trajectories
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import ALIKE
from hspace.directions.operators import STRENGTHS, Found, Operator
from hspace.directions.record import Directions
from hspace.edits.changes import edit_found
from hspace.edits.sums import edit_offsets
from hspace.evaluation.readings import score
from hspace.metrics.effect import score_unit
from hspace.metrics.interval import Interval, flip_means, means
from hspace.types import InputError, Scorer, Seeds

FIRST = 0.5
"""Norm of the first offset that is tried, in spreads of the samples; also the first strength of an operator."""
MAX_REFINEMENTS = 8
"""Strengths that are tried once the target is bracketed; half as many are mostly enough."""
MAX_CORRECTIONS = 4
"""Number of strengths that are tried on each number of samples, after the search on a few samples."""
SPREAD_SAMPLES = 16
"""Number of samples that give the spread, which only says where the search begins and ends."""
TRIAL_SAMPLES = 48
"""Number of samples of the search, whose result is corrected on more."""
LEAST_SAMPLES, MORE = 200, 5
"""Samples that a strength is settled on at least, and how many times as many where the standard error is too large."""
TOLERANCE = 0.05
"""How near to the target is near enough, in fractions of it."""
PRECISION = 0.1
"""Largest standard error of the effect, in fractions of the target, at which no more samples are read."""


@dataclass(frozen=True)
class Calibration:
    """The strength of one direction, or operator, that reaches a target effect, as JSON values.

    Attributes:
        attribute: Attribute to move.
        target: Wanted effect, signed, in standard deviations of the unedited scores.
        strength: Strength of the edit, in the direction's unit; negative where the direction moves the attribute the
            other way.
        effect: Effect at `strength`, in the unit of `target`.
        low: Lower limit of its 95% interval; None where fewer than ten samples show the attribute, or all change alike.
        high: Upper limit of the interval.
        n: Number of samples that show the attribute before and after.
        reached: Whether `effect` is the target to within the tolerance. If not, `strength` is the one whose effect
            comes nearest: beyond it the edit does not move the attribute further, or only within the tolerance.
        tried: Strengths that were tried and their effects, over the samples that were read at each.
        scorer: Id of the scorer that read the edits.
        seeds: Seeds of the samples.
        injection: Terms of the step that the edits entered, see `Sampler`; None in records that do not tell.
        start: First step that was edited.
        stop: First step that was not edited any more; None is the end.
    """

    attribute: str
    target: float
    strength: float
    effect: float
    low: float | None
    high: float | None
    n: int
    reached: bool
    tried: tuple[tuple[float, float], ...]
    scorer: str
    seeds: tuple[int, ...]
    injection: str | None = None
    start: int = 0
    stop: int | None = None

    @property
    def interval(self) -> Interval:
        """The effect with its interval."""
        low, high = (math.nan if limit is None else limit for limit in (self.low, self.high))
        return Interval(self.effect, low, high, self.n)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Calibration":
        """Inverse of `dataclasses.asdict`, also after JSON."""
        tried = tuple((float(strength), float(effect)) for strength, effect in record["tried"])
        values: dict[str, Any] = record | {"tried": tried, "seeds": tuple(record["seeds"])}
        return cls(**values)


def calibrate(
    model: DiffusionModel,
    directions: Found,
    component: int,
    attribute: str,
    scorer: Scorer,
    *,
    target: float,
    seeds: Seeds,
    unit: Tensor | None = None,
    sampler: Sampler = Sampler(),
    least: int = LEAST_SAMPLES,
    most: float = 2.0,
) -> Calibration:
    """Finds the smallest strength, of either sign, at which a direction moves an attribute by a given effect.

    That of an operator is sought in [0, 1].

    On a few samples the strength is doubled until the target is passed, then narrowed by regula falsi, with some five
    to eight edits of each sample. The result is corrected on `least` samples, and on twice as many each time while the
    standard error of the effect is above a tenth of the target. The search begins where the offset is half as long as
    the samples' spread (the root of the total variance of h over the edited steps, or of x_T), so that it is the same
    for any unit of strength.

    Args:
        model: The model that the directions belong to.
        directions: Directions of h or of x_T, or an operator.
        component: Index of the direction; 0 for an operator.
        attribute: Attribute to move.
        scorer: Annotator; it must not be the judge that reports on the edits.
        target: Signed effect, in standard deviations of the unedited scores; not 0.
        seeds: Calibration seeds, at least two, which do not overlap with those that the directions were found on; the
            standard error decides how many are read.
        unit: Standard deviation of each score, (attributes,), best from many samples; None takes the one over the first
            `least` of `seeds`.
        sampler: Settings of the sampling and of the edited steps.
        least: Smallest number of samples that the effect is read on, if there are so many seeds.
        most: Norm of the largest offset that is tried, in spreads; of an operator the largest strength is 1.

    Raises:
        InputError: If the direction is zero, the attribute is unknown, constant or nowhere visible, an argument is out
            of range, or a seed was used in discovery.
    """
    seeds = as_seeds(seeds)
    check_disjoint(discovery=directions.meta.seeds, calibration=seeds)
    column = _column(scorer, attribute)
    if not (math.isfinite(target) and target != 0 and most >= FIRST and len(seeds) > 1 and least > 1):
        raise InputError(
            f"a calibration needs a target other than 0, most of at least {FIRST} and two seeds, "
            f"got {target}, {most} and {min(len(seeds), least)}"
        )
    least = min(least, len(seeds))

    def read_edits(strength: float, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        latents = model.latents(seeds)
        images = edit_found(model, latents, directions, component=component, strengths=[strength], sampler=sampler)
        scores = score(scorer, images[:, 0])
        return scores[:, column].double(), scorer.visible(scores)[:, column]

    readings = _Readings(read_edits, seeds, scorer.binary[column])
    before, shown = readings.at(0.0, least)
    readings.sd = float(score_unit(before[:, None], shown[:, None]) if unit is None else unit[column])
    if not readings.sd > 0:
        raise InputError(f"attribute {attribute} does not vary over the unedited samples, so that effects have no unit")
    few = min(TRIAL_SAMPLES, least)
    if isinstance(directions, Operator):
        first, largest, sides = FIRST, STRENGTHS[1], (1,)
    else:
        scale = spread_strength(model, directions, component, seeds[:SPREAD_SAMPLES], sampler)
        first, largest, sides = FIRST * scale, most * scale, (1, -1)
    strength, near, tried = search(
        lambda strength: readings.effect(strength, few).value, target, first=first, most=largest, tolerance=TOLERANCE,
        sides=sides,
    )  # fmt: skip
    strength, cell, corrected = _settled(readings, strength, target, least, near, largest)
    low, high = (None if math.isnan(limit) else limit for limit in cell[1:3])
    return Calibration(
        attribute, float(target), strength, cell.value, low, high, cell.n,
        abs(1 - cell.value / target) <= TOLERANCE, tuple((dict(tried) | corrected).items()), scorer.id,
        tuple(seeds[: len(readings.at(strength, 0)[0])]), sampler.injection, sampler.start, sampler.stop,
    )  # fmt: skip


@dataclass
class _Readings:
    """Scores of one attribute by strength, of as many samples as were asked for; no edit is made twice.

    Attributes:
        read: Function that gives the scores (n,) of samples edited at a strength, and their visibility.
        seeds: Seeds of all available samples.
        binary: Whether scores are probabilities.
        sd: Unit of effects.
        kept: Scores and visibility that were read, by strength.
    """

    read: Callable[[float, Sequence[int]], tuple[Tensor, Tensor]]
    seeds: Sequence[int]
    binary: bool
    sd: float = math.nan
    kept: dict[float, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def at(self, strength: float, n: int) -> tuple[Tensor, Tensor]:
        """Scores and visibility of the first n samples, or of all that were read if these are more."""
        parts = [self.kept[strength]] if strength in self.kept else []
        missing = self.seeds[sum(len(scores) for scores, _ in parts) : n]
        if missing:
            parts.append(self.read(strength, missing))
            scores, visible = zip(*parts, strict=True)
            self.kept[strength] = torch.cat(scores), torch.cat(visible)
        return self.kept[strength]

    def effect(self, strength: float, n: int) -> Interval:
        """Mean change over the first n samples, in `sd`; its limits are nan where they are unknown."""
        (before, shown), (after, visible) = ((a[:n] for a in self.at(s, n)) for s in (0.0, strength))
        counted, change = (shown & visible)[:, None].numpy(), (after - before)[:, None].numpy()
        if not counted.any():
            return Interval(math.nan, math.nan, math.nan, 0)
        found = (flip_means if self.binary else means)(change, counted)
        value, low, high = (float(each) / self.sd for each in (change[counted].mean(), found.low[0], found.high[0]))
        return Interval(value, low, high, int(found.n[0]))


def _settled(
    readings: _Readings, strength: float, target: float, n: int, near: bool, most: float
) -> tuple[float, Interval, dict[float, float]]:
    """The strength corrected on n samples and more, its effect, and the effects of all strengths tried here.

    If the search did not find an effect near the target, the strength is read but not corrected, and on no more samples
    once its interval excludes the target.
    """
    margin = TOLERANCE * abs(target)
    while True:
        tried = _corrected(readings, strength, target, n, most) if near else {strength: readings.effect(strength, n)}
        strength = min(tried, key=lambda s: abs(1 - tried[s].value / target))
        cell = tried[strength]
        # Half an interval is two standard errors; more samples would not give an interval that is unknown.
        sure = not (cell.high - cell.low) / 4 > PRECISION * abs(target)
        missed = not near and (cell.high < target - margin or cell.low > target + margin)
        if n >= len(readings.seeds) or sure or missed:
            return strength, cell, {s: each.value for s, each in tried.items()}
        n = min(2 * n, len(readings.seeds))


def _corrected(readings: _Readings, strength: float, target: float, n: int, most: float) -> dict[float, Interval]:
    """Effects over n samples of strengths that come nearer to the target, as if the effect were a power of strength."""
    tried: dict[float, Interval] = {}
    power, previous = 1.0, None
    for _ in range(MAX_CORRECTIONS):
        tried[strength] = readings.effect(strength, n)
        ratio = tried[strength].value / target
        if not ratio > 0 or abs(1 - ratio) <= TOLERANCE:
            break
        if previous is not None and abs(math.log(strength / previous[0])) > 1e-6:
            slope = math.log(ratio / previous[1]) / math.log(strength / previous[0])
            power = min(max(slope, 0.5), 4.0)
        previous = strength, ratio
        strength = math.copysign(min(abs(strength) * ratio ** (-1 / power), most), strength)
    return {s: each for s, each in tried.items() if math.isfinite(each.value)} or tried


def search(
    effect: Callable[[float], float],
    target: float,
    *,
    first: float,
    most: float,
    tolerance: float,
    sides: Sequence[int] = (1, -1),
) -> tuple[float, bool, tuple[tuple[float, float], ...]]:
    """The strength of least size whose effect is the target, for an effect that rises from 0 at strength 0.

    Args:
        effect: Function that gives the effect of a strength; nan where nothing can be read.
        target: Wanted effect, not 0.
        first: Size of the strength to begin with, > 0; the side that moves towards the target is kept.
        most: Largest size of a strength.
        tolerance: Tolerance in fractions of the target.
        sides: Signs that a strength may have.

    Returns:
        The strength whose effect comes nearest to the target, or the smallest that does so to within `tolerance`;
        whether it is near enough; and all strengths tried with their effects.

    Raises:
        InputError: If nothing can be read off any first edit.

    Examples:
        >>> strength, reached, tried = search(lambda s: 0.4 * s, 1.0, first=0.5, most=16.0, tolerance=0.05)
        >>> round(strength, 2), reached, len(tried)
        (2.5, True, 6)
    """
    tried: dict[float, float] = {}

    def short_of(strength: float) -> float:
        """The rest to the target, in fractions of it; nan is not kept, since JSON has none."""
        value = effect(strength)
        if not math.isnan(value):
            tried[strength] = value
        return 1 - value / target

    missing = {side * first: short_of(side * first) for side in sides}
    if not tried:
        at = " and ".join(f"{strength:g}" for strength in missing)
        raise InputError(f"the attribute is visible in no edit at strength {at}")
    high = min(tried, key=missing.__getitem__)
    low, short_low, short_high = 0.0, 1.0, missing[high]
    while short_high > tolerance and 2 * abs(high) <= most:
        low, short_low = high, short_high
        high *= 2
        short_high = short_of(high)
    for _ in range(MAX_REFINEMENTS if short_high < -tolerance else 0):
        # Regula falsi stays off the ends, so that a curved effect cannot pin one of them.
        share = min(max(short_low / (short_low - short_high), 0.1), 0.9)
        middle = low + share * (high - low)
        short = short_of(middle)
        if math.isnan(short) or abs(short) <= tolerance:
            break
        if short > 0:
            low, short_low = middle, short
        else:
            high, short_high = middle, short
    miss = {strength: abs(1 - value / target) for strength, value in tried.items()}
    least = min(miss.values())
    reached = least <= tolerance
    # A saturated effect is as large at strengths that break the image: of nearly equal ones the smallest is taken.
    slack = 0.0 if reached else tolerance * max(1 - least, 0)
    return min((s for s in miss if miss[s] <= least + slack), key=abs), reached, tuple(tried.items())


def _column(scorer: Scorer, attribute: str) -> int:
    if attribute not in scorer.attributes:
        raise InputError(f"unknown attribute {attribute!r}, {scorer.id} scores {', '.join(scorer.attributes)}")
    return scorer.attributes.index(attribute)


def spread_strength(
    model: DiffusionModel,
    directions: Directions,
    component: int,
    seeds: Sequence[int],
    sampler: Sampler,
) -> float:
    """The strength at which the offset is as long as the samples' spread, both over the edited steps.

    Raises:
        InputError: If the direction is zero over the edited steps.
    """
    weights = torch.eye(len(directions.directions))[component : component + 1]
    norm = float(edit_offsets(directions, weights, len(model.process.timesteps), sampler.start, sampler.stop).norm())
    if norm == 0:
        raise InputError(f"direction {directions.meta.names[component]!r} is zero over the edited steps")
    if directions.meta.space == "x_T":
        return math.prod(model.sample_shape) ** 0.5 / norm
    return h_spread(model, seeds, sampler) / norm


def h_spread(model: DiffusionModel, seeds: Sequence[int], sampler: Sampler) -> float:
    """Root of the total variance of h over the edited steps, of the samples of some seeds, two at least.

    Where h is the same for every sample, as at a tap of the modulation, it is the length of h instead.
    """
    h = trajectories(model, model.latents(seeds), sampler)[:, sampler.start : sampler.stop].double()
    spread, length = h.var(dim=0).sum().sqrt(), h[0].norm()
    return float(spread if spread > ALIKE * length else length)
