"""The rooms: exact labels, stated correlations, light that falls where it should, any resolution."""

import math

import pytest
import torch

from hspace.worlds.rooms.geometry import DEEP, Camera, Surface
from hspace.worlds.rooms.light import CROSSBAR, MIDDLE, RISE, cross
from hspace.worlds.rooms.painter import Room
from hspace.worlds.rooms.rooms import (
    ATTRIBUTES,
    HOUR,
    JUDGED,
    REGIONS,
    ROOMS,
    region_masks,
    render,
    resample_hour,
    resample_scene,
    sample_factors,
    visibility,
)

N = 20_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rooms(n: int, seed: int = 0, **fixed: float) -> dict[str, torch.Tensor]:
    factors = sample_factors(generator(seed), n, correlated=False)
    return factors | {name: torch.full((n,), value) for name, value in fixed.items()}


def correlation(factors: dict[str, torch.Tensor], first: str, second: str) -> float:
    return torch.corrcoef(torch.stack([factors[first], factors[second]]))[0, 1].item()


@pytest.mark.parametrize(("first", "second"), [("lamp", "night"), ("plant", "window"), ("picture", "bed")])
def test_the_stated_correlations_hold(first: str, second: str) -> None:
    assert correlation(sample_factors(generator(), N), first, second) >= 0.3
    assert abs(correlation(sample_factors(generator(), N, correlated=False), first, second)) < 4 / math.sqrt(N)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.id)
def test_marginals_are_the_same_with_and_without_correlations_and_as_stated(attribute) -> None:
    joint = sample_factors(generator(), N)[attribute.id]
    independent = sample_factors(generator(1), N, correlated=False)[attribute.id]
    assert joint.min() >= attribute.low and joint.max() <= attribute.high
    if attribute.kind == "binary":
        stated = float(attribute.marginal.removeprefix("Bernoulli(").removesuffix(")"))
        assert abs(joint.mean() - stated) < 0.015 and abs(independent.mean() - stated) < 0.015
    else:
        middle, spread = (attribute.low + attribute.high) / 2, (attribute.high - attribute.low) / math.sqrt(12)
        assert abs(joint.mean() - middle) < 0.03 and abs(joint.std() - spread) < 0.02


@pytest.mark.parametrize("size", [17, 64])
def test_images_have_the_asked_size_and_range_and_do_not_depend_on_the_batch(size: int) -> None:
    factors = sample_factors(generator(), 5)
    images = render(factors, size)
    assert images.shape == (5, 3, size, size)
    assert images.min() >= -1 and images.max() <= 1
    alone = render({name: value[3:4] for name, value in factors.items()}, size)
    assert (images[3:4] - alone).abs().max() < 1e-4


def test_resolutions_show_the_same_room() -> None:
    factors = sample_factors(generator(), 6)
    fine = torch.nn.functional.avg_pool2d(render(factors, 128), 2)
    assert (render(factors, 64) - fine).abs().mean() < 0.02


@pytest.mark.parametrize("attribute", JUDGED, ids=lambda attribute: attribute.id)
def test_every_judged_attribute_changes_the_picture_where_it_is_visible(attribute) -> None:
    factors = sample_factors(generator(), 12, correlated=False)
    seen = visibility(factors)[:, JUDGED.index(attribute)]
    low, high = (
        render(factors | {attribute.id: torch.full((12,), value)}, 32) for value in (attribute.low, attribute.high)
    )
    assert seen.any() and ((low - high).abs().amax(dim=(1, 2, 3))[seen] > 0.1).all()


def test_another_hour_keeps_the_room_and_the_correlation_of_lamp_and_night() -> None:
    factors = sample_factors(generator(), N)
    others = resample_hour(factors, generator(1))
    for attribute in ATTRIBUTES:
        assert torch.equal(factors[attribute.id], others[attribute.id]) == (attribute.id not in HOUR)
    assert abs(correlation(factors, "lamp", "night") - correlation(others, "lamp", "night")) < 0.03


def test_labels_are_the_factors_in_the_order_of_the_table_and_hidden_ones_are_said() -> None:
    factors = rooms(4, night=1.0, lamp=0.0)
    assert ROOMS.labels(factors).shape == (4, len(JUDGED)) == visibility(factors).shape
    assert torch.equal(ROOMS.labels(factors)[:, [a.id for a in JUDGED].index("yaw")], factors["yaw"])
    hidden = {JUDGED[j].id for j in range(len(JUDGED)) if not visibility(factors)[:, j].any()}
    assert hidden == {"sun", "wall", "blanket"}


def test_night_is_dark_and_the_lamp_lights_its_surroundings_with_warm_light() -> None:
    night, lit = (render(rooms(6, night=1.0, lamp=on), 64) for on in (0.0, 1.0))
    day = render(rooms(6, night=0.0, lamp=0.0), 64)
    assert (day.mean((1, 2, 3)) > night.mean((1, 2, 3)) + 0.3).all()
    gain = (lit - night).mean((2, 3))
    assert (gain[:, 0] > gain[:, 2] + 0.02).all() and (lit >= night - 1e-3).all()


def test_the_sun_falls_to_the_left_as_its_factor_grows() -> None:
    factors = rooms(4, night=0.0, lamp=0.0, yaw=0.0, plant=0.0, window=0.8)
    columns = torch.linspace(-1, 1, 64)
    centres = []
    for sun in (-0.6, 0.0, 0.6):
        other = render(factors | {"sun": torch.full((4,), sun)}, 64)
        dark = render(factors | {"sun": torch.full((4,), sun), "night": torch.ones(4)}, 64)
        floor = (other - dark)[:, :, 48:].amax(1).clamp(min=0) ** 4
        centres.append((floor * columns).sum((1, 2)) / floor.sum((1, 2)))
    assert (centres[0] > centres[1]).all() and (centres[1] > centres[2]).all()


def test_a_camera_sees_a_point_along_the_ray_of_its_pixel() -> None:
    camera = Camera.of(torch.tensor([-0.7, 0.4])[:, None, None], torch.tensor([0.1, 0.9])[:, None, None])
    x, y = torch.tensor([[[-0.8, 0.0, 0.5]]]), torch.tensor([[[0.3]]])
    right, up, ahead = camera.rays(x, y)
    depth = (DEEP - camera.z) / ahead
    seen_x, seen_y, scale = camera.project(camera.x + depth * right, camera.y + depth * up, camera.z + depth * ahead)
    assert (seen_x - x).abs().max() < 1e-5 and (seen_y - y).abs().max() < 1e-5
    right_x, right_z = 0.01 * camera.angle.cos(), -0.01 * camera.angle.sin()
    moved, _, _ = camera.project(camera.x + depth * right + right_x, camera.y, camera.z + depth * ahead + right_z)
    assert ((moved - seen_x) / 0.01 - scale).abs().max() < 1e-3


def test_no_window_of_the_image_cuts_what_is_painted_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = rooms(8, picture=1.0, plant=1.0)
    images = render(factors, 48)
    monkeypatch.setattr(Room, "near", lambda room, corners, towards=None: room.crop(-1, 1, -1, 1))
    assert (render(factors, 48) - images).abs().max() < 0.02


def test_another_scene_keeps_what_the_room_owns() -> None:
    factors = sample_factors(generator(), 64)
    others = resample_scene(factors, generator(1))
    for attribute in ATTRIBUTES:
        assert torch.equal(factors[attribute.id], others[attribute.id]) == (attribute.owner == "room"), attribute.id


def test_regions_are_where_their_part_is_painted() -> None:
    factors = rooms(8)
    masks = region_masks(factors, 48)
    assert tuple(masks) == REGIONS
    assert torch.stack(list(masks.values())).sum(0).max() == 1
    assert torch.stack(list(masks.values())).sum(0).float().mean() > 0.9
    for part in ("picture", "plant"):
        changed = (render(factors, 48) - render(factors | {part: torch.zeros(8)}, 48)).abs().amax(1) > 0.01
        assert torch.equal(masks[part].any(dim=(1, 2)), factors[part] > 0)
        assert (masks[part] & ~changed).float().mean() < 0.01
    sizes = [region_masks(factors | {"bed": torch.full((8,), value)}, 48)["bed"].sum((1, 2)) for value in (0.0, 1.0)]
    assert (sizes[1] > sizes[0]).all()


def test_the_cross_of_the_window_keeps_the_sun_off_where_it_is_drawn() -> None:
    sun = Room(rooms(1, sun=0.0, night=0.0, window=0.5), 16).light
    ahead = 0.06  # from the window to a surface that faces it
    x = torch.tensor([0.0, 0.2, 0.2])[None, None]
    y = torch.tensor([1.4, 1.4, CROSSBAR])[None, None]
    at = Surface(x + MIDDLE - sun.slope * ahead, y - RISE * ahead, torch.full_like(x, DEEP - ahead), x, (0.0, 0.0, 1.0))
    assert (cross(x, y) < 0).flatten().tolist() == [True, False, True]
    assert (sun._sun(at) > 0).flatten().tolist() == [False, True, False]
