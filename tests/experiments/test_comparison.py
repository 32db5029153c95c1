"""What is compared of methods by their figures, and what is said of it: on numbers whose answers are known."""

import math

import numpy as np

from hspace.experiments.comparison import RANKED, comparable, conclusion, differences, over_attributes, winners
from hspace.experiments.contenders import CONTENDERS
from hspace.metrics.paired import paired_draws


def test_methods_are_compared_where_half_of_them_reach_the_target() -> None:
    reached = np.ones((4, 5, 3), dtype=bool)
    reached[1, 0, 0] = reached[2:, 3, 1] = reached[:3, :, 2] = False
    # The third attribute is reached by one method; of the first, one method misses one draw.
    assert comparable(reached, [1] * 4) == ([0, 1], [0])
    reached[1, 0, 0] = True
    assert comparable(reached, [1] * 4) == ([0, 1], [0, 1])
    assert comparable(np.zeros((4, 5, 3), dtype=bool), [1] * 4) == ([], [])


def test_what_takes_an_attribute_off_is_not_compared() -> None:
    reached = np.ones((3, 5, 2), dtype=bool)
    reached[0, :, 1] = False
    assert comparable(reached, [1, 1, 1]) == ([0, 1], [1, 2])
    assert comparable(reached, [1, -1, -1]) == ([0], [0]), "nor does it count among those that reach an attribute"
    assert comparable(reached, [-1] * 3) == ([], [])
    assert [each.name for each in CONTENDERS if each.sign < 0] == ["erase", "switch"]


def test_a_mean_over_attributes_is_of_all_or_there_is_none() -> None:
    # (methods, draws, attributes, figures); the figure at 3 is accuracy.
    values = np.arange(24, dtype=float).reshape(2, 1, 2, 6)
    values[0, 0, 1, [2, 3]] = math.nan
    values[1, 0, 1, :] = math.nan
    first, second = over_attributes(values)[:, 0]
    np.testing.assert_array_equal(first, [3, 4, math.nan, 3, 7, 8])
    assert np.isnan(second).all(), "accuracy too is of the attributes whose edits can be read"


def test_differences_are_paired_by_draw_and_corrected_over_methods() -> None:
    values = {name: np.random.default_rng(j).normal(size=(5, 6)) for j, name in enumerate(("PCA", "random", "ICA"))}
    values["mean difference"] = np.random.default_rng(9).normal(size=(5, 6))
    rows = [row for row in differences(values) if row[0] == "identity"]
    expected = {each: paired_draws(values[each][:, 4], values["mean difference"][:, 4]) for each in ("PCA", "random")}
    assert [row[1] for row in rows] == ["PCA", "random", "ICA"]
    assert all(row[2] == expected[str(row[1])][0] for row in rows[:2])
    assert min(float(str(row[3])) for row in rows) >= min(p for _, p in expected.values())
    assert differences({"PCA": values["PCA"]}) == [], "the reference is not among them"


def figures(effect: float, identity: float, draws: int) -> np.ndarray:
    """Figures of a method, (draws, figures), that vary a little."""
    noise = 1e-5 * np.random.default_rng(int(1000 * (effect + identity))).normal(size=(draws, 6))
    return np.array([effect, identity, identity, identity, identity, math.nan]) + noise


def test_effects_are_tested_and_have_no_best() -> None:
    values = {"mean difference": figures(0.5, 0.8, 5), "PCA": figures(0.7, 0.4, 5)}
    assert {str(row[0]): row[-1] for row in differences(values)}["effect"] == "yes"
    assert winners(values) == dict.fromkeys(RANKED[:3], "mean difference") | {"likeness": None}


def test_of_few_draws_no_difference_is_known() -> None:
    values = {"mean difference": figures(0.5, 0.8, 4), "PCA": figures(0.7, 0.4, 4)}
    assert {row[-1] for row in differences(values)} == {"n/a"} and not any(winners(values).values())
    said = conclusion("1 sd", ["hat"], values)
    assert "identity is highest for mean difference (.8), with a lead whose error is not known." in said
    assert "its error" not in said and "corrected" not in said


def test_the_conclusion_says_what_the_error_of_a_lead_is() -> None:
    said = conclusion("1 sd", ["hat"], {"PCA": figures(0.5, 0.8, 5), "ICA": figures(0.5, 0.7, 5)})
    assert said.startswith("At 1 sd, of 2 methods that reach it for hat, selectivity is highest for PCA")
    assert "with a lead beyond its error" in said and "not corrected for the choice of the first" in said
    same = np.random.default_rng(0).normal(size=(2, 5, 6))
    assert "with a lead within its error" in conclusion("1 sd", ["hat"], {"PCA": same[0], "ICA": same[1]})
    assert conclusion("1 sd", ["hat"], {"PCA": same[0]}).startswith("At 1 sd PCA alone reaches")
    assert conclusion("1 sd", ["hat"], {}).startswith("At 1 sd no method is compared")
