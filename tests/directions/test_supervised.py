"""Directions from examples, on a real (tiny) model: eq. 11, linear boundaries against scikit-learn, explicit pairs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, annotate, extremes
from hspace.directions.boundary import boundary
from hspace.directions.record import Directions
from hspace.directions.supervised import from_pairs, supervised
from hspace.edits.sums import edit
from hspace.types import InputError

ETA = [1.0, 0.5, 0.0]


class ColorScorer:
    """Reads colours off images: `red` is the chance of an unusually red one, `light` the mean."""

    id = "colors"
    attributes: tuple[str, ...] = ("red", "light")
    binary: tuple[bool, ...] = (True, False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        red, _, blue = images.mean(dim=(2, 3)).unbind(1)
        return torch.stack([(2 * (red - blue - 2.85)).sigmoid(), images.mean(dim=(1, 2, 3))], 1)

    def visible(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


@pytest.fixture(scope="module")
def annotations(tiny_model: DiffusionModel) -> Annotations:
    return annotate(tiny_model, range(48), ColorScorer(), sampler=Sampler(eta=ETA))


def codes(model: DiffusionModel, seeds: tuple[int, ...], space: str = "h") -> torch.Tensor:
    latents = model.latents(seeds)
    h = latents.x_T if space == "x_T" else sample(model, latents, sampler=Sampler(eta=ETA), record_h=True).h
    assert h is not None
    return h.double()


@pytest.mark.parametrize("space", ["h", "x_T"])
@pytest.mark.parametrize("attribute", ["red", "light"])
def test_direction_is_the_mean_difference(
    tiny_model: DiffusionModel, annotations: Annotations, attribute: str, space: str
) -> None:
    ours = supervised(tiny_model, annotations, attribute, k=10, space=space, batch_size=7)
    examples = extremes(annotations, attribute, 10)
    expected = (codes(tiny_model, examples.plus, space) - codes(tiny_model, examples.minus, space)).mean(0)
    assert (ours.directions[0] - expected).abs().max() < 1e-4 * expected.abs().max()
    ours.check(tiny_model)
    meta = ours.meta
    assert (meta.names, meta.unit, meta.space) == ((attribute,), "difference", space)
    assert meta.method == "supervised, annotated by colors" and meta.annotator == annotations.provenance.annotator
    assert meta.eta == tuple(ETA) and meta.seeds == tuple(range(48))


@pytest.mark.parametrize("find", [supervised, boundary])
def test_the_edit_moves_the_attribute_of_other_samples(
    tiny_model: DiffusionModel, annotations: Annotations, find: Callable[..., Directions]
) -> None:
    # What an untrained network draws depends on x_T and hardly on h.
    direction = find(tiny_model, annotations, "light", k=16, space="x_T")
    others = tiny_model.latents(range(100, 116))
    images = edit(tiny_model, others, direction, component=0, strengths=[-1, 0, 1], sampler=Sampler(eta=ETA))
    low, middle, high = images.mean(dim=(2, 3, 4)).mean(0).tolist()
    spread = float(annotations.scores[:, 1].std())
    assert low < middle - spread / 2 and high > middle + spread / 2


def test_matching_is_said(tiny_model: DiffusionModel, annotations: Annotations) -> None:
    examples = extremes(annotations, "light", 4, match=["red"])
    expected = (codes(tiny_model, examples.plus) - codes(tiny_model, examples.minus)).mean(0)
    ours = supervised(tiny_model, annotations, "light", k=4, match=["red"])
    assert (ours.directions[0] - expected).abs().max() < 1e-4 * expected.abs().max()
    assert ours.meta.method == "supervised, alike in red, annotated by colors"


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(("classifier", "reference"), [("logistic", LogisticRegression), ("svm", LinearSVC)])
def test_boundary_is_sklearns_normal_from_mean_to_mean(
    tiny_model: DiffusionModel, annotations: Annotations, classifier: str, reference: type, joint: bool
) -> None:
    ours = boundary(tiny_model, annotations, "light", k=12, classifier=classifier, joint=joint)
    examples = extremes(annotations, "light", 12)
    plus, minus = codes(tiny_model, examples.plus), codes(tiny_model, examples.minus)
    labels = np.repeat([1, 0], 12)
    steps = [slice(0, 3)] if joint else [slice(i, i + 1) for i in range(3)]
    for step in steps:
        points = torch.cat([plus, minus])[:, step].flatten(1)
        fitted = reference(tol=1e-8, max_iter=100_000).fit((points - points.mean(0)).numpy(), labels)
        assert fitted.score((points - points.mean(0)).numpy(), labels) == 1
        normal, v = torch.from_numpy(fitted.coef_[0]), ours.directions[0, step].double().flatten()
        assert v @ normal / (v.norm() * normal.norm()) > 1 - 1e-3
        gap = (plus - minus)[:, step].flatten(1).mean(0)
        assert abs(float(v @ gap / v.square().sum()) - 1) < 1e-4
    assert ours.meta.method == f"boundary {classifier}{joint * ' joint'}, annotated by colors"
    assert ours.meta.unit == "difference"


def test_boundary_in_x_T(tiny_model: DiffusionModel, annotations: Annotations) -> None:
    ours = boundary(tiny_model, annotations, "red", k=10, space="x_T")
    ours.check(tiny_model)
    assert ours.directions.shape == (1, 3, 16, 16) and ours.norms().min() > 0


def test_pairs_are_matched_by_id(tiny_model: DiffusionModel) -> None:
    h = codes(tiny_model, tuple(range(6))).float()
    plus, minus = {"ann": h[0], "bo": h[1], "cy": h[2]}, {"cy": h[3], "ann": h[4], "bo": h[5]}
    ours = from_pairs(tiny_model, plus, minus, name="smile", eta=0.0, seeds=range(6))
    expected = (h[0] - h[4] + h[1] - h[5] + h[2] - h[3]) / 3
    assert (ours.directions[0] - expected).abs().max() < 1e-6
    assert (ours.meta.method, ours.meta.names, ours.meta.eta) == ("pairs", ("smile",), (0.0, 0.0, 0.0))
    ours.check(tiny_model)


def test_bad_pairs_are_named(tiny_model: DiffusionModel) -> None:
    h = torch.zeros(3, *tiny_model.h_shape)
    with pytest.raises(InputError, match="missing one: bo, cy"):
        from_pairs(tiny_model, {"ann": h, "bo": h}, {"ann": h, "cy": h}, name="smile", eta=0.0)
    with pytest.raises(InputError, match="missing one: all"):
        from_pairs(tiny_model, {}, {}, name="smile", eta=0.0)
    with pytest.raises(InputError, match=r"h of pair 'ann' must be \(3, 16, 8, 8\) for this model, got \(2,"):
        from_pairs(tiny_model, {"ann": h[:2]}, {"ann": h}, name="smile", eta=0.0)


def test_bad_choices(tiny_model: DiffusionModel, annotations: Annotations) -> None:
    with pytest.raises(InputError, match="25 examples on each side need 50 samples, 48 show light"):
        supervised(tiny_model, annotations, "light", k=25)
    with pytest.raises(InputError, match="space must be h or x_T, got z"):
        supervised(tiny_model, annotations, "light", k=2, space="z")
    with pytest.raises(InputError, match="classifier must be one of logistic, svm, got tree"):
        boundary(tiny_model, annotations, "light", k=2, classifier="tree")
