"""Reads a portrait by painting it: the factors whose render comes nearest to the image.

No network was trained for it, so that this reading errs otherwise than annotator and judge do. It starts from their
scores, or from random factors alone.

Source: analysis by synthesis, as reviewed by Yuille & Kersten 2006 (Trends in Cognitive Sciences 10 (7)); the order of
the search is ours, least squares are those of Branch, Coleman & Li 1999, by scipy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import least_squares
from torch import Tensor

from hspace.types import Images, Scores
from hspace.worlds.attributes import Factors
from hspace.worlds.layers import picture
from hspace.worlds.portraits.backdrop import background_hue
from hspace.worlds.portraits.faces import ATTRIBUTES, JUDGED, sample_factors
from hspace.worlds.portraits.hair import CUTS
from hspace.worlds.portraits.layers import layers

Values = dict[str, float]
"""The factors of one portrait."""

BY_ID = {attribute.id: attribute for attribute in ATTRIBUTES}
CYCLIC = ("background", "backdrop", "scatter")
"""Turns, which have no ends."""
BINARY = tuple(attribute.id for attribute in ATTRIBUTES if attribute.kind == "binary")
SMOOTH = tuple(name for name in BY_ID if name != "hair_cut")
"""Factors on which the image depends without jumps; a binary one fades in."""
UNJUDGED = tuple(attribute.id for attribute in ATTRIBUTES if not attribute.judged and attribute.id != "background")
"""What no score says and no corner of the image shows."""
SMALL = ("mouth", "smile", "eyes", "brow", "nose", "age", "eye_spacing", "hair_cut")
"""Factors that change few pixels or jump, which descent does not find from afar."""
COARSE, FINE, CHUNK = 16, 32, 32
"""Sizes of the renders that are compared, in pixels, and how many are painted at a time."""
POINTS = 5
"""Values of a continuous factor that a search along it tries."""
SHIFT = 0.03
"""Of a factor, for the slope of the render: moves an edge by less than a pixel."""
OUTLIER = 0.2
"""Error of a pixel, in units of [-1, 1], from which it counts by its size instead of its square."""
BANK, BANK_SEED, NEAREST = 2048, 96, 3
"""Random portraits among which starts are looked for, and how many of them are tried."""
FACE = (slice(2, 15), slice(3, 13))
"""Rows and columns of the coarse image by which they are chosen: the head, without most of the background."""


@dataclass(frozen=True)
class Fit:
    """What portraits were painted with, as far as it can be told from the images.

    Attributes:
        factors: Each (n,); binary ones are 0 or 1.
        error: Root mean square error of the render's pixels at 32 x 32, (n,), in units of [-1, 1].
    """

    factors: Factors
    error: Tensor

    def scores(self) -> Scores:
        """Values of the judged attributes, (n, judged attributes), in the order of scores."""
        return torch.stack([self.factors[attribute.id] for attribute in JUDGED], dim=1)


def fit(images: Images, starts: Sequence[Factors]) -> Fit:
    """The best of the fits from several starts, for each image.

    Args:
        images: (n, 3, size, size) in [-1, 1]; size is a multiple of 32.
        starts: One or more, each of n portraits.
    """
    targets = _Target.all_of(images, FINE)
    fits = [[_finely(target, _row(start, i)) for start in starts] for i, target in enumerate(targets)]
    return _together(targets, [min(each, key=target.error) for target, each in zip(targets, fits, strict=True)])


def scored_start(images: Images, scores: Scores) -> Factors:
    """The start at a scorer's scores, (n, judged attributes); what no score says is in the middle of its range."""
    middle: Factors = {name: torch.full((len(images),), (each.low + each.high) / 2) for name, each in BY_ID.items()}
    read = {each.id: scores[:, j].clamp(each.low, each.high) for j, each in enumerate(JUDGED)}
    return middle | read | {"background": background_hue(images)}


def random_start(images: Images) -> Factors:
    """The start that no scorer has a part in: random portraits near the image, fitted to it coarsely, the best of them.

    Args:
        images: As of `fit`.
    """
    bank, renders = _bank()
    faces, hues = F.adaptive_avg_pool2d(images, COARSE), background_hue(images)
    near = torch.cdist(_face(faces), _face(renders)).topk(NEAREST, largest=False).indices
    found = []
    for target, rows, hue in zip(_Target.all_of(images, COARSE), near.tolist(), hues.tolist(), strict=True):
        fits = [_coarsely(target, _row(bank, row) | {"background": hue}) for row in rows]
        found.append(min(fits, key=target.error))
    return _stacked(found)


@lru_cache(maxsize=1)
def _bank() -> tuple[Factors, Tensor]:
    """Random portraits and their renders at the coarse size."""
    factors = sample_factors(torch.Generator().manual_seed(BANK_SEED), BANK, correlated=False)
    return factors, picture(factors, COARSE, layers, chunk=CHUNK)


def _face(coarse: Tensor) -> Tensor:
    return coarse[(..., *FACE)].flatten(1)


def _coarsely(target: "_Target", values: Values) -> Values:
    """Nuisances first, which cover the most pixels, then all."""
    return target.descended(target.searched(values, UNJUDGED), SMOOTH, steps=6)


def _finely(target: "_Target", values: Values) -> Values:
    """All factors, those of small features by search, then binary ones at 0 or 1 and the others anew."""
    values = _coarsely(target, values)
    rounded = values | {name: float(values[name] > 0.5) for name in BINARY}
    values = target.searched(rounded, (*SMALL, *BINARY))
    return target.descended(values, tuple(name for name in SMOOTH if name not in BINARY), steps=8)


@dataclass(frozen=True)
class _Target:
    """One image, (3, size, size), to which renders are compared."""

    image: Tensor

    @classmethod
    def all_of(cls, images: Images, size: int) -> list["_Target"]:
        return [cls(image) for image in F.adaptive_avg_pool2d(images.float().cpu(), size)]

    def residuals(self, candidates: Iterable[Values]) -> np.ndarray:
        """Render minus image of some portraits, (n, pixels)."""
        renders = picture(_stacked(candidates), self.image.shape[-1], layers, chunk=CHUNK)
        return (renders - self.image).flatten(1).double().numpy()

    def errors(self, candidates: Iterable[Values]) -> np.ndarray:
        """Mean error of the pixels of some portraits, squared where it is small, as `least_squares` counts it."""
        return 2 * OUTLIER**2 * (np.sqrt(1 + (self.residuals(candidates) / OUTLIER) ** 2) - 1).mean(1)

    def error(self, values: Values) -> float:
        """That of one."""
        return float(self.errors([values])[0])

    def searched(self, values: Values, names: Iterable[str]) -> Values:
        """The best of a few values of one factor after the other."""
        for name in names:
            candidates = [values, *(values | {name: value} for value in _tried(name))]
            values = candidates[int(self.errors(candidates).argmin())]
        return values

    def descended(self, values: Values, names: tuple[str, ...], steps: int) -> Values:
        """Least squares over some factors, by differences of renders: masks and colours of a painting have corners."""
        low, high = (np.array([_limit(name, end) for name in names]) for end in (0, 1))

        def at(x: np.ndarray) -> Values:
            return values | dict(zip(names, x.tolist(), strict=True))

        def slopes(x: np.ndarray) -> np.ndarray:
            shift = np.where(x + SHIFT <= high, SHIFT, -SHIFT)
            here, *shifted = self.residuals([at(x), *(at(row) for row in x + np.diag(shift))])
            return ((np.stack(shifted) - here) / shift[:, None]).T

        first = np.clip([values[name] for name in names], low + 1e-3, high - 1e-3)
        given: dict[str, Any] = {"jac": slopes, "loss": "soft_l1", "f_scale": OUTLIER, "max_nfev": steps}
        found = least_squares(lambda x: self.residuals([at(x)])[0], first, bounds=(low, high), **given)
        return at(found.x)


def _limit(name: str, end: int) -> float:
    attribute = BY_ID[name]
    return (-np.inf, np.inf)[end] if name in CYCLIC else (attribute.low, attribute.high)[end]


def _tried(name: str) -> list[float]:
    """Values along a factor."""
    attribute, points = BY_ID[name], len(CUTS) if name == "hair_cut" else POINTS
    if attribute.kind == "binary":
        return [0.0, 1.0]
    return [attribute.low + (attribute.high - attribute.low) * (i + 0.5) / points for i in range(points)]


def _row(factors: Factors, i: int) -> Values:
    return {name: float(value[i]) for name, value in factors.items()}


def _stacked(portraits: Iterable[Values]) -> Factors:
    rows = list(portraits)
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float32) for name in BY_ID}


def _together(targets: Sequence[_Target], portraits: Sequence[Values]) -> Fit:
    factors = _stacked(portraits)
    errors = [np.sqrt((target.residuals([row]) ** 2).mean()) for target, row in zip(targets, portraits, strict=True)]
    turned = {name: factors[name] % 1 for name in CYCLIC}
    return Fit(factors | turned, torch.tensor(errors, dtype=torch.float32))
