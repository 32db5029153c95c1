"""Directions within groups, where two attributes go together in a known way."""

import numpy as np
import pytest
import torch
from entangled import directions, within

from hspace.types import InputError


def test_the_direction_within_groups_has_nothing_of_the_group() -> None:
    generator = np.random.default_rng(0)
    group = np.arange(120) % 2 == 0
    own = generator.normal(size=120)
    # The first axis of h is the group, the second what is the score's own; the score has both.
    h = torch.from_numpy(np.stack([3.0 * group, own], axis=1))[None]
    score = own + 4.0 * group
    plain, alone = within(h, score, [np.ones(120, bool)], 40), within(h, score, [group, ~group], 20)
    assert plain[0, 0] == pytest.approx(3.0) and alone[0, 0] == 0
    inside = [np.sort(own[each]) for each in (group, ~group)]
    expected = np.mean([each[-20:].mean() - each[:20].mean() for each in inside])
    assert float(alone[0, 1]) == pytest.approx(expected)
    with pytest.raises(InputError, match="at least 130 samples, got 60"):
        within(h, score, [group, ~group], 65)


def test_all_directions_are_as_long_as_the_spread_of_h() -> None:
    generator = np.random.default_rng(1)
    h = torch.from_numpy(generator.normal(size=(2, 120, 3)))
    scores = np.stack([generator.normal(size=120), (np.arange(120) % 2).astype(float)], axis=1)
    found = directions(h, scores, 0, 1)
    assert len(found) == 3
    for vector in found.values():
        assert float(vector.norm()) == pytest.approx(float(h.var(dim=1).sum().sqrt()))
    sides = found["difference of the sides"]
    expected = h[:, ::2].mean(1) - h[:, 1::2].mean(1)
    assert float(torch.cosine_similarity(sides.flatten(), expected.flatten(), dim=0)) == pytest.approx(1)
