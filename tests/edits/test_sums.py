"""An edit is exactly strength x direction, added in the asked steps, whatever the batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.identity import WEIGHTS, Identity
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.record import Directions, DirectionsMeta
from hspace.edits.sums import Term, apply_offsets, edit, edit_offsets, sequence_offsets, sum_offsets
from hspace.types import InputError


@pytest.fixture(scope="module")
def latents() -> Latents:
    return Latents.from_seeds([5, 6, 7], (3, 16, 16), 3)


def make_directions(model: DiffusionModel, space: str) -> Directions:
    shape = (3, *model.h_shape) if space == "h" else model.sample_shape
    meta = DirectionsMeta(
        space=space,
        provenance=model.provenance(eta=1.0),
        model_id=model.model_id,
        method="random",
        names=("a", "b"),
        unit="unit norm",
    )
    return Directions(torch.randn(2, *shape, generator=torch.Generator().manual_seed(4)), meta)


@pytest.fixture(scope="module")
def directions(tiny_model: DiffusionModel) -> Directions:
    return make_directions(tiny_model, "h")


@pytest.mark.parametrize("injection", ["symmetric", "asyrp"])
def test_edit_is_strength_times_direction(
    tiny_model: DiffusionModel, latents: Latents, directions: Directions, injection: str
) -> None:
    strengths = [-1.5, 0.0, 2.0]
    images = edit(
        tiny_model,
        latents,
        directions,
        component=1,
        strengths=strengths,
        sampler=Sampler(injection=injection, batch_size=3),
    )
    assert tuple(images.shape) == (3, 3, 3, 16, 16)
    for row in range(3):
        delta_h = torch.stack([strength * directions.directions[1] for strength in strengths])
        same_batch = latents.select([row] * 3)
        expected = sample(tiny_model, same_batch, delta_h=delta_h, sampler=Sampler(injection=injection)).x_0
        assert torch.equal(images[row], expected)
        assert torch.equal(images[row, 1], sample(tiny_model, same_batch, sampler=Sampler(injection=injection)).x_0[1])
    assert (images[:, 0] - images[:, 1]).abs().max() > 1e-3


def test_batch_size_hardly_matters(tiny_model: DiffusionModel, latents: Latents, directions: Directions) -> None:
    half = Sampler(eta=0.5)
    options: dict[str, Any] = {"component": 0, "strengths": [-1.0, 1.0]}
    with pytest.raises(InputError, match=r"eta is 1 in the directions, 0.5 here; allow=eta"):
        edit(tiny_model, latents, directions, sampler=half, **options)
    directions = directions.fit(tiny_model, eta=0.5, allow=["eta"])
    reference = edit(tiny_model, latents, directions, sampler=half, **options)
    for batch_size in (1, 4, 5):
        images = edit(tiny_model, latents, directions, sampler=replace(half, batch_size=batch_size), **options)
        assert (images - reference).abs().max() <= 1e-5 * reference.abs().max()


def test_only_the_window_is_edited(tiny_model: DiffusionModel, latents: Latents, directions: Directions) -> None:
    delta_h = torch.zeros(1, 3, *tiny_model.h_shape)
    delta_h[0, 1] = 2.0 * directions.directions[0, 1]
    images = edit(
        tiny_model, latents, directions, component=0, strengths=[2.0], sampler=Sampler(start=1, stop=2, batch_size=3)
    )
    assert torch.equal(images[:, 0], sample(tiny_model, latents, delta_h=delta_h).x_0)


def test_components_add_up(tiny_model: DiffusionModel, directions: Directions) -> None:
    weights = torch.tensor([[1.0, 0.0], [0.0, -2.0], [0.5, 3.0]])
    offsets = edit_offsets(directions, weights, 3)
    first, second = directions.directions
    assert torch.equal(offsets[0], first)
    assert torch.equal(offsets[1], -2.0 * second)
    assert (offsets[2] - (0.5 * first + 3.0 * second)).abs().max() < 1e-5


def test_directions_of_x_T_are_added_to_it(tiny_model: DiffusionModel, latents: Latents) -> None:
    directions = make_directions(tiny_model, "x_T")
    images = edit(tiny_model, latents, directions, component=0, strengths=[0.5], sampler=Sampler(batch_size=3))
    moved = replace(latents, x_T=latents.x_T + 0.5 * directions.directions[0])
    assert torch.equal(images[:, 0], sample(tiny_model, moved).x_0)
    with pytest.raises(InputError, match="an edit of x_T has no steps"):
        edit(tiny_model, latents, directions, component=0, strengths=[0.5], sampler=Sampler(start=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"component": 2}, r"component must be in \[0, 2\), got 2"),
        ({"component": -1}, "got -1"),
        ({"strengths": [float("nan")]}, "a strength must be a number of at most .*, got nan"),
        ({"strengths": [0.0, 1e300]}, r"at most 3.4e\+38 in size, got 1e\+300"),
        ({"strengths": []}, "there must be at least one edit, got 0"),
        ({"sampler": Sampler(start=3)}, "0 <= start < stop <= 3, got 3 to 3"),
        ({"sampler": Sampler(stop=4)}, "got 0 to 4"),
    ],
)
def test_bad_edits(
    tiny_model: DiffusionModel, latents: Latents, directions: Directions, options: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"component": 0, "strengths": [1.0]} | options
    with pytest.raises(InputError, match=message):
        edit(tiny_model, latents, directions, **arguments)


def test_directions_of_another_model_are_refused(
    tiny_model: DiffusionModel, latents: Latents, directions: Directions
) -> None:
    other = replace(tiny_model, identity=Identity({WEIGHTS: "f" * 64}))
    with pytest.raises(InputError, match=r"model is network.tensors"):
        edit(other, latents, directions, component=0, strengths=[1.0])


def test_offsets_of_another_number_of_steps(tiny_model: DiffusionModel, directions: Directions) -> None:
    with pytest.raises(InputError, match="the directions have 3 steps, the model takes 4"):
        edit_offsets(directions, torch.ones(1, 2), 4)
    with pytest.raises(InputError, match="weights must be 2 finite strengths"):
        edit_offsets(directions, torch.ones(1, 3), 3)


def test_terms_add_up_in_their_own_windows(
    tiny_model: DiffusionModel, latents: Latents, directions: Directions
) -> None:
    terms = [Term(directions, 0, 2.0, stop=2), Term(directions, 1, -0.5, start=1), Term(directions, 1, 1.0)]
    a, b = directions.directions
    expected = torch.stack([2 * a[0] + b[0], 2 * a[1] + 0.5 * b[1], 0.5 * b[2]])
    summed = sum_offsets(tiny_model, terms)
    assert summed.shape == (1, 3, *tiny_model.h_shape) and (summed[0] - expected).abs().max() < 1e-5
    sequence = sequence_offsets(tiny_model, terms)
    assert torch.equal(sequence[0], sum_offsets(tiny_model, terms[:1])[0])
    assert (sequence[1] - sum_offsets(tiny_model, terms[:2])[0]).abs().max() < 1e-5
    assert (sequence[2] - summed[0]).abs().max() < 1e-5
    images = apply_offsets(tiny_model, latents, sequence, sampler=Sampler(batch_size=9))
    alone = edit(tiny_model, latents, directions, component=0, strengths=[2.0], sampler=Sampler(stop=2))
    assert (images[:, 0] - alone[:, 0]).abs().max() < 1e-4 * alone.abs().max()
    assert (images[:, 2] - images[:, 1]).abs().max() > 1e-3


def test_terms_of_strength_0_change_nothing(
    tiny_model: DiffusionModel, latents: Latents, directions: Directions
) -> None:
    nothing = sum_offsets(tiny_model, [Term(directions, 0, 0.0), Term(directions, 1, 0.0, start=1)])
    plain = sample(tiny_model, latents).x_0
    for injection in ("symmetric", "asyrp"):
        images = apply_offsets(tiny_model, latents, nothing, sampler=Sampler(injection=injection, batch_size=3))
        assert torch.equal(images[:, 0], plain)


def test_bad_terms(tiny_model: DiffusionModel, directions: Directions) -> None:
    with pytest.raises(InputError, match="of one space, h or x_T, got h and x_T"):
        sum_offsets(tiny_model, [Term(directions, 0, 1.0), Term(make_directions(tiny_model, "x_T"), 0, 1.0)])
    with pytest.raises(InputError, match="of one space, h or x_T, got 0"):
        sequence_offsets(tiny_model, [])
    with pytest.raises(InputError, match=r"component must be in \[0, 2\), got 2"):
        sum_offsets(tiny_model, [Term(directions, 2, 1.0)])
    with pytest.raises(InputError, match="got 2 to 2"):
        sum_offsets(tiny_model, [Term(directions, 0, 1.0, start=2, stop=2)])
    with pytest.raises(InputError, match=r"model is network.tensors"):
        sum_offsets(replace(tiny_model, identity=Identity({WEIGHTS: "f" * 64})), [Term(directions, 0, 1.0)])


def test_several_edits_of_several_components(
    tiny_model: DiffusionModel, latents: Latents, directions: Directions
) -> None:
    offsets = edit_offsets(directions, torch.tensor([[1.0, -1.0]]), 3)
    images = apply_offsets(tiny_model, latents, offsets, sampler=Sampler(batch_size=3))
    assert torch.equal(images[:, 0], sample(tiny_model, latents, delta_h=offsets).x_0)
