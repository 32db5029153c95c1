"""Analysis by synthesis: fresh renders, whose factors are known, are painted again."""

import pytest
import torch

from hspace.worlds.attributes import Factors
from hspace.worlds.portraits.faces import JUDGED, PORTRAITS, render, sample_factors
from hspace.worlds.portraits.synthesis import BINARY, BY_ID, SMOOTH, Fit, _Target, fit, random_start, scored_start


def people(n: int, seed: int = 3) -> Factors:
    return sample_factors(torch.Generator().manual_seed(seed), n)


def perturbed(factors: Factors, share: float, seed: int = 0) -> Factors:
    """Continuous factors moved by a share of their range, and other glasses."""
    generator, moved = torch.Generator().manual_seed(seed), dict(factors)
    for name in SMOOTH:
        each = BY_ID[name]
        if name not in BINARY:
            step = share * (each.high - each.low) * (2 * torch.randint(2, factors[name].shape, generator=generator) - 1)
            moved[name] = (factors[name] + step).clamp(each.low, each.high)
    return moved | {"glasses": 1 - factors["glasses"]}


def off_by(found: Fit, true: Factors, name: str) -> float:
    """In parts of the range."""
    return float((found.factors[name] - true[name]).abs().max() / (BY_ID[name].high - BY_ID[name].low))


def test_a_descent_from_perturbed_factors_finds_them_again() -> None:
    true, names = people(1), ("yaw", "pitch", "skin", "smile", "hair_length")
    target = _Target(render(true, 32)[0])
    values, moved = ({name: float(value) for name, value in each.items()} for each in (true, perturbed(true, 0.1)))
    found = target.descended(values | {name: moved[name] for name in names}, names, steps=8)
    assert max(abs(moved[name] - values[name]) for name in names) > 0.15
    assert max(abs(found[name] - values[name]) for name in names) < 0.01


@pytest.mark.slow
def test_a_fit_from_perturbed_factors_finds_all_of_them_again() -> None:
    true = people(1) | {"hat": torch.zeros(1), "age": torch.full((1,), 0.3), "bokeh": torch.zeros(1)}
    start = perturbed(true, 0.12)
    found = fit(render(true, 64), [start])
    wrong = {name: off_by(found, true, name) for name in [each.id for each in JUDGED]}
    assert max(wrong.values()) < 0.06, wrong
    assert all(torch.equal(found.factors[name], true[name]) for name in BINARY)
    assert float(found.error) < 0.04 and found.scores().shape == (1, len(JUDGED))


@pytest.mark.slow
def test_without_any_scorer_pose_and_colours_are_found() -> None:
    true = people(3, seed=5)
    images = render(true, 64)
    found = fit(images, [random_start(images)])
    for name in ("yaw", "pitch", "skin"):
        assert off_by(found, true, name) < 0.1, name
    assert all(torch.equal(found.factors[name], true[name]) for name in ("hat", "glasses"))


def test_the_true_factors_have_the_smallest_error() -> None:
    true = people(1)
    (target,) = _Target.all_of(render(true, 64), 32)
    candidates = [{name: float(value) for name, value in each.items()} for each in (true, perturbed(true, 0.05))]
    errors = target.errors(candidates)
    assert errors[0] < 1e-3 and errors[0] < 0.2 * errors[1]


def test_a_search_and_a_descent_never_end_worse() -> None:
    true = people(1)
    (target,) = _Target.all_of(render(true, 64), 16)
    values = {name: float(value) for name, value in perturbed(true, 0.1).items()}
    searched = target.searched(values, ("clothes", "hair_cut", "hat"))
    descended = target.descended(searched, ("yaw", "skin", "background"), steps=3)
    assert target.error(descended) <= target.error(searched) <= target.error(values)
    assert {name for name in descended if descended[name] != searched[name]} <= {"yaw", "skin", "background"}


def test_a_start_holds_the_scores_and_the_hue_of_the_background() -> None:
    true = people(4) | {"bokeh": torch.zeros(4)}
    start = scored_start(render(true, 64), PORTRAITS.labels(true) * 1.5)
    for attribute in JUDGED:
        expected = (true[attribute.id] * 1.5).clamp(attribute.low, attribute.high)
        assert torch.equal(start[attribute.id], expected)
    apart = (start["background"] - true["background"]).abs()
    assert torch.minimum(apart, 1 - apart).max() < 0.05
