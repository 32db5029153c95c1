"""Measures how far a direction or an operator can safely be moved, and strengths that look evenly spaced.

The annotator reads calibration seeds here, as in calibration. The judge reports on edits, on other seeds.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import as_seeds, check_disjoint
from hspace.diffusion.sampler import Sampler
from hspace.directions.operators import STRENGTHS, Found, Operator
from hspace.edits.changes import edit_found
from hspace.edits.sums import MAX_STRENGTH
from hspace.evaluation.calibration import spread_strength
from hspace.evaluation.ranges import POINTS, SliderRange
from hspace.evaluation.readings import score
from hspace.metrics.effect import EffectMatrix, effect_matrix
from hspace.metrics.identity import stranger_threshold
from hspace.types import Embedder, InputError, Scorer, Seeds

LEAST_SAMPLES = 10
"""Smallest number of samples; with fewer no effect has an interval."""
COARSE = 4
"""Side in pixels of the squares that images are averaged over before their gaps are taken: an eye sees shapes."""


@dataclass(frozen=True)
class Limits:
    """Limits on the cost of an edit.

    Attributes:
        others: Largest effect on any other attribute, in sd.
        identity: Smallest mean cosine of identity embeddings; None takes the cosine above which strangers are rare.
    """

    others: float = 1.0
    identity: float | None = None

    def __post_init__(self) -> None:
        """Raises InputError if a limit is not a finite number, or allows no effect at all."""
        if not 0 < self.others < math.inf:
            raise InputError(f"the limit of every other effect must be a number above 0, in sd, got {self.others:g}")
        if self.identity is not None and not -1 <= self.identity <= 1:
            raise InputError(f"the limit of identity must be a cosine in [-1, 1], got {self.identity:g}")


def slider_range(
    model: DiffusionModel,
    directions: Found,
    component: int,
    scorer: Scorer,
    identity: Embedder | None,
    *,
    seeds: Seeds,
    unit: Tensor | None = None,
    most: float | None = None,
    limits: Limits | None = None,
    sampler: Sampler = Sampler(),
) -> SliderRange:
    """Edits samples at 2 POINTS strengths beside 0, and finds where an edit begins to cost too much.

    Between two strengths effects, identity and the gap of images are taken to change linearly. The range ends where
    one of the limits is reached first, on either side of 0; an operator has one side.

    Args:
        model: The model that the direction belongs to.
        directions: Directions of h or of x_T, or an operator.
        component: Index of the direction; 0 for an operator.
        scorer: The annotator.
        identity: Identity encoder, or None.
        seeds: Calibration seeds, at least LEAST_SAMPLES, which do not overlap with those of the directions.
        unit: Standard deviation of each score, (attributes,), best from many samples; None takes the one over `seeds`.
        most: Largest strength that is tried; None takes an offset as long as the samples' spread, of an operator 1.
        limits: Limits on the cost; None takes the defaults.
        sampler: Settings of the sampling and of the edited steps.

    Raises:
        InputError: If the direction is zero, a number is out of range, or a seed was used in discovery.

    Source: ours; even gaps after "elastic band" spacing of sliders, by inverting the measured length of the path.
    """
    limits = limits or Limits()
    seeds = as_seeds(seeds)
    check_disjoint(discovery=directions.meta.seeds, calibration=seeds)
    check_tried(directions, len(seeds), most)
    name = directions.meta.names[component]
    if isinstance(directions, Operator):
        grid = np.linspace(0, most or STRENGTHS[1], 2 * POINTS + 1)
        name = directions.meta.settings.get("attribute", name)
    else:
        most = most or spread_strength(model, directions, component, seeds[:16], sampler)
        grid = np.linspace(-most, most, 2 * POINTS + 1)
    latents, strengths = model.latents(seeds), grid.tolist()
    images = edit_found(model, latents, directions, component=component, strengths=strengths, sampler=sampler)
    images = images.transpose(0, 1)
    matrix = _effects(scorer, images, grid, unit)
    cosine, floor = _identity(identity, images, grid, limits.identity)
    target = _target(matrix, name)
    high, high_because = _end(matrix, cosine, floor, limits.others, target, grid, side=1)
    low, low_because = _end(matrix, cosine, floor, limits.others, target, grid, side=-1)
    index = 0 if target is None else target
    effects = np.stack([matrix.effect[:, index], matrix.low[:, index], matrix.high[:, index]], axis=1)
    effects[_zero(grid)] = 0  # an edit of strength 0 is the image itself
    return SliderRange(
        attribute=None if target is None else matrix.attributes[target], low=low, high=high,
        low_because=low_because, high_because=high_because, strengths=_even(images, grid, low, high),
        tried=tuple(grid.tolist()), effect=tuple(_known(*row) for row in effects.tolist()),
        identity=tuple(cosine.tolist()), limits={"others": limits.others, "identity": floor},
        scorer=scorer.id, seeds=seeds,
        injection=sampler.injection, start=sampler.start, stop=sampler.stop,
        shown=tuple(matrix.n[:, index].tolist()), eta=sampler.eta,
    )  # fmt: skip


def check_tried(found: Found, samples: int, most: float | None) -> None:
    """Check that a range can be measured on so many samples up to a strength.

    Raises:
        InputError: If there are fewer than LEAST_SAMPLES, or the strength is not above 0, or too large.
    """
    operator = isinstance(found, Operator)
    if samples < LEAST_SAMPLES or (most is not None and not 0 < most <= (STRENGTHS[1] if operator else MAX_STRENGTH)):
        wanted = f"a largest strength above 0{f', at most {STRENGTHS[1]:g} of an operator' if operator else ''}"
        raise InputError(
            f"a range needs at least {LEAST_SAMPLES} samples and {wanted}, got {samples} samples and {most}"
        )


def _known(*effect: float) -> tuple[float | None, float | None, float | None]:
    """An effect and the ends of its interval, None for what is not known."""
    value, low, high = (each if math.isfinite(each) else None for each in effect)
    return value, low, high


def _zero(grid: np.ndarray) -> int:
    """Index of strength 0 among those that are tried."""
    return int(np.abs(grid).argmin())


def _effects(scorer: Scorer, images: Tensor, grid: np.ndarray, unit: Tensor | None) -> EffectMatrix:
    """Effects of every strength, (strengths, attributes)."""
    scores = torch.stack([score(scorer, batch) for batch in images])
    visible = torch.stack([scorer.visible(rows) for rows in scores])
    zero = _zero(grid)
    return effect_matrix(
        scores[zero], scores, attributes=scorer.attributes, binary=scorer.binary, edits=[f"{s:g}" for s in grid],
        visible=visible & visible[zero], unit=unit,
    )  # fmt: skip


def _identity(
    network: Embedder | None, images: Tensor, grid: np.ndarray, floor: float | None
) -> tuple[np.ndarray, float | None]:
    """Mean cosine at every strength, and the smallest that is allowed."""
    if network is None:
        return np.empty(0), floor
    people = torch.stack([score(network, batch) for batch in images])
    original = people[_zero(grid)]
    cosine = (people * original).sum(-1).mean(1).double().numpy()
    return cosine, stranger_threshold(original) if floor is None else floor


def _target(matrix: EffectMatrix, name: str) -> int | None:
    """The attribute that the direction is named after, or else the one whose effects at the two ends differ most.

    The first must be read at some strength besides 0: at the ends a hat may hide hair. In the second case only
    attributes count whose interval excludes 0 at one of the ends.
    """
    if name in matrix.attributes and np.isfinite(matrix.effect[:, matrix.attributes.index(name)]).sum() > 1:
        return matrix.attributes.index(name)
    sure = ((matrix.low > 0) | (matrix.high < 0))[[0, -1]].any(0)
    spread = np.where(sure, np.nan_to_num(np.abs(matrix.effect[-1] - matrix.effect[0])), 0)
    return int(spread.argmax()) if spread.max(initial=0) > 0 else None


def _end(
    matrix: EffectMatrix, cosine: np.ndarray, floor: float | None, others: float, target: int | None,
    grid: np.ndarray, side: int,
) -> tuple[float, str]:  # fmt: skip
    """The end of the range on one side of 0, and its reason."""
    zero = _zero(grid)
    index = np.arange(zero, len(grid)) if side > 0 else np.arange(zero, -1, -1)
    ends: list[tuple[float, str]] = [(float(abs(grid[index[-1]])), "untested")]
    for column, name in enumerate(matrix.attributes):
        if column != target:
            ends.append((_crossing(np.abs(grid[index]), np.abs(matrix.effect[index, column]), others), name))
    if len(cosine) and floor is not None:
        ends.append((_crossing(np.abs(grid[index]), 1 - cosine[index], 1 - floor), "identity"))
    size, because = min(ends, key=lambda end: end[0])
    return side * float(size) + 0.0, because  # without minus zero


def _crossing(sizes: np.ndarray, cost: np.ndarray, limit: float) -> float:
    """The size at which a cost, linear in between, first passes the limit; infinite where it does not."""
    for i in range(1, len(sizes)):
        if cost[i] > limit:
            start = cost[i - 1] if cost[i - 1] <= limit else limit
            share = (limit - start) / (cost[i] - start)
            return float(sizes[i - 1] + share * (sizes[i] - sizes[i - 1]))
    return math.inf


def _even(images: Tensor, grid: np.ndarray, low: float, high: float) -> tuple[float, ...]:
    """Strengths from low to high, through 0, whose images lie evenly apart on either side."""
    coarse = F.avg_pool2d(images.flatten(0, 1).float(), min(COARSE, images.shape[-1])).unflatten(0, images.shape[:2])
    gaps = (coarse[1:] - coarse[:-1]).square().flatten(2).mean(2).sqrt().mean(1).double().numpy()
    # A step without any change still has a length, so that the path can be inverted.
    path = np.concatenate([[0.0], np.cumsum(np.maximum(gaps, 1e-9))])
    ends = [float(np.interp(strength, grid, path)) for strength in (low, 0.0, high)]
    zero = _zero(grid)
    places = [np.linspace(ends[0], ends[1], zero + 1), np.linspace(ends[1], ends[2], len(grid) - zero)[1:]]
    strengths = np.interp(np.concatenate(places), path, grid)
    strengths[zero] = 0.0
    return tuple(float(strength) for strength in strengths)
