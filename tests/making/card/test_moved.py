from dataclasses import replace
from typing import Any

import card.moved
import pytest
import torch
from card.base import Sizes, evaluation_seeds, share
from card.moved import (
    CALIBRATION_MARGIN,
    STRENGTHS,
    Tried,
    choose,
    moved_figures,
    moved_images,
    together,
    try_strengths,
    whitened_difference,
)
from card.subject import SUBJECTS
from colours import Brightness, Colour

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.record import Directions
from hspace.directions.trained import trained
from hspace.directions.whitened import whitened
from hspace.edits.sums import edit
from hspace.types import InputError, Scorer

SIZES = Sizes(annotated=12, examples=2, calibration=10, judged=12, batch_size=16)


@pytest.fixture(scope="module")
def annotations(tiny_model: DiffusionModel) -> Annotations:
    return annotate(tiny_model, range(12), Brightness())


@pytest.fixture(scope="module")
def directions(tiny_model: DiffusionModel, annotations: Annotations) -> Directions:
    found = [whitened_difference(tiny_model, annotations, name, SIZES) for name in ("red", "green")]
    return together([Tried("whitened", each, 1.0, 0.2) for each in found])


def shift(model: DiffusionModel, meta: DirectionsMeta, size: float) -> Directions:
    """An offset of x_T, which surely moves the samples of an untrained model, the more the stronger it is."""
    offset = torch.zeros(1, *model.sample_shape)
    offset[:, 0] = size
    return Directions(offset, replace(meta, space="x_T", names=("red",)))


def test_directions_are_named_after_their_attributes(directions: Directions) -> None:
    assert directions.meta.names == ("red", "green") and directions.meta.unit == "difference"
    assert len(directions.directions) == 2 and not set(directions.meta.seeds) & set(seed_range("calibration", 10))


def test_a_rare_attribute_has_as_many_examples_as_there_are(
    tiny_model: DiffusionModel, annotations: Annotations
) -> None:
    rare = replace(annotations, binary=(True, False), scores=annotations.scores.clone(), logits=None)
    rare.scores[:, 0] = torch.tensor([0.9] * 3 + [0.1] * 9)
    five = replace(SIZES, examples=5)
    found = whitened_difference(tiny_model, rare, "red", five)
    assert found.directions.equal(whitened(tiny_model, rare, "red", k=3, batch_size=SIZES.batch_size).directions)
    with pytest.raises(InputError, match="do not differ in red"):
        whitened(tiny_model, rare, "red", k=5)
    assert whitened_difference(tiny_model, rare, "green", five).directions.isfinite().all()


def test_the_smallest_strength_that_moves_enough_is_found(tiny_model: DiffusionModel, directions: Directions) -> None:
    latents = tiny_model.latents(seed_range("calibration", 10))
    offset = shift(tiny_model, directions.meta, 0.1).directions
    unedited, moved = (
        Brightness()(sample(tiny_model, replace(latents, x_T=latents.x_T + factor * offset)).x_0)[:, 0]
        for factor in (0, 1)
    )
    sign, threshold = float((moved - unedited).mean().sign()), float(unedited.median())
    shifted = shift(tiny_model, directions.meta, sign * 0.1)
    tried = try_strengths(tiny_model, "whitened", shifted, Brightness(), threshold, SIZES)

    def margin(strength: float) -> float:
        images = edit(tiny_model, latents, shifted, component=0, strengths=[-strength, strength])
        before, after = (share(Brightness()(each)[:, 0] > threshold) for each in images.unbind(1))
        return min(0.2 - before, after - 0.8)

    assert tried.passed and tried.margin == pytest.approx(margin(tried.strength), abs=1e-9)
    reached = next(strength for strength in STRENGTHS if margin(strength) >= CALIBRATION_MARGIN)
    below = STRENGTHS[STRENGTHS.index(reached) - 1] if reached > STRENGTHS[0] else reached / 2
    between = [below * (reached / below) ** (i / 4) for i in range(1, 4)]
    assert tried.strength in [pytest.approx(each) for each in (*between, reached)]
    smaller = [each for each in (below, *between) if each < tried.strength * 0.999]
    assert not smaller[1:] or margin(smaller[-1]) < CALIBRATION_MARGIN
    weak = replace(shifted, directions=shifted.directions * 1e-6)
    failed = try_strengths(tiny_model, "whitened", weak, Brightness(), threshold, SIZES)
    assert not failed.passed and failed.strength in STRENGTHS


def test_offsets_are_trained_where_the_difference_does_not_pass(
    tiny_model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[str]()

    def shortly(
        model: DiffusionModel, scorer: Scorer, annotations: Annotations, attribute: str, **_: Any
    ) -> Directions:
        calls.append(attribute)
        return trained(model, scorer, annotations, attribute, updates=2, batch=4)

    monkeypatch.setattr(card.moved, "trained", shortly)
    sizes, subject = replace(SIZES, annotated=24), replace(SUBJECTS["portraits"], trained=("red",))
    # No edit lifts a mean above 10.
    (untrained,) = choose(tiny_model, Brightness(), replace(subject, trained=()), {"red": 10.0}, sizes)
    assert not calls and not untrained.passed and untrained.method == "whitened"
    (failed,) = choose(tiny_model, Brightness(), subject, {"red": 10.0}, sizes)
    assert calls == ["red"] and not failed.passed

    def moving(model: DiffusionModel, annotations: Annotations, attribute: str, **_: Any) -> Directions:
        meta = whitened(model, annotations, attribute, k=2).meta
        return max((shift(model, meta, size) for size in (-0.2, 0.2)), key=lambda each: rise(model, each))

    monkeypatch.setattr(card.moved, "whitened", moving)
    latents = tiny_model.latents(seed_range("calibration", 10))
    threshold = float(Brightness()(sample(tiny_model, latents).x_0)[:, 0].median())
    (passed,) = choose(tiny_model, Brightness(), subject, {"red": threshold}, sizes)
    assert calls == ["red"] and passed.passed and passed.method == "whitened"


def rise(model: DiffusionModel, directions: Directions) -> float:
    """What strength 1 adds to red in the mean."""
    ends = edit(model, model.latents(range(4)), directions, component=0, strengths=[0, 1])
    return float(Brightness()(ends[:, 1] - ends[:, 0])[:, 0].mean())


def test_images_are_moved_both_ways_by_each_direction(tiny_model: DiffusionModel, directions: Directions) -> None:
    original, edited = moved_images(tiny_model, directions, [1.0, 2.0], SIZES)
    assert original.shape == (12, 3, 16, 16) and edited.shape == (2, 2, 12, 3, 16, 16)
    latents = tiny_model.latents(evaluation_seeds(12))
    single = edit(tiny_model, latents, directions, component=1, strengths=[-2, 0, 2]).transpose(0, 1)
    for ours, theirs in ((edited[1, 0], single[0]), (original, single[1]), (edited[1, 1], single[2])):
        assert (ours - theirs).abs().max() < 1e-4


def test_shares_and_identity_are_counted() -> None:
    original = torch.full((12, 3, 2, 2), 0.5)
    original[:3, 1] = -0.5
    edited = torch.stack([-original, original])[None]
    figures = moved_figures(original, edited, Brightness(), {"identity": Colour()}, {"green": 0.0})
    assert figures["green"] == {"unedited": 0.75, "before": 0.25, "after": 0.75, "identity": pytest.approx(0, abs=1e-6)}
