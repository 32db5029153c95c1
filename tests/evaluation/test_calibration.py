"""The search for a strength, on effects known in closed form and on a tiny model."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor
from vectors import operator_of

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.record import Directions, DirectionsMeta
from hspace.edits.changes import operate
from hspace.edits.sums import edit
from hspace.evaluation.calibration import Calibration, _Readings, _settled, calibrate, h_spread, search
from hspace.metrics.interval import mean_interval
from hspace.types import InputError

SEEDS = seed_range("calibration", 6)


class Contrast:
    """Two continuous scores: half against half of the image, and a constant."""

    id = "contrast"
    attributes: tuple[str, ...] = ("contrast", "constant")
    binary: tuple[bool, ...] = (False, False)

    def __call__(self, images: Tensor) -> Tensor:
        contrast = images[..., :8].mean(dim=(1, 2, 3)) - images[..., 8:].mean(dim=(1, 2, 3))
        return torch.stack([contrast, torch.zeros_like(contrast)], dim=1)

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


def make_directions(model: DiffusionModel, space: str = "h") -> Directions:
    torch.manual_seed(3)
    steps = len(model.process.timesteps)
    shape = (steps, *model.h_shape) if space == "h" else model.sample_shape
    meta = DirectionsMeta(
        space=space, provenance=model.provenance(eta=1.0), model_id=model.model_id,
        method="made", names=("a", "b"), unit="unit norm", seeds=(0, 1),
    )  # fmt: skip
    return Directions(torch.randn(2, *shape), meta)


@pytest.mark.parametrize(
    "effect",
    [
        lambda s: 0.3 * s,
        lambda s: -0.02 * s,
        lambda s: 2 * math.tanh(s),
        lambda s: 0.001 * s**3,
        lambda s: 1.2 / (1 + math.exp(-3 * (s - 6))),
        lambda s: 400 * s,
    ],
    ids=["linear", "backward", "saturating", "cubic", "late", "steep"],
)
def test_the_target_is_reached_with_few_edits_whatever_the_shape(effect) -> None:
    strength, reached, tried = search(effect, 0.8, first=1.0, most=64.0, tolerance=0.02)
    assert reached and effect(strength) == pytest.approx(0.8, rel=0.02)
    assert len(tried) <= 12 and dict(tried)[strength] == effect(strength)


def test_a_negative_target_is_reached_on_the_other_side() -> None:
    strength, reached, _ = search(lambda s: 0.5 * s, -1.0, first=0.3, most=10, tolerance=0.01)
    assert reached and strength == pytest.approx(-2, rel=0.01)


def test_a_target_beyond_the_peak_is_not_reached_and_the_peak_is_returned() -> None:
    strength, reached, tried = search(lambda s: s * math.exp(-s / 2), 5.0, first=0.5, most=16, tolerance=0.05)
    assert not reached and strength == 2.0  # the peak of x exp(-x / 2), which doubling meets
    assert max(abs(s) for s, _ in tried) == 16.0


def test_of_equal_effects_the_smallest_strength_is_returned() -> None:
    strength, reached, _ = search(lambda s: 0.75 * math.tanh(9 * s), 1.0, first=0.5, most=4, tolerance=0.05)
    assert not reached and strength == 0.5


def test_what_cannot_be_read_is_not_kept() -> None:
    strength, reached, tried = search(lambda s: s if abs(s) < 3 else math.nan, 5.0, first=1.0, most=16, tolerance=0.05)
    assert not reached and strength == 2.0 and all(math.isfinite(effect) for _, effect in tried)
    with pytest.raises(InputError, match="visible in no edit"):
        search(lambda s: math.nan, 1.0, first=1.0, most=4.0, tolerance=0.05)


@pytest.mark.parametrize("space", ["h", "x_T"])
def test_the_search_does_not_depend_on_the_unit_of_strength(tiny_model: DiffusionModel, space: str) -> None:
    directions = make_directions(tiny_model, space)
    tiny = replace(directions, directions=directions.directions / 1024)
    found, scaled = (
        calibrate(tiny_model, d, 1, "contrast", Contrast(), target=-0.1, seeds=SEEDS) for d in (directions, tiny)
    )
    assert found.reached and scaled.reached
    assert scaled.strength / 1024 == pytest.approx(found.strength, rel=1e-3)
    assert [effect for _, effect in scaled.tried] == pytest.approx([effect for _, effect in found.tried], abs=1e-3)

    latents = tiny_model.latents(SEEDS)
    images = edit(tiny_model, latents, directions, component=1, strengths=[0.0, found.strength])
    before, after = (Contrast()(images[:, i])[:, 0].double() for i in range(2))
    assert float((after - before).mean() / before.std()) == pytest.approx(found.effect, abs=1e-6)
    assert found.effect == pytest.approx(-0.1, rel=0.05) and found.low is None, "six samples have no interval"


def made_readings(noise: float, binary: bool = False) -> _Readings:
    """Samples of which the first four move half as much as the others, by the third power of the strength."""

    def read(strength: float, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor(list(seeds), dtype=torch.float64)
        scale = torch.where(rows < 4, 0.5, 1.0)
        moved = scale * strength**3 + noise * (rows % 2 * 2 - 1) * (strength != 0)
        return moved, torch.ones(len(seeds), dtype=torch.bool)

    return _Readings(read, range(100), binary, sd=2.0)


@pytest.mark.parametrize(("noise", "n"), [(0.3, 25), (0.6, 50), (4.0, 100)])
def test_more_samples_are_read_only_where_the_effect_is_unsure(noise: float, n: int) -> None:
    readings = made_readings(noise)
    strength, cell, _ = _settled(readings, 1.0, 0.5, 25, True, 8.0)
    assert len(readings.at(strength, 0)[0]) == cell.n == n
    (after, _), (before, _) = readings.at(strength, 0), readings.at(0.0, 0)
    assert cell == pytest.approx(mean_interval(((after - before[: len(after)]) / 2).numpy()))


@pytest.mark.parametrize(("strength", "n"), [(0.5, 25), (-1.0, 25), (1.0, 100)])
def test_no_more_samples_are_read_where_the_target_is_surely_missed(strength: float, n: int) -> None:
    readings = made_readings(1.2)
    settled, cell, _ = _settled(readings, strength, 0.5, 25, False, 8.0)
    assert settled == strength and len(readings.at(strength, 0)[0]) == cell.n == n


def test_flips_have_the_interval_of_flips() -> None:
    cell = made_readings(0.0, binary=True).effect(0.8, 40)
    assert cell.low * 2 < 0.8**3 < cell.high * 2 and cell.high > cell.low


def test_a_strength_from_few_samples_is_corrected_on_many() -> None:
    readings = made_readings(0.0)
    strength, reached, _ = search(lambda s: readings.effect(s, 4).value, 0.5, first=0.1, most=8.0, tolerance=0.05)
    assert reached and strength == pytest.approx(2 ** (1 / 3), rel=0.05)
    settled, cell, tried = _settled(readings, strength, 0.5, 100, True, 8.0)
    assert cell.value == pytest.approx(0.5, rel=0.05) and len(tried) <= 4
    assert settled == pytest.approx((1 / 0.98) ** (1 / 3), rel=0.02)


def test_an_effect_out_of_reach_is_said_to_be(tiny_model: DiffusionModel) -> None:
    directions = make_directions(tiny_model)
    unit = torch.tensor([1e6, 1.0])
    far = calibrate(tiny_model, directions, 0, "contrast", Contrast(), target=-0.2, seeds=SEEDS, unit=unit, most=1.0)
    assert not far.reached and far.effect == min(effect for _, effect in far.tried)


def test_a_calibration_survives_a_way_through_json(tiny_model: DiffusionModel) -> None:
    late, directions = Sampler(start=1), make_directions(tiny_model)
    found = calibrate(tiny_model, directions, 0, "contrast", Contrast(), target=0.4, seeds=SEEDS, sampler=late)
    record = json.loads(json.dumps(asdict(found)))
    assert Calibration.from_dict(record) == found and (found.injection, found.start, found.stop) == (
        "symmetric",
        1,
        None,
    )
    old = {key: value for key, value in record.items() if key not in ("injection", "start", "stop")}
    assert Calibration.from_dict(old).injection is None


def test_an_operator_is_given_the_share_of_its_map_that_reaches_the_target(tiny_model: DiffusionModel) -> None:
    operator, latents = operator_of(tiny_model), tiny_model.latents(SEEDS)

    def moved(strength: float) -> float:
        images = operate(tiny_model, latents, operator, strengths=[0.0, strength])
        before, after = (Contrast()(images[:, i])[:, 0].double() for i in range(2))
        return float((after - before).mean() / before.std())

    whole = moved(1.0)
    for share in (0.3, 0.9):
        target = share * whole
        found = calibrate(tiny_model, operator, 0, "contrast", Contrast(), target=target, seeds=SEEDS)
        assert found.reached and 0 < found.strength < 1 and found.effect == pytest.approx(target, rel=0.05)
        assert moved(found.strength) == pytest.approx(found.effect, abs=1e-5)
    far, back = (
        calibrate(tiny_model, operator, 0, "contrast", Contrast(), target=target, seeds=SEEDS)
        for target in (2 * whole, -whole)
    )
    assert not far.reached and far.strength == 1.0 and far.effect == pytest.approx(whole, abs=1e-5)
    assert not back.reached and back.effect * whole > 0, "it has no other side"
    assert all(0 < strength <= 1 for each in (far, back) for strength, _ in each.tried)


def test_mistakes_are_named(tiny_model: DiffusionModel) -> None:
    directions = make_directions(tiny_model)

    def run(attribute: str = "contrast", target: float = 0.5, seeds=SEEDS, which: Directions = directions) -> None:
        calibrate(tiny_model, which, 0, attribute, Contrast(), target=target, seeds=seeds)

    with pytest.raises(InputError, match="unknown attribute 'smile', contrast scores contrast, constant"):
        run(attribute="smile")
    with pytest.raises(InputError, match="constant does not vary"):
        run(attribute="constant")
    with pytest.raises(InputError, match="target other than 0"):
        run(target=0.0)
    with pytest.raises(InputError, match="must not share samples"):
        run(seeds=(1, 2))
    with pytest.raises(InputError, match="direction 'a' is zero"):
        run(which=replace(directions, directions=torch.zeros_like(directions.directions)))


def test_where_h_is_the_same_for_every_sample_its_length_is_what_a_strength_is_first_counted_in(
    tiny_model: DiffusionModel,
) -> None:
    sampler = Sampler(start=1)
    model = tiny_model.tapped("mod")
    h = sample(model, model.latents([3]), record_h=True).h
    assert h is not None
    assert h_spread(model, SEEDS, sampler) == pytest.approx(float(h[:, 1:].norm()), rel=1e-6)
    many = sample(tiny_model, tiny_model.latents(SEEDS), record_h=True).h
    assert many is not None
    expected = float(many[:, 1:].var(dim=0).sum().sqrt())
    assert h_spread(tiny_model, SEEDS, sampler) == pytest.approx(expected, rel=1e-4)
