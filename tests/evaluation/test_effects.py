"""Edits of a tiny model, read by scorers whose answers are known in advance."""

import math

import pytest
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.directions.record import Directions, DirectionsMeta
from hspace.evaluation.effects import Edits, edit_samples, evaluate
from hspace.metrics.names import Name, name_edits
from hspace.types import InputError

N = 24


class Pixel:
    """Scores of an image are two of its pixels: the first continuous, the second seen where the first is above 0."""

    id = "pixel"
    attributes: tuple[str, ...] = ("first", "second")
    binary: tuple[bool, ...] = (False, True)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 0, 0, 1].sigmoid()], dim=1)

    def visible(self, scores: Tensor) -> Tensor:
        return torch.stack([torch.ones(len(scores), dtype=torch.bool), scores[:, 0] > 0], dim=1)


class Colour:
    """An identity that is the direction of the mean colour."""

    id = "colour"
    dim = 3

    def __call__(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.mean(dim=(2, 3)), dim=1)


def made_edits() -> Edits:
    """Direction 0 moves the first pixel by about the strength, direction 1 does nothing."""
    torch.manual_seed(0)
    original = torch.rand(N, 3, 4, 4)
    strengths = (-2.0, 2.0)
    edited = original.expand(2, 2, N, 3, 4, 4).clone()
    for i, strength in enumerate(strengths):
        edited[0, i, :, 0, 0, 0] += strength * torch.linspace(0.9, 1.1, N)
    return Edits(tuple(range(N)), ("mover", "idler"), strengths, original, edited, original)


def make_directions(model: DiffusionModel, k: int = 2) -> Directions:
    torch.manual_seed(1)
    steps = len(model.process.timesteps)
    meta = DirectionsMeta(
        space="h", provenance=model.provenance(eta=1.0), model_id=model.model_id,
        method="made", names=tuple(f"direction {j}" for j in range(k)), unit="unit norm",
    )  # fmt: skip
    return Directions(torch.randn(k, steps, *model.h_shape), meta)


def test_effects_and_identity_are_those_of_the_edit() -> None:
    edits = made_edits()
    sweep = evaluate(edits, Pixel(), Colour())
    sd = edits.original[:, 0, 0, 0].double().std()
    for strength in edits.strengths:
        effects = sweep.effects(strength)
        assert effects.edits == ("mover", "idler")
        assert effects.effect[0, 0] == pytest.approx(float(strength / sd), rel=1e-5)
        assert effects.effect[1] == pytest.approx([0.0, 0.0], abs=1e-12)
        assert sweep.readings.identity(sweep.row(1, strength)).value == pytest.approx(1.0, abs=1e-6)
        assert sweep.readings.identity(sweep.row(0, strength)).value < 0.999
    # At -2 the first pixel is negative everywhere, and the second is then nowhere visible.
    assert math.isnan(sweep.effects(-2.0).effect[0, 1])
    assert sweep.readings.scorer.id == "pixel" and sweep.strengths == (-2.0, 2.0)


def test_a_direction_is_named_by_the_odd_part_of_its_effect() -> None:
    edits = made_edits()
    edits.edited[1] += 0.3  # the same at both signs: damage, not direction
    sweep = evaluate(edits, Pixel(), Colour())
    halves = [sweep.odd_effects(half) for half in (slice(N // 2), slice(N // 2, None))]
    assert name_edits(*halves) == [Name("first", 1), None] and halves[0].n[0, 0] == N // 2
    one_sided = Edits(edits.seeds, edits.names, (1.0, 2.0), edits.original, edits.edited, edits.original)
    with pytest.raises(InputError, match="both signs"):
        evaluate(one_sided, Pixel(), Colour()).odd_effects()


def test_samples_are_edited_along_every_direction_at_every_strength(tiny_model: DiffusionModel) -> None:
    directions = make_directions(tiny_model)
    edits = edit_samples(tiny_model, directions, range(5), strengths=[-1.0, 0.0, 2.0], sampler=Sampler(batch_size=4))
    assert edits.strengths == (-1.0, 2.0) and edits.names == ("direction 0", "direction 1")
    assert edits.original.shape == (5, 3, 16, 16) and edits.edited.shape == (2, 2, 5, 3, 16, 16)
    change = (edits.edited - edits.original).abs().amax(dim=(3, 4, 5))
    assert (change > 1e-3).all()
    more = edit_samples(
        tiny_model,
        directions.select([1]),
        range(5),
        strengths=[2.0],
        reference_seeds=range(3, 8),
        sampler=Sampler(batch_size=10),
    )
    assert (more.edited[0, 0] - edits.edited[1, 1]).abs().max() < 1e-4
    assert len(more.reference) == 8 and torch.equal(more.reference[:5], more.original)


def test_effects_are_counted_in_the_spread_of_the_reference_samples() -> None:
    edits = made_edits()
    reference = torch.cat([edits.original, torch.rand(100, 3, 4, 4)])
    wide = Edits(edits.seeds, edits.names, edits.strengths, edits.original, edits.edited, reference)
    sweep = evaluate(wide, Pixel(), Colour())
    sd = reference[:, 0, 0, 0].double().std()
    assert sweep.effects(2.0).effect[0, 0] == pytest.approx(float(2 / sd), rel=1e-5)
