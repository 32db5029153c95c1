"""The portraits: exact labels, stated correlations, regions that agree with the picture, any resolution."""

import math
from itertools import pairwise

import pytest
import torch

from hspace.worlds.portraits.faces import (
    ATTRIBUTES,
    EXPRESSION,
    FEATURES,
    JUDGED,
    PORTRAITS,
    REGIONS,
    region_masks,
    render,
    resample_expression,
    resample_looks,
    resample_scene,
    sample_factors,
    visibility,
)
from hspace.worlds.portraits.painter import Painter

N = 20_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(factors: dict[str, torch.Tensor], first: str, second: str) -> float:
    return torch.corrcoef(torch.stack([factors[first], factors[second]]))[0, 1].item()


@pytest.mark.parametrize(
    ("first", "second", "sign"),
    [("glasses", "age", 1), ("glasses", "gender", 1), ("hat", "gender", 1), ("smile", "gender", -1)],
)
def test_the_stated_correlations_hold(first: str, second: str, sign: int) -> None:
    assert sign * correlation(sample_factors(generator(), N), first, second) >= 0.3
    assert abs(correlation(sample_factors(generator(), N, correlated=False), first, second)) < 4 / math.sqrt(N)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.id)
def test_marginals_are_the_same_with_and_without_correlations_and_as_stated(attribute) -> None:
    joint = sample_factors(generator(), N)[attribute.id]
    independent = sample_factors(generator(1), N, correlated=False)[attribute.id]
    assert joint.min() >= attribute.low and joint.max() <= attribute.high
    quantiles = torch.linspace(0.05, 0.95, 10)
    spread = attribute.high - attribute.low
    if attribute.kind == "binary":
        stated = float(attribute.marginal.removeprefix("Bernoulli(").removesuffix(")"))
        assert abs(joint.mean() - stated) < 0.015 and abs(independent.mean() - stated) < 0.015
    else:
        assert (joint.quantile(quantiles) - independent.quantile(quantiles)).abs().max() < 0.04 * spread


def test_factors_depend_on_the_generator_alone() -> None:
    first, again, other = (sample_factors(generator(seed), 8) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["yaw"], other["yaw"])


def test_another_scene_keeps_the_person() -> None:
    people = sample_factors(generator(), 64)
    scene = resample_scene(people, generator(1))
    for attribute in ATTRIBUTES:
        same = torch.equal(people[attribute.id], scene[attribute.id])
        assert same == (attribute.owner == "person"), attribute.id


def test_another_expression_keeps_the_rest_and_the_distribution() -> None:
    portraits = sample_factors(generator(), N)
    others = resample_expression(portraits, generator(1))
    for attribute in ATTRIBUTES:
        same = torch.equal(portraits[attribute.id], others[attribute.id])
        assert same == (attribute.id not in EXPRESSION), attribute.id
    for name in EXPRESSION:
        assert abs(float(portraits[name].mean() - others[name].mean())) < 0.02, name
        for tied in ("gender", "age"):
            assert abs(correlation(portraits, name, tied) - correlation(others, name, tied)) < 0.03, (name, tied)
    # What goes with neither gender presentation nor age is drawn anew.
    assert abs(correlation({"brow": portraits["brow"], "other": others["brow"]}, "brow", "other")) < 0.03


@pytest.mark.parametrize("size", [17, 32, 64])
def test_images_have_the_asked_size_and_range_and_do_not_depend_on_the_batch(size: int) -> None:
    factors = sample_factors(generator(), 5)
    images = render(factors, size)
    assert images.shape == (5, 3, size, size)
    assert images.min() >= -1 and images.max() <= 1
    alone = render({name: value[3:4] for name, value in factors.items()}, size)
    assert (images[3:4] - alone).abs().max() < 1e-5


def test_resolutions_show_the_same_portrait() -> None:
    factors = sample_factors(generator(), 16)
    coarse = render(factors, 32)
    fine = torch.nn.functional.avg_pool2d(render(factors, 128), 4)
    assert (coarse - fine).abs().mean() < 0.02


@pytest.mark.parametrize("attribute", JUDGED, ids=lambda attribute: attribute.id)
def test_every_judged_attribute_changes_the_picture_where_it_is_visible(attribute) -> None:
    factors = sample_factors(generator(), 64, correlated=False)
    seen = visibility(factors)[:, JUDGED.index(attribute)]
    low, high = (
        render(factors | {attribute.id: torch.full((64,), value)}, 32) for value in (attribute.low, attribute.high)
    )
    assert ((low - high).abs().amax(dim=(1, 2, 3))[seen] > 0.15).all()


def test_labels_are_the_factors_in_the_order_of_the_table() -> None:
    factors = sample_factors(generator(), 4)
    assert PORTRAITS.labels(factors).shape == (4, len(JUDGED)) == visibility(factors).shape
    assert torch.equal(PORTRAITS.labels(factors)[:, [a.id for a in JUDGED].index("yaw")], factors["yaw"])


def test_regions_are_where_their_part_is_painted() -> None:
    factors = sample_factors(generator(), 32, correlated=False)
    masks = region_masks(factors, 64)
    assert tuple(masks) == REGIONS and all(mask.dtype == torch.bool for mask in masks.values())
    for part in ("hat", "glasses"):
        without = render(factors | {part: torch.zeros(32)}, 64)
        changed = (render(factors, 64) - without).abs().amax(1) > 0.05
        assert torch.equal(masks[part].any(dim=(1, 2)), factors[part] > 0)
        assert (masks[part] & ~changed).float().mean() < 0.005
    for part in ("eyes", "brows", "mouth", "nose"):
        assert not (masks[part] & ~masks["face"]).any()
    for first in ("hair", "hat", "glasses", "face"):
        for second in ("hair", "hat", "glasses", "face"):
            assert first == second or not (masks[first] & masks[second]).any()


def test_the_mouth_region_holds_the_change_of_a_smile() -> None:
    factors = sample_factors(generator(), 16, correlated=False)
    frown, smile = factors | {"smile": torch.full((16,), -0.8)}, factors | {"smile": torch.full((16,), 0.8)}
    change = (render(frown, 64) - render(smile, 64)).abs().sum(1)
    region = region_masks(frown, 64)["mouth"] | region_masks(smile, 64)["mouth"]
    assert (change * region).sum() / change.sum() > 0.85


def amount(name: str, value: float, factors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return factors | {name: torch.full_like(factors[name], value)}


@pytest.mark.parametrize(
    ("attribute", "region"), [("mouth", "mouth"), ("eyes", "eyes"), ("hair_length", "hair"), ("face_width", "face")]
)
def test_a_part_grows_with_its_factor(attribute: str, region: str) -> None:
    factors = amount("glasses", 0.0, amount("hat", 0.0, sample_factors(generator(), 16, correlated=False)))
    sizes = [region_masks(amount(attribute, value, factors), 64)[region].sum((1, 2)) for value in (0.0, 0.3, 0.6, 1.0)]
    assert all((more >= less).all() for less, more in pairwise(sizes))
    assert (sizes[-1] > 1.05 * sizes[0]).all()


def test_dark_skin_is_darker_and_old_hair_greyer() -> None:
    factors = amount("glasses", 0.0, amount("hat", 0.0, sample_factors(generator(), 16, correlated=False)))
    factors = amount("age", 0.2, factors)
    masks = region_masks(factors, 64)

    def mean(images: torch.Tensor, region: str) -> torch.Tensor:
        mask = masks[region][:, None]
        return (images * mask).sum((2, 3)) / mask.sum((2, 3))

    brightness = [mean(render(amount("skin", value, factors), 64), "face").mean(1) for value in (0.0, 0.35, 0.7, 1.0)]
    assert all((darker < lighter).all() for lighter, darker in pairwise(brightness))
    fair = amount("hair_color", 0.8, factors)
    colors = [mean(render(amount("age", value, fair), 64), "hair") for value in (0.4, 0.6, 0.75, 0.95)]
    chroma = [color.amax(1) - color.amin(1) for color in colors]
    assert all((greyer < before).all() for before, greyer in pairwise(chroma))


def test_regions_agree_at_all_sizes() -> None:
    factors = sample_factors(generator(), 8, correlated=False)
    coarse, fine = region_masks(factors, 64), region_masks(factors, 128)
    for region in REGIONS:
        pooled = torch.nn.functional.avg_pool2d(fine[region][:, None].float(), 2)[:, 0] > 0.5
        assert (pooled ^ coarse[region]).float().mean() < 0.01, region


@pytest.mark.parametrize("name", ["background", "backdrop", "bokeh", "scatter"])
def test_the_background_is_behind_the_person_and_nowhere_else(name: str) -> None:
    factors = amount("bokeh", 1.0, sample_factors(generator(), 8, correlated=False))
    change = (render(amount(name, 0.0, factors), 64) - render(amount(name, 0.4, factors), 64)).abs().amax(1)
    masks = region_masks(factors, 64)
    person = masks["face"] | masks["hair"] | masks["hat"] | masks["glasses"]
    inside = person & (torch.nn.functional.avg_pool2d(person[:, None].float(), 5, stride=1, padding=2)[:, 0] > 0.999)
    assert change[inside].max() < 1e-5
    assert (change.amax((1, 2)) > 0.05).all()


@pytest.mark.parametrize("name", ["smile", "age", "hair_color", "hair_length", "glasses", "hat", "yaw", "face_width"])
def test_the_corners_show_the_background_alone(name: str) -> None:
    factors = sample_factors(generator(), 8, correlated=False)
    change = (render(amount(name, 0.0, factors), 64) - render(amount(name, 1.0, factors), 64)).abs()
    assert change[:, :, :14, :8].max() == 0 == change[:, :, :14, -8:].max()


def test_other_looks_keep_the_features_alone() -> None:
    people = sample_factors(generator(), 64)
    others = resample_looks(people, generator(1))
    for attribute in ATTRIBUTES:
        assert torch.equal(people[attribute.id], others[attribute.id]) == (attribute.id in FEATURES), attribute.id
    assert not any(attribute.judged for attribute in ATTRIBUTES if attribute.id in FEATURES)


def test_brows_and_lenses_are_in_line_with_the_eyes() -> None:
    p = Painter(sample_factors(generator(), 8), 16)
    for (side, x, _, squeeze), (other, brow_x, _, brow_squeeze) in zip(p.eye_centres(), p.at_eyes(0.4), strict=True):
        assert side == other and torch.equal(x, brow_x) and torch.equal(squeeze, brow_squeeze)
