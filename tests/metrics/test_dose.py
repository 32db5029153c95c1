import math

import numpy as np
import pytest

from hspace.metrics.dose import dose_response
from hspace.types import InputError


def test_a_line_is_linear_and_does_not_saturate() -> None:
    strengths = [-2.0, -1.0, 0.5, 3.0]
    found = dose_response(strengths, [0.7 * s for s in strengths], [1 - 0.1 * abs(s) for s in strengths], threshold=0.5)
    assert found.slope == pytest.approx(0.7) and found.r2 == pytest.approx(1)
    assert found.saturation == pytest.approx(0) and found.breaks_at is None


def test_a_saturating_effect_says_how_far() -> None:
    strengths = [0.1, 1.0, 4.0, -0.1, -4.0]
    effects = [math.tanh(s) for s in strengths]
    found = dose_response(strengths, effects, [0.9] * 5, threshold=0.5)
    assert found.saturation == pytest.approx(1 - (math.tanh(4) / 4) / (math.tanh(0.1) / 0.1))
    slope = np.dot(strengths, effects) / np.dot(strengths, strengths)
    left = sum((e - slope * s) ** 2 for s, e in zip(strengths, effects, strict=True))
    assert found.r2 == pytest.approx(1 - left / sum(e**2 for e in effects))
    turned = dose_response([1.0, 2.0], [1.0, -0.5], [0.9, 0.9], threshold=0.5)
    assert turned.saturation == pytest.approx(1.25)


def test_identity_breaks_where_the_line_between_strengths_meets_the_threshold() -> None:
    found = dose_response([1.0, 2.0, -2.0], [1.0, 2.0, -2.0], [0.8, 0.4, 0.0], threshold=0.6)
    # 1 to .8 to .4 on one side: .6 at 1.5; from 1 to 0 over two on the other: .6 at .8.
    assert found.breaks_at == pytest.approx(0.8)
    assert dose_response([1.0, 2.0], [1.0, 2.0], [0.8, 0.4], threshold=0.6).breaks_at == pytest.approx(1.5)


def test_what_does_not_move_has_no_linearity() -> None:
    found = dose_response([1.0, 2.0], [0.0, 0.0], [1.0, 1.0], threshold=0.5)
    assert found.slope == 0 and math.isnan(found.r2) and math.isnan(found.saturation)
    assert math.isnan(dose_response([1.0, -1.0], [1.0, -1.0], [1.0, 1.0], threshold=0.5).saturation)


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="lists of one length, got 2, 1 and 2"):
        dose_response([1.0, 2.0], [1.0], [1.0, 1.0], threshold=0.5)
    with pytest.raises(InputError, match=r"must differ and not be 0, got \[0.0, 2.0\]"):
        dose_response([0.0, 2.0], [1.0, 1.0], [1.0, 1.0], threshold=0.5)
