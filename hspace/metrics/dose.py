"""Dose and response: the growth of an edit's effect with its strength, and the strength at which identity breaks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hspace.types import InputError


@dataclass(frozen=True)
class DoseResponse:
    """The relation of the effect on the target to the strength.

    Attributes:
        slope: Effect per unit of strength of the least-squares line through (0, 0), in sd per strength unit.
        r2: 1 - sum (effect - slope strength)² / sum effect², in [0, 1]: the share of the squared effects that the line
            through (0, 0) explains; 1 is linear, nan where nothing moves.
        saturation: 1 - (effect per strength at the largest strength) / (the same at the smallest): 0 for a line,
            towards 1 where more strength has no further effect, above 1 where the effect turns round, negative where it
            accelerates; the mean of both sides where there are strengths of both signs, nan with one strength a side.
        breaks_at: Smallest size of a strength at which the mean cosine falls under the threshold, interpolated linearly
            from 1 at strength 0; None where it never does.
    """

    slope: float
    r2: float
    saturation: float
    breaks_at: float | None


def dose_response(
    strengths: Sequence[float], effects: Sequence[float], identity: Sequence[float], *, threshold: float
) -> DoseResponse:
    """Describes the effects of one direction on its target over strengths; the effect at strength 0 is 0 by definition.

    Args:
        strengths: S different strengths, without 0.
        effects: Mean effect on the target at each, (S,), in sd of the unedited samples.
        identity: Mean cosine of the identity embeddings to the unedited sample at each, (S,).
        threshold: Cosine under which the person counts as another, such as `stranger_threshold` of the unedited
            samples.

    Raises:
        InputError: If the lengths differ, a strength is 0 or given twice, or a value is not finite.

    Examples:
        >>> found = dose_response([-2, -1, 1, 2], [-1.0, -0.5, 0.5, 1.0], [0.8, 0.9, 0.9, 0.6], threshold=0.75)
        >>> found.slope, found.r2, found.saturation, found.breaks_at
        (0.5, 1.0, 0.0, 1.5)
    """
    s, e, cosine = (np.asarray(values, dtype=np.float64) for values in (strengths, effects, identity))
    if not (s.shape == e.shape == cosine.shape and len(s) > 0 and np.isfinite(s + e + cosine).all()):
        raise InputError(f"a dose-response needs finite lists of one length, got {len(s)}, {len(e)} and {len(cosine)}")
    if 0 in s or len(set(s)) < len(s):
        raise InputError(f"strengths of a dose-response must differ and not be 0, got {list(strengths)}")
    slope = float(s @ e / (s @ s))
    with np.errstate(invalid="ignore"):
        r2 = float(1 - np.square(e - slope * s).sum() / np.square(e).sum())
    sides = [sign * s > 0 for sign in (1, -1)]
    saturation = [_saturation(np.abs(s[side]), e[side]) for side in sides if side.sum() > 1]
    breaks = [_crossing(np.abs(s[side]), cosine[side], threshold) for side in sides if side.any()]
    found = [size for size in breaks if size is not None]
    return DoseResponse(slope, r2, float(np.mean(saturation)) if saturation else np.nan, min(found, default=None))


def _saturation(size: np.ndarray, effect: np.ndarray) -> float:
    least, most = size.argmin(), size.argmax()
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(1 - (effect[most] / size[most]) / (effect[least] / size[least]))


def _crossing(size: np.ndarray, cosine: np.ndarray, threshold: float) -> float | None:
    """Where the cosine first falls under the threshold on one side."""
    order = size.argsort()
    size, cosine = np.append(0.0, size[order]), np.append(1.0, cosine[order])
    under = np.flatnonzero(cosine < threshold)
    if not len(under) or under[0] == 0:
        return None
    after = under[0]
    share = (cosine[after - 1] - threshold) / (cosine[after - 1] - cosine[after])
    return float(size[after - 1] + share * (size[after] - size[after - 1]))
