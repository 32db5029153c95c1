import numpy as np
import pytest
import torch

from hspace.metrics.effect import EffectMatrix, effect_matrix
from hspace.metrics.names import Name, name_edits, numbered
from hspace.types import InputError

ATTRIBUTES = ("yaw", "smile", "hat")


def _effects(mean: list[list[float]], seed: int, n: int = 40, visible: torch.Tensor | None = None) -> EffectMatrix:
    """Effects of edits whose true ones are `mean`, with changes of sd .5."""
    generator = torch.Generator().manual_seed(seed)
    original = torch.randn(n, 3, generator=generator)
    change = torch.tensor(mean)[:, None] + 0.5 * torch.randn(len(mean), n, 3, generator=generator)
    edits = [str(i) for i in range(len(mean))]
    return effect_matrix(
        original, original + change, attributes=ATTRIBUTES, binary=[False] * 3, edits=edits, visible=visible,
        unit=torch.ones(3),
    )  # fmt: skip


def test_an_edit_is_named_by_what_it_moves_most_on_both_sets() -> None:
    mean = [[1.0, 0.1, 0.0], [0.0, -1.0, 0.5], [0.0, 0.0, 0.0]]
    assert name_edits(_effects(mean, 0), _effects(mean, 1)) == [Name("yaw", 1), Name("smile", -1), None]


def test_a_name_that_fresh_samples_do_not_confirm_is_none() -> None:
    first = _effects([[1.0, 0.0, 0.0]], 0)
    for fresh in ([[0.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]], [[0.6, 1.6, 0.0]]):
        assert name_edits(first, _effects(fresh, 1)) == [None]


def test_a_small_effect_gives_no_name_however_sure() -> None:
    mean = [[0.15, 0.0, 0.0]]
    assert name_edits(_effects(mean, 0, n=4000), _effects(mean, 1, n=4000)) == [None]


def test_what_moves_as_much_is_in_the_name() -> None:
    mean = [[1.0, -1.0, 0.1]]
    found = name_edits(_effects(mean, 0), _effects(mean, 1))[0]
    assert found is not None and {found.attribute, *found.others} == {"yaw", "smile"} and len(found.others) == 1
    assert found.label == f"{found.attribute} (+ {found.others[0]})"


def test_what_few_samples_show_is_no_name() -> None:
    visible = torch.ones(40, 3, dtype=torch.bool)
    visible[9:, 0] = False
    mean = [[3.0, 0.0, 0.0]]
    assert name_edits(_effects(mean, 0, visible=visible), _effects(mean, 1)) == [None]


def test_equal_names_are_numbered() -> None:
    yaw, hat = Name("yaw", 1), Name("hat", -1)
    assert numbered([yaw, None, hat, Name("yaw", -1), None]) == ["yaw 1", "unnamed", "hat", "yaw 2", "unnamed"]


def test_other_edits_are_refused() -> None:
    with pytest.raises(InputError, match="the same edits and attributes"):
        name_edits(_effects([[0.0] * 3], 0), _effects([[0.0] * 3] * 2, 0))


def test_a_direction_without_effect_is_seldom_named() -> None:
    null = [[0.0, 0.0, 0.0]] * 400
    named = [name is not None for name in name_edits(_effects(null, 0, n=16), _effects(null, 1, n=16))]
    assert np.mean(named) <= 0.05
