"""Movements of x_t by the geometry of h, against closed forms and the sampler."""

import math

import pytest
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.pullback import sample_at
from hspace.edits.paths import geodesic, moved, onwards, shortest_path
from hspace.types import InputError


def sphere(x: Tensor) -> Tensor:
    """Latitude and longitude, (points, 2), as places on a sphere."""
    latitude, longitude = x.unbind(1)
    return torch.stack(
        [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=1
    )  # fmt: skip


def test_the_shortest_path_on_a_sphere_is_a_great_circle() -> None:
    start, end = torch.tensor([0.6, 0.0]), torch.tensor([0.6, 2.0])
    found = shortest_path(sphere, start, end, points=9, updates=60)
    places = sphere(found.points)
    angle = math.acos(float(places[0] @ places[-1]))
    # Eight chords of equal angles.
    assert found.length == pytest.approx(16 * math.sin(angle / 16), rel=1e-4)
    assert found.energy[-1] == pytest.approx(8 * (2 * math.sin(angle / 16)) ** 2, rel=1e-4)
    normal = torch.linalg.cross(places[0], places[-1])
    assert (places @ normal).abs().max() < 0.01 and found.length < 0.95 * found.straight
    assert all(later <= earlier + 1e-6 for earlier, later in zip(found.energy, found.energy[1:], strict=False))


def test_where_h_is_linear_the_straight_line_is_shortest() -> None:
    matrix = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    start, end = torch.zeros(3), torch.tensor([1.0, -2.0, 0.5])
    found = shortest_path(lambda x: x @ matrix.T, start, end, points=5, updates=5)
    torch.testing.assert_close(found.points, torch.linspace(0, 1, 5)[:, None] * end, atol=1e-4, rtol=1e-4)
    assert found.length == pytest.approx(found.straight, rel=1e-5)


def test_a_geodesic_of_the_model_joins_its_samples_and_is_shorter_in_h(tiny_model: DiffusionModel) -> None:
    ends = tiny_model.latents([1, 2])
    found = geodesic(tiny_model, ends, step=1, points=4, updates=5)
    torch.testing.assert_close(found.points[[0, -1]], sample_at(tiny_model, ends, 1))
    h = tiny_model.denoiser.encode(found.points, tiny_model.process.timesteps[1]).h
    assert found.length == pytest.approx(float((h[1:] - h[:-1]).flatten(1).norm(dim=1).sum()), rel=1e-4)
    assert found.length < found.straight and found.energy[-1] < found.energy[0]


def test_x_t_moves_by_the_difference_of_two_predictions(tiny_model: DiffusionModel) -> None:
    x_t = sample_at(tiny_model, tiny_model.latents([1, 2]), 1)
    v = torch.randn(tiny_model.sample_shape, generator=torch.Generator().manual_seed(0))
    t, process = tiny_model.process.timesteps[1], tiny_model.process

    def eps(x: Tensor) -> Tensor:
        encoded = tiny_model.denoiser.encode(x, t)
        return process.to_eps(tiny_model.denoiser.decode(encoded.h, encoded), x, t)

    expected = x_t + 0.7 * (eps(x_t + 2 * v / v.norm()) - eps(x_t))
    torch.testing.assert_close(moved(tiny_model, x_t, 3 * v, step=1, strength=0.7, probe=2.0), expected)
    assert torch.equal(moved(tiny_model, x_t, v, step=1, strength=0.0), x_t)


def test_going_on_is_sampling_without_noise(tiny_model: DiffusionModel) -> None:
    latents, still = tiny_model.latents([1, 2]), Sampler(eta=0.0)
    whole = sample(tiny_model, latents, sampler=still).x_0
    for step in range(len(tiny_model.process.timesteps)):
        torch.testing.assert_close(onwards(tiny_model, sample_at(tiny_model, latents, step, still), step=step), whole)


def test_what_cannot_be_moved_or_joined_is_refused(tiny_model: DiffusionModel) -> None:
    with pytest.raises(InputError, match="joins two samples, got 1"):
        geodesic(tiny_model, tiny_model.latents([1]), step=0)
    steps = len(tiny_model.process.timesteps)
    with pytest.raises(InputError, match=f"step must be from 0 to {steps - 1}, got {steps}"):
        geodesic(tiny_model, tiny_model.latents([1, 2]), step=steps)
    with pytest.raises(InputError, match="3 points or more and 1 update or more, got 2 and 5"):
        geodesic(tiny_model, tiny_model.latents([1, 2]), step=0, points=2, updates=5)
    with pytest.raises(InputError, match="must not be zero"):
        x_t = tiny_model.latents([1]).x_T
        moved(tiny_model, x_t, torch.zeros(tiny_model.sample_shape), step=0, strength=1.0)
