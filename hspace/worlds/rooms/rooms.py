"""Bedrooms whose every image has exact labels.

`sample_factors` draws rooms, `render` paints them. A factor is a (n,) float tensor; the table `ATTRIBUTES` says what
each means. The painting itself is in `shell` and `furniture`.
"""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from hspace.worlds.attributes import (
    Attribute,
    Factors,
    independent_factors,
    judged_of,
    seen_of,
    uniform_factors,
    with_owned,
)
from hspace.worlds.layers import Layer, region_shares
from hspace.worlds.layers import picture as painted
from hspace.worlds.rooms.furniture import bed, lamp, plant, stand
from hspace.worlds.rooms.painter import Room
from hspace.worlds.rooms.shell import picture, walls, window
from hspace.worlds.world import World

CHUNK = 32
"""Rooms painted at a time: many layers are small, so that more of them at once are faster than few in the cache."""
HOUR = ("night", "lamp", "sun", "clouds")
"""What is drawn anew for the same room at another hour."""

ATTRIBUTES = (
    Attribute("night", "binary", 0.0, 1.0, "Bernoulli(.40)", "scene", True, "night"),
    Attribute("lamp", "binary", 0.0, 1.0, "Bernoulli(.39)", "scene", True, "the lamp is on"),
    Attribute("picture", "binary", 0.0, 1.0, "Bernoulli(.55)", "room", True, "a picture over the bed"),
    Attribute("plant", "binary", 0.0, 1.0, "Bernoulli(.50)", "room", True, "a plant in the corner"),
    Attribute("yaw", "continuous", -1.0, 1.0, "U(-1, 1)", "scene", True, "camera turned to the right, 20 degrees"),
    Attribute("height", "continuous", 0.0, 1.0, "U(0, 1)", "scene", True, "camera high up, 2.15 metres"),
    Attribute("window", "continuous", 0.0, 1.0, "U(0, 1)", "room", True, "wide window"),
    Attribute("sun", "continuous", -1.0, 1.0, "U(-1, 1)", "scene", True, "sunlight falls to the left, onto the bed"),
    Attribute("bed", "continuous", 0.0, 1.0, "U(0, 1)", "room", True, "wide bed"),
    Attribute("wall", "continuous", 0.0, 1.0, "U(0, 1)", "room", True, "walls from cream over green to blue"),
    Attribute("blanket", "continuous", 0.0, 1.0, "U(0, 1)", "room", True, "blanket from red over green to violet"),
    Attribute("floor", "continuous", 0.0, 1.0, "U(0, 1)", "room", False, "dark floor"),
    Attribute("rug", "continuous", 0.0, 1.0, "U(0, 1)", "room", False, "colour of the rug"),
    Attribute("paper", "continuous", 0.0, 1.0, "U(0, 1)", "room", False, "strong stripes of the wallpaper"),
    Attribute("pattern", "continuous", 0.0, 1.0, "U(0, 1)", "room", False, "plain, striped, checked blanket"),
    Attribute("motif", "continuous", 0.0, 1.0, "U(0, 1)", "room", False, "colours of the picture"),
    Attribute("leaf", "continuous", 0.0, 1.0, "U(0, 1)", "room", False, "lean of the plant"),
    Attribute("clouds", "continuous", 0.0, 1.0, "U(0, 1)", "scene", False, "where clouds or moon are"),
)
JUDGED = judged_of(ATTRIBUTES)

FURNITURE = {"window": window, "picture": picture, "table": stand, "lamp": lamp, "bed": bed, "plant": plant}
"""What paints a region, from the back to the front."""
REGIONS = ("wall", "ceiling", "floor", *FURNITURE)


def sample_factors(generator: torch.Generator, n: int, *, correlated: bool = True) -> Factors:
    """Draws n rooms' factors.

    The correlations are these and no others:

    | factor | given |
    |---|---|
    | lamp | P = .15 by day, .75 at night |
    | plant | P = .15 + .70 window |
    | picture | P = .20 + .70 bed |

    Args:
        generator: Source of randomness, on the CPU.
        n: Number of rooms.
        correlated: If False, every factor is drawn independently from the same marginal.

    Returns:
        Factors by attribute id, each (n,) float32.
    """
    if correlated:
        return _draw_correlated(generator, n)
    return independent_factors(ATTRIBUTES, lambda: _draw_correlated(generator, n))


def _draw_correlated(generator: torch.Generator, n: int) -> Factors:
    uniform = uniform_factors(ATTRIBUTES, generator, n)
    night = (uniform["night"] < 0.4).float()
    chance = {
        "lamp": 0.15 + 0.60 * night,
        "plant": 0.15 + 0.70 * uniform["window"],
        "picture": 0.20 + 0.70 * uniform["bed"],
    }
    factors = uniform | {"night": night} | {name: (uniform[name] < p).float() for name, p in chance.items()}
    return factors | {name: 2 * uniform[name] - 1 for name in ("yaw", "sun")}


def resample_hour(factors: Factors, generator: torch.Generator) -> Factors:
    """The same rooms at another hour (`HOUR`).

    Args:
        factors: Each (n,), as `sample_factors` gives them.
        generator: Source of randomness, on the CPU.

    Returns:
        New factors that share all others with `factors`.
    """
    others = sample_factors(generator, len(factors["night"]))
    return factors | {name: others[name] for name in HOUR}


def resample_scene(factors: Factors, generator: torch.Generator) -> Factors:
    """The same rooms at another hour, seen by another camera.

    Args:
        factors: The rooms, each factor (n,).
        generator: Source of randomness, on the CPU.

    Returns:
        New factors that share every one that a room owns with `factors`.
    """
    scene = sample_factors(generator, len(factors["night"]), correlated=False)
    return with_owned(ATTRIBUTES, "room", factors, scene)


def visibility(factors: Factors) -> Tensor:
    """Which judged attributes an image shows; scores of the others are left out.

    The sun shines by day; in the dark, at night without the lamp, colours are not to be told.

    Returns:
        (n, judged attributes) bool, in the order of `JUDGED`.
    """
    day = factors["night"] < 0.5
    light = day | (factors["lamp"] > 0.5)
    return seen_of(JUDGED, {"sun": day, "wall": light, "blanket": light}, day)


def layers(factors: Factors, size: int) -> Iterator[Layer]:
    """All layers of the rooms, from the walls to the plant.

    Args:
        factors: Each (n,).
        size: Height and width in pixels.
    """
    r = Room(factors, size)
    return chain(walls(r), *(paint(r.part(region)) for region, paint in FURNITURE.items()))


def render(factors: Factors, size: int) -> Tensor:
    """Paints rooms, anti-aliased, on the device of the factors.

    Args:
        factors: Each (n,), as `sample_factors` gives them.
        size: Height and width in pixels; any.

    Returns:
        (n, 3, size, size) float32 in [-1, 1].
    """
    return painted(factors, size, layers, chunk=CHUNK)


def region_masks(factors: Factors, size: int) -> dict[str, Tensor]:
    """Exact visible region of each part: a pixel belongs to the part that paints more than half of it.

    Args:
        factors: Each (n,), as `sample_factors` gives them.
        size: Height and width in pixels; any.

    Returns:
        By region (`REGIONS`): (n, size, size) bool; no two share a pixel.
    """
    shares = region_shares(factors, size, layers, REGIONS, chunk=CHUNK)
    return {region: share > 0.5 for region, share in zip(REGIONS, shares.unbind(1), strict=True)}


ROOMS = World(
    id="rooms",
    version=1,
    attributes=ATTRIBUTES,
    sample_factors=sample_factors,
    render=render,
    visibility=visibility,
    vary=resample_hour,
    pairs={"identity": resample_scene},
    regions=REGIONS,
    region_masks=region_masks,
)
"""Bedrooms by day and at night."""
