"""Operators beside closed forms and scikit-learn, as records on disk, and as edits of a real (tiny) model."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LinearRegression
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded, collect, trajectories
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, annotate, extremes
from hspace.directions.erase import erase
from hspace.directions.operators import Operator, load_found, rows_of
from hspace.directions.record import Directions
from hspace.directions.regression import regression
from hspace.directions.switch import exchange, switch
from hspace.directions.transport import monotone, transport
from hspace.edits.changes import apply_changes, operate
from hspace.evaluation.manifold import fit_gaussian, off_manifold
from hspace.system import distributed
from hspace.types import InputError

SAMPLES = range(40)
Fit = Callable[..., Operator]


class TwoColors:
    """Mean of red and of green; the image hides its red where it is very green."""

    id = "colors"
    attributes: tuple[str, ...] = ("red", "green")
    binary: tuple[bool, ...] = (False, False)

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))[:, :2]

    def visible(self, scores: Tensor) -> Tensor:
        shown = torch.ones_like(scores, dtype=torch.bool)
        shown[:, 0] = scores[:, 1] < scores[:, 1].quantile(0.9)
        return shown


@pytest.fixture(scope="module")
def annotations(tiny_model: DiffusionModel) -> Annotations:
    return annotate(tiny_model, SAMPLES, TwoColors())


@pytest.fixture(scope="module")
def recorded(tiny_model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return collect(tiny_model, SAMPLES, tmp_path_factory.mktemp("operators") / "h.npy")


@pytest.fixture(scope="module")
def h(recorded: Recorded, tiny_model: DiffusionModel) -> Tensor:
    """(steps, n, *h_shape)."""
    return torch.from_numpy(recorded.open().astype("float32")).unflatten(-1, tiny_model.h_shape)


@pytest.fixture(scope="module", params=["erase", "switch", "transport", "one-sided"])
def operator(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations, request: pytest.FixtureRequest
) -> Operator:
    given = (tiny_model, recorded, annotations, "green")
    made = {
        "erase": lambda: erase(*given),
        "switch": lambda: switch(*given, k=8),
        "transport": lambda: transport(*given, k=8),
        "one-sided": lambda: erase(*given, one_sided=True),
    }
    return made[request.param]()


def test_strength_0_changes_nothing_bit_for_bit(tiny_model: DiffusionModel, operator: Operator) -> None:
    latents = tiny_model.latents(range(8))
    plain = sample(tiny_model, latents).x_0
    none, whole = (operate(tiny_model, latents, operator, strengths=[strength])[:, 0] for strength in (0.0, 1.0))
    assert torch.equal(none, plain) and not torch.equal(whole, plain)


def test_only_the_edited_steps_change(tiny_model: DiffusionModel, operator: Operator) -> None:
    latents = tiny_model.latents([7])
    late = Sampler(start=2, stop=3)
    edited = operate(tiny_model, latents, operator, strengths=[1.0], sampler=late)
    changed = sample(tiny_model, latents, edit=lambda i, encoded: operator(i, encoded.h) if i == 2 else encoded.h).x_0
    torch.testing.assert_close(edited[:, 0], changed)


def test_an_operator_is_saved_and_read_as_what_it_is(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "operator.safetensors"
    operator.save(path)
    found = load_found(path)
    assert isinstance(found, Operator) and found.meta == operator.meta
    assert (found.kind, found.one_sided) == (operator.kind, operator.one_sided)
    for name, tensor in operator.tensors().items():
        assert torch.equal(found.tensors()[name], tensor), name
    with pytest.raises(InputError, match="operator"):
        Directions.load(path)


def test_no_linear_regression_finds_what_was_erased(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations, h: Tensor
) -> None:
    operator = erase(tiny_model, recorded, annotations, "red")
    shown = annotations.visible[:, 0]
    assert not shown.all()
    scores = annotations.scores[shown, 0].numpy()
    for step, points in enumerate(h):
        edits = points, (0.5 * operator)(step, points), operator(step, points)
        before, half, after = (each[shown].flatten(1).double().numpy() for each in edits)
        cross = [np.abs((x - x.mean(0)).T @ (scores - scores.mean())).max() for x in (before, half, after)]
        assert cross[2] < 1e-5 * cross[0] and cross[1] == pytest.approx(cross[0] / 2, rel=1e-3)
        # More samples than dimensions are needed for a regression that can fail: the leading components.
        axes = np.linalg.svd(before - before.mean(0), full_matrices=False)[2][:10]
        fits = [LinearRegression().fit(x @ axes.T, scores).score(x @ axes.T, scores) for x in (before, after)]
        assert fits[0] > 0.1 and fits[1] < 1e-4


def test_a_one_sided_operator_leaves_the_other_side_alone(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations, h: Tensor
) -> None:
    whole, one_sided = (erase(tiny_model, recorded, annotations, "green", one_sided=side) for side in (False, True))
    scores = annotations.scores[:, 1] - annotations.scores[:, 1].mean()
    for step, points in enumerate(h):
        moved, some = (each(step, points) - points for each in (whole, one_sided))
        assert whole.right is not None
        readout = (points - whole.mean[step]).flatten(1) @ whole.right[step].flatten(1).T
        up = readout[:, 0] > 0
        torch.testing.assert_close(some[up], moved[up])
        assert not some[~up].any() and some[up].flatten(1).any(dim=1).all()
        assert float((readout[:, 0] * scores).sum()) > 0


def test_a_switch_exchanges_the_means_and_is_undone_by_itself(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations, h: Tensor
) -> None:
    operator = switch(tiny_model, recorded, annotations, "green", k=8)
    examples = extremes(annotations, "green", 8)
    rows = [rows_of(annotations, seeds) for seeds in (examples.plus, examples.minus)]
    for step, points in enumerate(h):
        means = torch.stack([points[each].mean(0) for each in rows])
        torch.testing.assert_close(operator(step, means), means.flip(0), atol=1e-4, rtol=1e-4)
        half_way = means.mean(0, keepdim=True).expand_as(means)
        torch.testing.assert_close((0.5 * operator)(step, means), half_way, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(operator(step, operator(step, points)), points, atol=1e-3, rtol=1e-3)


def test_a_switch_of_two_attributes_exchanges_theirs(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations, h: Tensor
) -> None:
    operator = switch(tiny_model, recorded, annotations, "green", k=6, target="red")
    assert operator.meta.names == ("green for red",)
    rows = [rows_of(annotations, extremes(annotations, name, 6).plus) for name in ("green", "red")]
    for step, points in enumerate(h):
        means = torch.stack([points[each].mean(0) for each in rows])
        torch.testing.assert_close(operator(step, means), means.flip(0), atol=1e-3, rtol=1e-3)
        neutral = points.mean(0, keepdim=True)
        torch.testing.assert_close(operator(step, neutral), neutral, atol=1e-5, rtol=1e-5)


def test_opposite_means_give_the_published_readout() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 8, generator=generator, dtype=torch.float64) @ torch.diag(
        torch.linspace(0.2, 3, 8).double()
    )
    points, source = points - points.mean(0), torch.randn(8, generator=generator, dtype=torch.float64)
    left, right = exchange(points, torch.stack([source, -source]))
    values, axes = np.linalg.eigh(ledoit_wolf(points.numpy(), assume_centered=True)[0])
    root = axes @ np.diag(values**-0.5) @ axes.T
    np.testing.assert_allclose(right, np.linalg.pinv(root @ source.numpy()[:, None]) @ root, atol=1e-10)
    torch.testing.assert_close(left[0], 2 * source)


def test_transport_is_the_map_between_two_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    center, spread = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 2.0]).double()
    goal_center, goal_spread = torch.tensor([0.0, 3.0]).double(), torch.tensor([1.5, 0.5]).double()
    noise = torch.randn(2, 20_000, 2, generator=generator, dtype=torch.float64)
    mean, gain, shift = monotone(center + spread * noise[0], goal_center + goal_spread * noise[1])
    np.testing.assert_allclose(gain + 1, goal_spread / spread, rtol=0.02)
    np.testing.assert_allclose(mean + shift, goal_center, atol=0.05)
    np.testing.assert_allclose(mean, center, atol=0.05)


def test_a_constant_unit_is_only_shifted() -> None:
    mean, gain, shift = monotone(torch.full((3, 1), 2.0), torch.tensor([[1.0], [2.0], [6.0]]))
    assert (mean.item(), gain.item(), shift.item()) == (2.0, 0.0, 1.0)


def test_transport_moves_one_mean_onto_the_other(
    tiny_model: DiffusionModel, recorded: Recorded, annotations: Annotations, h: Tensor
) -> None:
    examples = extremes(annotations, "green", 8)
    plus, minus = (rows_of(annotations, seeds) for seeds in (examples.plus, examples.minus))
    up = transport(tiny_model, recorded, annotations, "green", k=8)
    down = transport(tiny_model, recorded, annotations, "green", k=8, towards="least")
    for operator, source, goal in ((up, minus, plus), (down, plus, minus)):
        for step, points in enumerate(h):
            moved, half = (each(step, points[source]) for each in (operator, 0.5 * operator))
            torch.testing.assert_close(moved.mean(0), points[goal].mean(0), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(half, (points[source] + moved) / 2, atol=1e-5, rtol=1e-5)


def test_a_record_that_is_wrong_is_refused(operator: Operator, tmp_path: Path) -> None:
    operator.save(tmp_path / "good.safetensors")
    tensors = load_file(tmp_path / "good.safetensors")
    with safe_open(tmp_path / "good.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["hspace"])
    wrong = [
        ({"kind": "rotate"}, {}, "kind must be"),
        ({"one_sided": "yes"}, {}, "one_sided must be true or false"),
        ({"names": ["a", "b"]}, {}, "names must be one name"),
        ({}, {"mean": None}, "must hold the tensors"),
        ({}, {"extra": torch.ones(1)}, "must hold the tensors"),
        ({}, {"mean": tensors["mean"].double()}, "mean must be float32"),
        ({}, {"mean": tensors["mean"][:, :1]}, "must be"),
        ({}, {"mean": torch.full_like(tensors["mean"], torch.nan)}, "mean must be finite"),
    ]
    for number, (changed, other, message) in enumerate(wrong):
        path = tmp_path / f"bad{number}.safetensors"
        kept = {name: tensor.contiguous() for name, tensor in (tensors | other).items() if tensor is not None}
        save_file(kept, path, metadata={"hspace": json.dumps(facts | changed)})
        with pytest.raises(InputError, match=message) as error:
            Operator.load(path)
        assert "\n" not in str(error.value)


def test_strengths_and_components_beyond_an_operators_are_refused(operator: Operator) -> None:
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
            _ = strength * operator
    with pytest.raises(InputError, match="components must be 0"):
        operator.select([1])
    assert operator.select([0]) is operator


def test_an_operator_of_another_model_is_refused(tiny_model: DiffusionModel, operator: Operator) -> None:
    elsewhere = replace(operator.meta.provenance, tap=("before",))
    other = replace(operator, meta=replace(operator.meta, provenance=elsewhere))
    with pytest.raises(InputError, match="the operators do not fit: tap"):
        operate(tiny_model, tiny_model.latents([7]), other, strengths=[1.0])
    allowed = other.fit(tiny_model, allow=("tap",))
    assert allowed.meta.differences and allowed.meta.provenance.tap == operator.meta.provenance.tap


def test_samples_that_differ_are_refused(tiny_model: DiffusionModel, annotations: Annotations, tmp_path: Path) -> None:
    other = collect(tiny_model, range(1, 41), tmp_path / "h.npy")
    with pytest.raises(InputError, match="same samples"):
        erase(tiny_model, other, annotations, "green")


FITS: dict[str, Callable[..., object]] = {
    "erase": erase,
    "switch": partial(switch, k=8),
    "transport": partial(transport, k=8),
    "regression": regression,
}


@pytest.mark.parametrize("name", FITS)
def test_h_and_scores_must_belong_together(
    name: str,
    tiny_model: DiffusionModel,
    recorded: Recorded,
    annotations: Annotations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit = FITS[name]
    tap = replace(recorded, provenance=replace(recorded.provenance, tap=("before",)))
    with pytest.raises(InputError, match="the recorded samples do not fit: tap"):
        fit(tiny_model, tap, annotations, "green")
    still = replace(recorded, provenance=replace(recorded.provenance, eta=(0.0,) * 3))
    with pytest.raises(InputError, match="the recorded samples do not fit: eta"):
        fit(tiny_model, still, annotations, "green")
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(InputError, match="together by one process, got 2"):
        fit(tiny_model, recorded, annotations, "green")


@pytest.mark.parametrize("share", [2.0, 1.0, 0.5])
def test_groups_on_one_side_of_the_neutral_point_cannot_change_places(share: float) -> None:
    points = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = points - points.mean(0)
    with pytest.raises(InputError, match="lie on one line with the neutral point"):
        exchange(points, torch.stack([points[0], share * points[0]]))
    left, right = exchange(points, torch.stack([points[0], -points[0]]))
    torch.testing.assert_close(points[0] - (points[0] @ right[0]) * left[0], -points[0])


def test_an_operator_of_another_shape_is_refused_wherever_it_is_applied(
    tiny_model: DiffusionModel, operator: Operator
) -> None:
    parts = {name: tensor[..., :1] for name, tensor in operator.tensors().items()}
    other = replace(operator, **parts)
    message = "the operator does not fit: shape is"
    with pytest.raises(InputError, match=message):
        other.fit(tiny_model)
    with pytest.raises(InputError, match=message):
        apply_changes(tiny_model, tiny_model.latents([7]), [operator, other])


def test_the_cost_of_an_operator_is_that_of_the_h_that_the_decoder_gets(
    tiny_model: DiffusionModel, recorded: Recorded, operator: Operator
) -> None:
    gaussian, seeds = fit_gaussian(recorded, 5), [2_000_000, 2_000_001]
    nothing = off_manifold(tiny_model, operator, gaussian, seeds, component=0, strength=0.0)
    assert not nothing.any()
    cost = off_manifold(tiny_model, operator, gaussian, seeds, component=0, strength=1.0)
    first = trajectories(tiny_model, tiny_model.latents(seeds), Sampler())
    edited = first.clone()
    edited[:, 0] = operator(0, first[:, 0])
    expected = gaussian.distance(edited)[:, 0] - gaussian.distance(first)[:, 0]
    torch.testing.assert_close(cost[:, 0], expected, atol=1e-4, rtol=1e-3)
