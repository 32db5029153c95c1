import numpy as np

from hspace.experiments.compare_methods import ORDER, Figures, _conclusion, _pairs
from hspace.output.tables import to_latex, to_markdown

VALUES = {method: np.random.default_rng(j).normal(size=(5, len(Figures._fields))) for j, method in enumerate(ORDER)}


def test_only_methods_that_reach_the_target_are_compared() -> None:
    reaching = ["mean difference", "linear boundary", "PCA"]
    rows = _pairs(VALUES, reaching).rows
    assert len(rows) == 2 * 3 and {name for row in rows for name in row[1:3]} == set(reaching)


def test_fewer_than_two_of_them_have_no_difference() -> None:
    alone = _pairs(VALUES, ["PCA"])
    assert not alone.rows and "of which there are 1;" in to_markdown(alone) and to_latex(alone)
    assert _conclusion(VALUES, [], None, 0.5) == "No method reaches 0.5 sd for every attribute in every draw."
    assert _conclusion(VALUES, ["PCA"], None, 0.5).startswith("Of 1 methods that reach 0.5 sd for every")
