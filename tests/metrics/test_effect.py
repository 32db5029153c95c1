import json

import numpy as np
import pytest
import torch

from hspace.metrics.effect import EffectMatrix, effect_matrix, name_components, score_unit
from hspace.types import InputError

ATTRIBUTES = ("yaw", "smile", "hat")


def _scores(n: int = 40, edits: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    original = rng.normal([5, 0.4, -100], [2, 0.1, 30], size=(n, 3))
    edited = original + rng.normal([[[3, 0, 0]], [[0, -0.2, 10]]][:edits], [1, 0.05, 20], size=(edits, n, 3))
    return torch.from_numpy(original), torch.from_numpy(edited)


def _matrix(original: torch.Tensor, edited: torch.Tensor, **changes: object) -> EffectMatrix:
    arguments = {"attributes": ATTRIBUTES, "edits": ("a", "b"), "seed": 3, **changes}
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


def test_bootstrap_equals_resampling_one_draw_at_a_time() -> None:
    original, edited = _scores()
    n = len(original)
    counts = np.random.default_rng(3).multinomial(n, np.full(n, 1 / n), size=200)
    draws = []
    for count in counts:
        rows = np.repeat(np.arange(n), count)
        draws.append(((edited - original)[:, rows].mean(1) / original[rows].std(0)).numpy())
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    matrix = _matrix(original, edited, bootstrap=200)
    assert max(np.abs(matrix.low - low).max(), np.abs(matrix.high - high).max()) < 1e-10


def test_interval_covers_the_true_effect_about_95_times_in_100() -> None:
    covered = 0
    for repetition in range(100):
        generator = torch.Generator().manual_seed(repetition)
        original = torch.randn(80, 1, generator=generator)
        edited = (original + 0.5 + 0.5 * torch.randn(80, 1, generator=generator))[None]
        matrix = effect_matrix(original, edited, attributes=["yaw"], edits=["a"], bootstrap=200, seed=repetition)
        covered += bool(matrix.low[0, 0] <= 0.5 <= matrix.high[0, 0])
    assert 86 <= covered <= 100


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
    assert np.array_equal(per_edit.effect, matrix.effect) and np.array_equal(per_edit.low, matrix.low)


def test_constant_and_invisible_attributes_have_no_effect() -> None:
    original, edited = _scores()
    original[:, 1] = 0.1
    visible = torch.ones(original.shape, dtype=torch.bool)
    visible[:, 2] = False
    matrix = _matrix(original, edited, visible=visible)
    for values in (matrix.effect, matrix.low, matrix.high):
        assert np.isnan(values[:, 1:]).all() and np.isfinite(values[:, 0]).all()
    assert matrix.strongest(0)[0] == "yaw"
    assert EffectMatrix.from_dict(json.loads(json.dumps(matrix.to_dict(), allow_nan=False))).edits == ("a", "b")


def test_components_are_named_by_what_they_move_and_left_unnamed_otherwise() -> None:
    original, edited = _scores()
    matrix = _matrix(original, torch.cat([edited, original[None]]), edits=("a", "b", "nothing"))
    assert name_components(matrix) == [("yaw", 1), ("smile", -1), None]
    assert matrix.strongest(1) == ("smile", matrix.effect[1, 1])
    assert matrix.strongest(1)[1] < 0


def test_selectivity_is_the_target_share_of_the_row() -> None:
    effect = np.array([[0.5, -0.25, 0.25], [1.0, np.nan, 1.0]])
    matrix = EffectMatrix(ATTRIBUTES, ("a", "b"), effect, effect, effect)
    assert matrix.selectivity(["smile", "hat"]).tolist() == [0.25, 0.5]


def test_record_survives_json() -> None:
    matrix = _matrix(*_scores())
    copy = EffectMatrix.from_dict(json.loads(json.dumps(matrix.to_dict())))
    assert np.array_equal(copy.effect, matrix.effect) and np.array_equal(copy.high, matrix.high)
    assert copy.attributes == matrix.attributes


def test_bad_input_is_named() -> None:
    original, edited = _scores()
    with pytest.raises(InputError, match=r"2 edits, 40, 3\), got \(1, 40, 3\)"):
        _matrix(original, edited[:1])
    with pytest.raises(InputError, match="n >= 2"):
        _matrix(original[:1], edited[:, :1])
    with pytest.raises(InputError, match="finite"):
        _matrix(original, edited * torch.inf)
    with pytest.raises(InputError, match="at least 100"):
        _matrix(original, edited, bootstrap=5)
    with pytest.raises(InputError, match="visible must be"):
        _matrix(original, edited, visible=torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="unknown attribute 'smyle'"):
        _matrix(original, edited).selectivity(["yaw", "smyle"])


def test_the_unit_is_the_sd_of_what_is_seen_and_nan_of_less_than_two_samples() -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 5.0], [9.0, 7.0]])
    visible = torch.tensor([[True, True], [True, False], [False, False]])
    unit = score_unit(scores, visible)
    assert unit[0] == pytest.approx(2**0.5) and unit[1].isnan()
