"""Every interval that is printed holds the truth as often as it says, and noise gets no names."""

import numpy as np
import pytest

from scripts import interval_coverage


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    cells = [*interval_coverage.effects(2000), *interval_coverage.proportions(2000), *interval_coverage.others(400)]
    assert 0.93 <= np.mean([cell.covered for cell in cells]) <= 0.98
    assert min(cells, key=lambda cell: cell.covered).covered >= 0.90


@pytest.mark.slow
def test_selectivity_is_nearly_unbiased_and_its_interval_holds() -> None:
    found = [row for row in interval_coverage.shares(300) if row[1] >= 32]
    assert max(abs(mean - truth) for _, _, truth, mean, _ in found) <= 0.03
    assert min(covered for *_, covered in found) >= 0.90


@pytest.mark.slow
def test_directions_without_effect_are_not_named() -> None:
    assert max(share for _, share in interval_coverage.null_names(1000)) <= 0.05
