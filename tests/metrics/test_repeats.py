import logging

import numpy as np
import pytest
import torch

from hspace.metrics.effect import EffectMatrix
from hspace.metrics.repeats import over_seeds, subgroup_effects, subgroups
from hspace.types import InputError


def _matrix(effect: list[list[float]], attributes: tuple[str, ...] = ("smile", "age")) -> EffectMatrix:
    values = np.array(effect)
    n, covariance = np.full(values.shape, 30), np.zeros((1, 2, 2))
    return EffectMatrix(attributes, ("edit",), values, values, values, values, n, covariance)


def test_mean_and_sd_over_table_seeds() -> None:
    found = over_seeds([_matrix([[1.0, -1.0]]), _matrix([[2.0, -1.0]]), _matrix([[6.0, float("nan")]])])
    assert found.mean[0, 0] == 3.0 and found.sd[0, 0] == pytest.approx(7**0.5)
    assert np.isnan(found.mean[0, 1]) and found.seeds == 3
    with pytest.raises(InputError, match="at least two"):
        over_seeds([_matrix([[1.0, -1.0]])])
    with pytest.raises(InputError, match="same rows and columns"):
        over_seeds([_matrix([[1.0, -1.0]]), _matrix([[1.0, -1.0]], ("smile", "yaw"))])


def test_groups_meet_at_one_half_or_at_the_median_and_leave_out_what_is_not_visible() -> None:
    scores, visible = torch.tensor([0.1, 0.9, 0.7, 0.4]), torch.tensor([True, True, False, True])
    halves = subgroups(scores, visible, attribute="gender", binary=True)
    assert {name: mask.tolist() for name, mask in halves.items()} == {
        "gender above .5": [False, True, False, False],
        "gender below .5": [True, False, False, True],
    }
    above = subgroups(scores, visible, attribute="age", binary=False)["age above median"]
    assert above.tolist() == [False, True, False, False]
    with pytest.raises(InputError, match="no sample shows age"):
        subgroups(scores, torch.zeros(4, dtype=torch.bool), attribute="age", binary=False)


def test_effects_within_groups_are_in_the_unit_of_all(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    original = torch.randn(40, 1)
    group = torch.arange(40) < 25
    edited = original + torch.where(group, 2.0, -1.0)[:, None]
    groups = {"young": group, "old": ~group, "few": torch.arange(40) < 5}
    with caplog.at_level(logging.WARNING):
        found = subgroup_effects(
            original,
            edited[None],
            groups,
            attributes=["smile"],
            binary=[False],
            edits=["edit"],
            unit=torch.tensor([0.5]),
        )
    assert list(found) == ["young", "old"] and "5 samples with few are too few" in caplog.text
    assert found["young"].effect[0, 0] == pytest.approx(4.0) and found["old"].effect[0, 0] == pytest.approx(-2.0)
    with pytest.raises(InputError, match="must be a mask of 40 samples"):
        subgroup_effects(
            original,
            edited[None],
            {"a": group[:5]},
            attributes=["smile"],
            binary=[False],
            edits=["e"],
            unit=torch.ones(1),
        )
