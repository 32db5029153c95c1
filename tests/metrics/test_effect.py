import json

import numpy as np
import pytest
import torch

from hspace.metrics.effect import EffectMatrix, effect_matrix, score_unit
from hspace.metrics.interval import flip_means, mean_interval
from hspace.types import InputError

ATTRIBUTES = ("yaw", "smile", "hat")


def _scores(n: int = 40, edits: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    original = rng.normal([5, 0.4, -100], [2, 0.1, 30], size=(n, 3))
    edited = original + rng.normal([[[3, 0, 0]], [[0, -0.2, 10]]][:edits], [1, 0.05, 20], size=(edits, n, 3))
    return torch.from_numpy(original), torch.from_numpy(edited)


def _matrix(original: torch.Tensor, edited: torch.Tensor, **changes: object) -> EffectMatrix:
    arguments = {"attributes": ATTRIBUTES, "binary": (False,) * 3, "edits": ("a", "b"), **changes}
    return effect_matrix(original, edited, **arguments)  # type: ignore[arg-type]


def test_effect_is_the_mean_change_in_unedited_standard_deviations() -> None:
    original, edited = _scores()
    expected = (edited - original).mean(1) / original.std(0)
    assert np.abs(_matrix(original, edited).effect - expected.numpy()).max() < 1e-12


def test_effect_has_no_unit_and_keeps_its_sign() -> None:
    original, edited = _scores()
    unit = torch.tensor([57.3, 1000.0, 1e-3])
    offset = torch.tensor([1e4, -3.0, 0.0])
    scaled = _matrix(original * unit + offset, edited * unit + offset)
    assert np.abs(scaled.effect - _matrix(original, edited).effect).max() < 1e-9
    backwards = _matrix(original, 2 * original - edited)
    assert np.abs(backwards.effect + _matrix(original, edited).effect).max() < 1e-12


def test_intervals_are_those_of_the_mean_change_in_the_unit() -> None:
    original, edited = _scores()
    unit = torch.tensor([2.0, 0.1, 30.0])
    matrix = _matrix(original, edited, unit=unit)
    change = ((edited - original) / unit).numpy()
    for row in range(2):
        for column, name in enumerate(ATTRIBUTES):
            assert matrix.cell(row, name) == pytest.approx(mean_interval(change[row, :, column]))
    errors = np.cov(change[0].T) / len(original)
    assert matrix.covariance[0] == pytest.approx(errors, rel=1e-9)


def test_binary_columns_have_intervals_of_flips() -> None:
    original = torch.tensor([[0.0, 0.3]] * 30 + [[1.0, 0.9]] * 10)
    edited = torch.where(torch.arange(40)[:, None] < 12, 1 - original, original)[None]
    unit = torch.tensor([0.5, 2.0])
    matrix = effect_matrix(original, edited, attributes=("hat", "age"), binary=(True, False), edits=("a",), unit=unit)
    flips = flip_means((edited - original)[0].double().numpy(), np.ones((40, 2), dtype=bool))
    assert matrix.cell(0, "hat")[:3] == pytest.approx((0.6, flips.low[0] / 0.5, flips.high[0] / 0.5))
    assert matrix.covariance[0, 0, 0] == pytest.approx((flips.se[0] / 0.5) ** 2)
    still = effect_matrix(original, original[None], attributes=("hat", "age"), binary=(True, False), edits=("a",))
    assert still.cell(0, "hat").low < 0 < still.cell(0, "hat").high


def test_hidden_scores_are_left_out_of_mean_and_unit() -> None:
    original, edited = _scores()
    visible = torch.rand(original.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    hidden = original.clone()
    hidden[~visible] = torch.nan
    matrix = _matrix(hidden, edited, visible=visible)
    for column in range(3):
        kept = visible[:, column]
        change = (edited - original)[:, kept, column].mean(1) / original[kept, column].std()
        assert np.abs(matrix.effect[:, column] - change.numpy()).max() < 1e-12
    per_edit = _matrix(hidden, edited, visible=visible.expand(2, -1, -1))
    assert np.array_equal(per_edit.effect, matrix.effect) and np.array_equal(per_edit.n, matrix.n)


def test_constant_and_invisible_attributes_have_no_effect() -> None:
    original, edited = _scores()
    original[:, 1] = 0.1
    visible = torch.ones(original.shape, dtype=torch.bool)
    visible[:, 2] = False
    matrix = _matrix(original, edited, visible=visible)
    for values in (matrix.effect, matrix.low, matrix.high):
        assert np.isnan(values[:, 1:]).all() and np.isfinite(values[:, 0]).all()
    assert matrix.strongest(0)[0] == "yaw"
    whole = json.loads(json.dumps(matrix.to_dict(whole=True), allow_nan=False))
    assert np.isnan(EffectMatrix.from_dict(whole).effect[0, 1])


def test_what_is_under_a_millionth_of_an_sd_is_rounding() -> None:
    original, edited = _scores()
    rounded = original + 3e-7 * original.std(0) * torch.sign(edited - original)
    matrix = _matrix(original, rounded, binary=(False, False, True), unit=original.std(0))
    assert (matrix.effect == 0).all() and np.isnan(matrix.low[:, :2]).all() and np.isnan(matrix.p[:, :2]).all()
    assert (matrix.low[:, 2] < 0).all()
    assert (_matrix(original, (original + 3e-6 * original.std(0))[None], edits=("a",)).effect > 2.9e-6).all()


def test_the_strongest_attribute_keeps_its_sign() -> None:
    matrix = _matrix(*_scores())
    assert matrix.strongest(1) == ("smile", matrix.effect[1, 1]) and matrix.strongest(1)[1] < 0
    few = _matrix(*(each[..., :9, :] for each in _scores()))
    assert few.strongest(0)[0] == "n/a" and np.isnan(few.strongest(0)[1])


def test_selectivity_is_over_the_columns_that_are_there() -> None:
    original, edited = _scores(400)
    matrix = _matrix(original, edited)
    whole, two = matrix.selectivity(["yaw", "smile"]), matrix.select(["yaw", "hat"]).selectivity_of(0, "yaw")
    size = np.abs(matrix.effect[0])
    assert whole[0].value == pytest.approx(size[0] / size.sum(), abs=0.05) and whole[0].n == 400
    assert two.value >= whole[0].value and whole[0].low < whole[0].value <= whole[0].high
    clear = size > 1.25 * np.sqrt(np.diagonal(matrix.covariance[0]))
    assert matrix.total()[0] == pytest.approx(size[clear].sum()) and clear.any()


def test_rows_can_be_chosen_under_other_names() -> None:
    matrix = _matrix(*_scores())
    chosen = matrix.rows([1], ["renamed"])
    assert chosen.edits == ("renamed",) and chosen.cell(0, "hat") == matrix.cell(1, "hat")
    assert chosen.selectivity_of(0, "smile") == matrix.selectivity_of(1, "smile")


def test_record_survives_json() -> None:
    matrix = _matrix(*_scores())
    copy = EffectMatrix.from_dict(json.loads(json.dumps(matrix.to_dict(whole=True))))
    for name in ("attributes", "edits", "effect", "low", "high", "p", "n", "covariance"):
        assert np.array_equal(getattr(copy, name), getattr(matrix, name)), name
    assert "covariance" not in matrix.to_dict()


def test_bad_input_is_named() -> None:
    original, edited = _scores()
    with pytest.raises(InputError, match=r"2 edits, 40, 3\), got \(1, 40, 3\)"):
        _matrix(original, edited[:1])
    with pytest.raises(InputError, match="n >= 2"):
        _matrix(original[:1], edited[:, :1])
    with pytest.raises(InputError, match="finite"):
        _matrix(original, edited * torch.inf)
    with pytest.raises(InputError, match="visible must be"):
        _matrix(original, edited, visible=torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="unknown attribute 'smyle'"):
        _matrix(original, edited).selectivity(["yaw", "smyle"])


def test_the_unit_is_the_sd_of_what_is_seen_and_nan_of_less_than_two_samples() -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 5.0], [9.0, 7.0]])
    visible = torch.tensor([[True, True], [True, False], [False, False]])
    unit = score_unit(scores, visible)
    assert unit[0] == pytest.approx(2**0.5) and unit[1].isnan()


def test_an_unknown_effect_counts_as_the_others_do_and_most_of_them_as_unknown() -> None:
    original, edited = _scores()
    whole = _matrix(original, edited).total()
    visible = torch.ones(2, 40, 3, dtype=torch.bool)
    visible[0, 9:, 2] = False
    visible[1, 9:, 1:] = False
    matrix = _matrix(original, edited, visible=visible)
    known = matrix.select(ATTRIBUTES[:2]).total()
    assert matrix.total()[0] == pytest.approx(1.5 * known[0], rel=0.05) and known[0] <= whole[0]
    assert np.isnan(matrix.total()[1])


def test_all_edits_share_a_unit_also_where_one_hides_what_it_is_of() -> None:
    original, _ = _scores()
    visible = torch.ones(2, 40, 3, dtype=torch.bool)
    visible[1, original[:, 0].argsort()[12:], 0] = False
    matrix = _matrix(original, torch.stack([original + 1.0] * 2), visible=visible)
    assert matrix.n[:, 0].tolist() == [40, 12] and matrix.effect[0, 0] == pytest.approx(matrix.effect[1, 0])
    assert matrix.effect[0, 0] == pytest.approx(float(1 / original[:, 0].std()))
