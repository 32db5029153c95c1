"""Safe ranges and even spacing, on a scorer and images whose answers are known in closed form."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vectors import directions_of, operator_of

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.directions.hub import card
from hspace.directions.operators import Operator
from hspace.directions.record import Directions
from hspace.edits.changes import edit_found, operate
from hspace.evaluation.ranges import SliderRange, facts_about, range_of, with_ranges, without_range
from hspace.evaluation.safe_ranges import Limits, _crossing, _end, _even, _target, slider_range
from hspace.experiments.edit import safe
from hspace.metrics.effect import EffectMatrix
from hspace.types import InputError

GRID = np.linspace(-4, 4, 9)


def matrix(*columns: np.ndarray) -> EffectMatrix:
    effect = np.stack(columns, axis=1)
    names = ("smile", "age", "yaw")[: len(columns)]
    numbers = {"p": np.zeros_like(effect), "n": np.full(effect.shape, 16), "covariance": np.zeros((*effect.shape, 3))}
    return EffectMatrix(names, tuple(f"{s:g}" for s in GRID), effect, effect - 0.1, effect + 0.1, **numbers)


def test_a_crossing_is_where_the_line_meets_the_limit():
    assert _crossing(np.array([0.0, 1, 2, 3]), np.array([0.0, 0.5, 1.5, 9]), 1.0) == 1.5
    assert _crossing(np.array([0.0, 1, 2]), np.array([0.0, 0.5, 1.0]), 1.0) == math.inf


def test_the_range_ends_at_the_first_limit_on_each_side():
    effects = matrix(GRID, 0.4 * np.maximum(GRID, 0), 0.2 * np.minimum(GRID, 0))
    cosine = 1 - 0.15 * np.abs(GRID)
    ends = [_end(effects, cosine, 0.4, 1.0, 0, GRID, side) for side in (1, -1)]
    assert ends[0] == (pytest.approx(2.5), "age") and ends[1] == (pytest.approx(-4.0), "untested")
    assert _end(effects, cosine, 0.7, 1.0, 0, GRID, 1) == (pytest.approx(2.0), "identity")
    assert _end(effects, np.empty(0), None, 1.0, None, GRID, -1) == (pytest.approx(-1.0), "smile")


def test_the_target_is_the_name_or_what_moves_most_and_surely():
    effects = matrix(0.3 * GRID, 0.01 * GRID, -GRID)
    assert (_target(effects, "age"), _target(effects, "component 1")) == (1, 2)
    assert _target(matrix(0.01 * GRID), "component 1") is None
    hidden = np.where(np.abs(GRID) > 2, np.nan, 0.3 * GRID)
    assert _target(matrix(hidden, 2 * GRID), "smile") == 0, "its own attribute, though it is hidden at the ends"


def test_even_strengths_have_even_gaps():
    # Brightness grows as the square on the right: the gaps of equal strengths grow too.
    level = np.where(GRID > 0, GRID**2, GRID / 2) / 32
    images = torch.tensor(level, dtype=torch.float32).reshape(9, 1, 1, 1, 1).expand(9, 2, 3, 8, 8)
    strengths = _even(images, GRID, -4.0, 4.0)
    assert strengths[0] == -4 and strengths[4] == 0 and strengths[8] == pytest.approx(4)
    assert np.diff(strengths[:5]) == pytest.approx(np.ones(4), abs=1e-6)
    assert np.diff(np.interp(strengths[4:], GRID, level)) == pytest.approx(np.full(4, 4 / 32), rel=1e-5)


class Brightness:
    """Scores the mean of each image: one attribute that is always there."""

    id, attributes, binary = "brightness", ("smile",), (False,)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(1, 2, 3))[:, None]

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


def test_a_range_is_measured_kept_and_read_back(tiny_model):
    directions = directions_of(tiny_model)
    seeds = tuple(range(1_000_000, 1_000_010))
    found = slider_range(tiny_model, directions, 1, Brightness(), None, seeds=seeds, most=2.0, limits=Limits(0.5))
    assert found.tried == tuple(np.linspace(-2, 2, 9)) and found.effect[4] == (0, 0, 0)
    assert found.seeds == seeds and -2 <= found.low <= 0 <= found.high <= 2
    kept = with_ranges(directions, {1: found})
    assert range_of(kept, 1) == found and range_of(kept, 0) is None and kept.range is None
    both = with_ranges(kept, {0: found})
    assert both.range is not None
    assert both.range.tolist() == [pytest.approx([found.low, found.high])] * 2


class Shy(Brightness):
    """Brightness that is not seen where it is above a level."""

    def __init__(self, level: float) -> None:
        self.level = level

    def visible(self, scores: Tensor) -> Tensor:
        return scores < self.level


def test_an_effect_that_too_few_samples_show_is_not_known(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    directions = directions_of(tiny_model, ("age", "smile"))
    seeds = tuple(range(1_000_000, 1_000_012))
    sure = slider_range(tiny_model, directions, 1, Brightness(), None, seeds=seeds, most=40.0)
    images = edit_found(tiny_model, tiny_model.latents(seeds), directions, component=1, strengths=sure.tried)
    brightness = Brightness()(images.flatten(0, 1)).unflatten(0, images.shape[:2])[:, :, 0].T
    level = float(brightness[4].max()) + 1e-6
    found = slider_range(tiny_model, directions, 1, Shy(level), None, seeds=seeds, most=40.0)
    shown = [int((each < level).sum()) for each in brightness]
    assert list(found.shown) == shown and shown[4] == 12 and min(shown) < 10
    for count, effect, all_of_them in zip(shown, found.effect, sure.effect, strict=True):
        assert effect == (None, None, None) if count < 10 else count < 12 or effect == all_of_them
    kept = with_ranges(directions, {1: found})
    kept.save(tmp_path / "shy.safetensors")
    assert range_of(Directions.load(tmp_path / "shy.safetensors"), 1) == found
    assert found.scaled(-1).shown == found.shown[::-1]
    known = max((s for s, n in zip(found.tried, shown, strict=True) if n >= 10), key=lambda s: (abs(s), s))
    assert f", n = {shown[found.tried.index(known)]}) at {known:.3g}; " in card(kept, "me/x"), "of the strongest known"


def test_what_is_no_range_is_refused(tiny_model):
    directions = directions_of(tiny_model)
    seeds = tuple(range(1_000_000, 1_000_010))
    wrong: list[dict[str, Any]] = [{"seeds": seeds[:9]}, {"seeds": seeds, "most": 0.0}]
    for settings in wrong:
        with pytest.raises(InputError, match="at least 10 samples"):
            slider_range(tiny_model, directions, 0, Brightness(), None, **settings)


@pytest.fixture
def measured(tiny_model: DiffusionModel) -> SliderRange:
    """From -1 to 2; above 0 the image changes fast at first, so that even gaps grow with the strength."""
    seeds = tuple(range(1_000_000, 1_000_010))
    found = slider_range(tiny_model, directions_of(tiny_model), 1, Brightness(), None, seeds=seeds, most=2.0)
    strengths = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.2, 0.5, 1.0, 2.0)
    return replace(found, low=-1.0, high=2.0, low_because="age", high_because="identity", strengths=strengths)


def test_a_strength_beyond_the_range_has_a_reason(measured: SliderRange) -> None:
    assert [measured.beyond(s) for s in (-1.01, -1.0, 0, 2.0, 2.01)] == ["age", None, None, None, "identity"]


def test_pictures_are_spaced_as_the_slider_is(measured: SliderRange) -> None:
    assert measured.evenly(2.0, 4) == pytest.approx([0.2, 0.5, 1.0, 2.0])
    assert measured.evenly(1.0, 3) == pytest.approx([0.2, 0.5, 1.0])
    assert measured.evenly(-0.5, 2) == pytest.approx([-0.25, -0.5])
    # Beyond the range the last gap, of 1 here, goes on: 4 is six gaps away.
    assert measured.evenly(4.0, 6) == pytest.approx([0.2, 0.5, 1.0, 2.0, 3.0, 4.0])
    assert measured.evenly(40.0, 1) == [40.0]
    nothing = replace(measured, high=0.0, strengths=(*measured.strengths[:5], 0.0, 0.0, 0.0, 0.0))
    assert nothing.evenly(2.0, 4) == [0.5, 1.0, 1.5, 2.0] and nothing.evenly(-1.0, 2) == [-0.5, -1.0]


def test_a_range_follows_its_direction(measured: SliderRange) -> None:
    turned = measured.scaled(-1)
    assert (turned.low, turned.high, turned.low_because, turned.high_because) == (-2.0, 1.0, "identity", "age")
    assert turned.strengths == (-2.0, -1.0, -0.5, -0.2, 0.0, 0.25, 0.5, 0.75, 1.0)
    assert turned.effect == measured.effect[::-1] and turned.scaled(-1) == measured
    doubled = measured.scaled(2)
    assert (doubled.low, doubled.high) == (-2.0, 4.0) and doubled.evenly(4.0, 4) == pytest.approx([0.4, 1, 2, 4])


def test_a_range_tells_of_which_edits_it_is(tiny_model: DiffusionModel) -> None:
    directions, seeds = directions_of(tiny_model), tuple(range(1_000_000, 1_000_010))
    asyrp = Sampler(injection="asyrp", start=1)
    found = slider_range(tiny_model, directions, 1, Brightness(), None, seeds=seeds, most=2.0, sampler=asyrp)
    kept = range_of(with_ranges(directions, {1: found}), 1)
    assert kept is not None and kept == found and kept.scaled(-1).injection == "asyrp"
    assert kept.unlike(asyrp, 3) == "" and kept.unlike(replace(asyrp, stop=3), 3) == "", "to the end either way"
    assert kept.unlike(Sampler(stop=2), 3) == "injection=asyrp, start=1, stop=3"


def test_pictures_and_cards_show_a_range_of_such_edits_alone(measured: SliderRange, tiny_model: DiffusionModel) -> None:
    directions = directions_of(tiny_model)
    plain, other = (with_ranges(directions, {1: replace(measured, stop=stop)}) for stop in (3, 2))
    assert safe(plain, 1, Sampler()) == "\nsafe from -1 to +2" and safe(plain, 0, Sampler()) == ""
    assert safe(other, 1, Sampler()) == "" and safe(other, 1, Sampler(stop=2)) == "\nsafe from -1 to +2"
    assert "; -1 to 2 |" in card(plain, "me/x") and "; -1 to 2 with stop=2 |" in card(other, "me/x")
    strength = {"attribute": "age", "effect": 0.5, "low": 0.4, "high": 0.6, "n": 12, "strength": 2.0}
    records = {plain.meta.names[0]: {"calibration": strength | {"injection": "asyrp", "start": 0, "stop": None}}}
    told = replace(directions, meta=replace(directions.meta, calibration=records))
    assert "n = 12) at 2 with injection=asyrp; not measured |" in card(told, "me/x")
    alike = {"calibration": strength | {"low": None, "high": None}}
    told = replace(directions, meta=replace(directions.meta, calibration={plain.meta.names[0]: alike}))
    assert "age +0.50 sd (no interval, n = 12) at 2; not measured |" in card(told, "me/x")


def test_a_range_of_an_older_file_is_of_full_symmetric_edits(measured: SliderRange, tiny_model: DiffusionModel) -> None:
    kept = with_ranges(directions_of(tiny_model), {1: measured})
    record = facts_about(kept, kept.meta.names[1])["range"]
    for key in ("injection", "start", "stop", "shown"):
        del record[key]
    found = range_of(kept, 1)
    assert found is not None and found == replace(measured, shown=()) and found.unlike(Sampler(), 3) == ""


def test_a_range_is_taken_out_alone(measured: SliderRange, tiny_model: DiffusionModel) -> None:
    both = with_ranges(directions_of(tiny_model), {0: measured, 1: measured})
    left = without_range(both, 1)
    assert range_of(left, 0) == measured and range_of(left, 1) is None and left.range is None
    assert range_of(both, 1) == measured


def test_a_range_that_ends_at_nothing_ends_at_zero_without_a_sign() -> None:
    effects = matrix(GRID, 9 * GRID)
    low, _ = _end(replace(effects), 1 - 9 * np.abs(GRID), 1.0, 1.0, 0, GRID, -1)
    assert low == 0 and math.copysign(1, low) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"strengths": (-1.0, 0.0, 1.0)},
        {"tried": (0.0,), "effect": ((0.0, 0.0, 0.0),)},
        {"low": 0.5},
        {"injection": "sideways"},
        {"shown": (12,)},
    ],
)
def test_a_range_that_the_page_cannot_draw_is_none(
    measured: SliderRange, tiny_model: DiffusionModel, change: Any
) -> None:
    directions = directions_of(tiny_model)
    assert range_of(with_ranges(directions, {1: measured}), 1) == measured
    assert range_of(with_ranges(directions, {1: replace(measured, **change)}), 1) is None


@pytest.mark.parametrize(
    "value", [None, 3, {}, {"range": 1}, {"range": {"strengths": [1], "tried": [], "identity": []}}]
)
def test_a_strangers_nonsense_is_no_range(tiny_model, value):
    directions = directions_of(tiny_model)
    meta = replace(directions.meta, calibration={"smile": value})
    assert range_of(replace(directions, meta=meta), 0) is None


def test_a_range_takes_the_place_of_a_strangers_nonsense(tiny_model: DiffusionModel, measured: SliderRange) -> None:
    directions = directions_of(tiny_model)
    name = directions.meta.names[1]
    meta = replace(directions.meta, calibration={name: 1, "other": {"strength": 2}})
    kept = with_ranges(replace(directions, meta=meta), {1: measured})
    assert range_of(kept, 1) == measured
    assert kept.meta.calibration is not None and kept.meta.calibration["other"] == {"strength": 2}


def test_the_range_of_an_operator_has_one_side(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    operator, seeds = operator_of(tiny_model, "smile switched"), tuple(range(1_000_000, 1_000_010))
    operator = replace(operator, meta=replace(operator.meta, settings={"attribute": "smile"}))
    found = slider_range(tiny_model, operator, 0, Brightness(), None, seeds=seeds)
    shares = [i / 8 for i in range(9)]
    assert list(found.tried) == shares and found.attribute == "smile", "what it edits, whatever its name"
    images = operate(tiny_model, tiny_model.latents(seeds), operator, strengths=shares)
    scores = torch.stack([Brightness()(images[:, i])[:, 0].double() for i in range(9)])
    effects = (scores - scores[0]).mean(1) / scores[0].std()
    assert [effect for effect, _, _ in found.effect] == pytest.approx(effects.tolist(), abs=1e-5)
    assert (found.low, found.high, found.high_because) == (0.0, 1.0, "untested")
    assert found.strengths[0] == 0 and found.strengths[8] == pytest.approx(1) and min(np.diff(found.strengths)) > 0
    assert found.beyond(0.5) is None and found.evenly(1.0, 8) == pytest.approx(found.strengths[1:])
    with_ranges(operator, {0: found}).save(tmp_path / "operator.safetensors")
    kept = Operator.load(tmp_path / "operator.safetensors")
    assert range_of(kept, 0) == found and range_of(without_range(kept, 0), 0) is None
    assert safe(kept, 0, Sampler()) == "\nsafe from +0 to +1" and safe(kept, 0, Sampler(stop=2)) == ""
    assert f"| smile {found.effect[8][0]:+.2f} sd" in card(kept, "me/x").replace("\\", "")
    assert " at 1; 0 to 1 |" in card(kept, "me/x")


def test_an_operator_ends_at_the_first_limit_too() -> None:
    shares = np.linspace(0, 1, 9)
    names = replace(matrix(GRID, GRID), edits=tuple(f"{s:g}" for s in shares))
    effects = replace(names, effect=np.stack([shares, 4 * shares], axis=1))
    assert _end(effects, np.empty(0), None, 1.0, 0, shares, 1) == (pytest.approx(0.25), "age")
    assert _end(effects, 1 - shares, 0.8, 1.0, 0, shares, 1) == (pytest.approx(0.2), "identity")
    assert _end(effects, np.empty(0), None, 1.0, 0, shares, -1) == (0.0, "untested")
    level = torch.tensor(shares**2, dtype=torch.float32).reshape(9, 1, 1, 1, 1).expand(9, 2, 3, 8, 8)
    strengths = _even(level, shares, 0.0, 0.5)
    assert strengths[0] == 0 and np.diff(np.interp(strengths, shares, shares**2)) == pytest.approx(np.full(8, 1 / 32))


@pytest.mark.parametrize(
    "change",
    [
        {"low": -1.0},
        {"tried": (-1.0, 1.0)},
        {"strengths": tuple(float(i) for i in range(9))},
        {"tried": (0.0, 2.0)},
        {"low": -1.0, "strengths": tuple(i / 4 for i in range(-4, 5)), "tried": (-1.0, 1.0)},
    ],
    ids=["low", "tried below 0", "strengths", "tried above 1", "as of a direction"],
)
def test_an_operators_range_beyond_its_strengths_is_none(tiny_model: DiffusionModel, change: dict[str, Any]) -> None:
    even = tuple(i / 8 for i in range(9))
    found = SliderRange("smile", 0.0, 1.0, "untested", "age", even, (0.0, 1.0), ((0, 0, 0), (1, 1, 1)), (), {}, "x", ())
    operator = operator_of(tiny_model)
    assert range_of(with_ranges(operator, {0: found}), 0) == found
    assert range_of(with_ranges(operator, {0: replace(found, **change)}), 0) is None


def test_no_strength_beyond_an_operators_is_tried(tiny_model: DiffusionModel) -> None:
    seeds = tuple(range(1_000_000, 1_000_010))
    with pytest.raises(InputError, match=r"above 0, at most 1 of an operator, got 10 samples and 1\.5"):
        slider_range(tiny_model, operator_of(tiny_model), 0, Brightness(), None, seeds=seeds, most=1.5)
    half = slider_range(tiny_model, operator_of(tiny_model), 0, Brightness(), None, seeds=seeds, most=0.5)
    assert half.tried[-1] == 0.5
