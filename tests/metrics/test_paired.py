import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from hspace.metrics.paired import SIGNIFICANT, differs, holm, leading, paired, paired_draws, unpaired


def test_a_difference_that_was_not_tested_is_neither() -> None:
    assert [differs(p) for p in (0.01, 0.2, math.nan)] == ["yes", "no", "n/a"]


def test_holm_equals_the_textbook() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    table, corrected = [[0.02, np.nan], [0.9, 0.01]], np.array([[0.04, np.nan], [0.9, 0.03]])
    assert holm(np.array(table)) == pytest.approx(corrected, nan_ok=True)


def test_chance_alone_differs_in_one_of_twenty_tables_at_most() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(4, 30)) for _ in range(400)]
    found = [(holm(np.array([paired(*two)[1] for two in combinations(t, 2)])) < SIGNIFICANT).any() for t in tables]
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_a_paired_difference_is_surer_than_either_method() -> None:
    rng = np.random.default_rng(1)
    people = rng.normal(size=50)
    values = {"a": people + 0.1, "b": people + 0.02 * rng.normal(size=50), "c": people - 5.0 + rng.normal(size=50)}
    difference, p = paired(values["a"], values["b"])
    expected = stats.ttest_rel(values["a"], values["b"]).pvalue
    assert p < 1e-10 and expected < 1e-10 and difference.value == pytest.approx(0.1, abs=0.02)
    assert difference.low > 0
    assert leading(values) == ("a", paired_draws(values["a"], values["b"])[0])


def test_a_method_that_only_seems_best_is_not_bold() -> None:
    rng = np.random.default_rng(2)
    values = {"a": rng.normal(size=30) + 0.05, "b": rng.normal(size=30), "c": rng.normal(size=30) - 9.0}
    assert leading(values)[1].low <= 0


def test_hidden_samples_are_left_out() -> None:
    values = {"a": np.array([np.nan, *np.arange(12.0)]), "b": np.array([5.0, *np.arange(12.0) % 3])}
    assert paired(values["a"], values["b"])[0].n == 12


def test_draws_are_compared_as_pairs() -> None:
    a, b = np.array([0.5, 0.7, 0.6, 0.8, 0.65]), np.array([0.4, 0.65, 0.5, 0.62, 0.6])
    difference, p = paired_draws(a, b)
    wanted = stats.ttest_rel(a, b)
    assert p == pytest.approx(wanted.pvalue)
    assert difference[1:3] == pytest.approx((wanted.confidence_interval().low, wanted.confidence_interval().high))
    assert leading({"a": a, "b": b, "c": b - 1}) == ("a", difference) and difference.low > 0
    few, p = paired_draws(a[:4], b[:4])
    assert math.isnan(few.low) and math.isnan(p)


def test_separate_samples_are_compared_by_welch() -> None:
    """Student's sleep data of 1908 as two groups; the limits are those that textbooks print."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    difference, p = unpaired(np.append(first, np.nan), second)
    assert difference == pytest.approx((-1.58, -3.3655, 0.2055, 10), abs=1e-4)
    assert p == pytest.approx(0.0794, abs=1e-4)
    assert math.isnan(unpaired(first[:9], second)[1])
    constant, p = unpaired(np.ones(12), np.zeros(12))
    assert constant.value == 1 and math.isnan(constant.low) and math.isnan(p)
