"""Procedural portraits whose every image has exact labels, so that edits can be measured and not only looked at.

`sample_factors` draws people, `render` paints them and `region_masks` says which pixel shows what. A factor is a
(n,) float tensor; the table `ATTRIBUTES` says what each means. The painting itself is in `layers`.
"""

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
from hspace.worlds.layers import picture, region_shares
from hspace.worlds.portraits.backdrop import background_embedding
from hspace.worlds.portraits.layers import layers
from hspace.worlds.portraits.painter import REGIONS
from hspace.worlds.world import World

__all__ = ["ATTRIBUTES", "JUDGED", "PORTRAITS", "REGIONS", "Attribute", "Factors", "region_masks", "render"]
__all__ += ["resample_expression", "resample_looks", "resample_scene", "sample_factors", "visibility"]

EXPRESSION = ("smile", "mouth", "eyes", "brow", "glasses")
"""What is drawn anew for another expression of the same portrait."""
FEATURES = ("face_width", "jaw", "eye_color", "eye_spacing", "nose")
"""What of a person no judged attribute is."""


ATTRIBUTES = (
    Attribute("glasses", "binary", 0.0, 1.0, "Bernoulli(.40)", "scene", True, "wears glasses"),
    Attribute("hat", "binary", 0.0, 1.0, "Bernoulli(.21)", "scene", True, "wears a hat"),
    Attribute("beard", "binary", 0.0, 1.0, "Bernoulli(.20)", "person", True, "has a beard"),
    Attribute("gender", "binary", 0.0, 1.0, "Bernoulli(.50)", "person", True, "masculine presentation"),
    Attribute(
        "smile", "continuous", -1.0, 1.0, "2 U^1.6 - 1 or 2 U^.6 - 1, evenly", "scene", True, "corners of the mouth up"
    ),
    Attribute("mouth", "continuous", 0.0, 1.0, "U(-.5, 1) clipped", "scene", True, "mouth open"),
    Attribute("eyes", "continuous", 0.0, 1.0, "U(0, 1)", "scene", True, "eyes wide open"),
    Attribute("brow", "continuous", -1.0, 1.0, "U(-1, 1)", "scene", True, "brows raised"),
    Attribute(
        "yaw", "continuous", -1.0, 1.0, "U(-1, 1)", "scene", True, "head turned to the right of the image, 24 degrees"
    ),
    Attribute("pitch", "continuous", -1.0, 1.0, "U(-1, 1)", "scene", True, "head turned up, 13 degrees"),
    Attribute("age", "continuous", 0.0, 1.0, "U(0, 1)", "person", True, "old: wrinkles and grey hair"),
    Attribute("skin", "continuous", 0.0, 1.0, "U(0, 1)", "person", True, "dark skin"),
    Attribute("hair_color", "continuous", 0.0, 1.0, "U(0, 1)", "person", True, "fair hair"),
    Attribute("hair_length", "continuous", 0.0, 1.0, "U(0, .45) or U(.3, 1), evenly", "person", True, "long hair"),
    Attribute("face_width", "continuous", 0.0, 1.0, "U(0, 1)", "person", False, "wide face"),
    Attribute("jaw", "continuous", 0.0, 1.0, "U(0, 1)", "person", False, "square jaw"),
    Attribute("eye_color", "continuous", 0.0, 1.0, "U(0, 1)", "person", False, "brown, green, blue eyes"),
    Attribute("eye_spacing", "continuous", 0.0, 1.0, "U(0, 1)", "person", False, "eyes far apart"),
    Attribute("nose", "continuous", 0.0, 1.0, "U(0, 1)", "person", False, "long nose"),
    Attribute("clothes", "continuous", 0.0, 1.0, "U(0, 1)", "scene", False, "colour of clothes and hat"),
    Attribute("background", "continuous", 0.0, 1.0, "U(0, 1)", "scene", False, "hue of the background"),
    Attribute("hair_cut", "continuous", 0.0, 1.0, "U(0, 1)", "person", False, "one of five cuts"),
    Attribute("freckles", "continuous", 0.0, 1.0, "U(0, 1)", "person", False, "freckles, above a half"),
    Attribute("backdrop", "continuous", 0.0, 1.0, "U(0, 1)", "scene", False, "direction of the background's gradient"),
    Attribute("bokeh", "continuous", 0.0, 1.0, "U(-1, 1) clipped", "scene", False, "bright lights out of focus"),
    Attribute("scatter", "continuous", 0.0, 1.0, "U(0, 1)", "scene", False, "where these lights are"),
)
JUDGED = judged_of(ATTRIBUTES)


def sample_factors(generator: torch.Generator, n: int, *, correlated: bool = True) -> Factors:
    """Draws n portraits' factors.

    The correlations are those that celebrity photos show, and no others:

    | factor | given gender (0, 1) and age |
    |---|---|
    | glasses | P = .45 age for 0, .22 + .70 age for 1 |
    | hat | P = .02 + .08 age for 0, .24 + .24 age for 1 |
    | beard | P = 0 for 0, .40 for 1 |
    | smile | 2 U^.6 - 1 for 0 (mostly smiling), 2 U^1.6 - 1 for 1 |
    | hair_length | U(.3, 1) for 0, U(0, .45) for 1 |

    Args:
        generator: Source of randomness, on the CPU.
        n: Number of portraits.
        correlated: If False, every factor is drawn independently from the same marginal.

    Returns:
        Factors by attribute id, each (n,) float32.

    Examples:
        >>> factors = sample_factors(torch.Generator().manual_seed(0), 3)
        >>> sorted(set(factors["glasses"].tolist())), len(factors)
        ([0.0, 1.0], 26)
    """
    if correlated:
        return _draw_correlated(generator, n)
    return independent_factors(ATTRIBUTES, lambda: _draw_correlated(generator, n))


def _draw_correlated(generator: torch.Generator, n: int) -> Factors:
    uniform = uniform_factors(ATTRIBUTES, generator, n)
    return _correlate(uniform, (uniform["gender"] < 0.5).float(), uniform["age"])


def _correlate(uniform: Factors, gender: Tensor, age: Tensor) -> Factors:
    """Factors given gender presentation and age, from uniform numbers."""
    chance = {
        "glasses": torch.lerp(0.45 * age, 0.22 + 0.70 * age, gender),
        "hat": torch.lerp(0.02 + 0.08 * age, 0.24 + 0.24 * age, gender),
        "beard": 0.4 * gender,
    }
    factors = dict(uniform, gender=gender, age=age)
    factors |= {name: (uniform[name] < chance[name]).float() for name in chance}
    factors["smile"] = 2 * uniform["smile"] ** torch.where(gender > 0, 1.6, 0.6) - 1
    factors["mouth"] = (1.5 * uniform["mouth"] - 0.5).clamp(min=0)
    factors["hair_length"] = torch.lerp(0.3 + 0.7 * uniform["hair_length"], 0.45 * uniform["hair_length"], gender)
    factors |= {name: 2 * uniform[name] - 1 for name in ("brow", "yaw", "pitch")}
    factors["bokeh"] = (2 * uniform["bokeh"] - 1).clamp(min=0)
    return factors


def resample_expression(factors: Factors, generator: torch.Generator) -> Factors:
    """The same portraits with another expression, and with glasses put on or taken off (`EXPRESSION`).

    Both portraits of a pair come from the correlated distribution.

    Args:
        factors: Factors from `sample_factors`, each (n,).
        generator: Source of randomness, on the CPU.

    Returns:
        New factors that share all others with `factors`.
    """
    uniform = uniform_factors(ATTRIBUTES, generator, len(factors["age"]))
    fresh = _correlate(uniform, factors["gender"], factors["age"])
    return factors | {name: fresh[name] for name in EXPRESSION}


def resample_scene(factors: Factors, generator: torch.Generator) -> Factors:
    """The same people with another expression, pose, glasses, hat, clothes and background.

    Args:
        factors: The people, each factor (n,).
        generator: Source of randomness, on the CPU.

    Returns:
        New factors that share every person-bound one with `factors`.
    """
    scene = sample_factors(generator, len(factors["age"]), correlated=False)
    return with_owned(ATTRIBUTES, "person", factors, scene)


def resample_looks(factors: Factors, generator: torch.Generator) -> Factors:
    """Other people of the same features (`FEATURES`), in other scenes.

    Args:
        factors: Each (n,), as `sample_factors` gives them.
        generator: Source of randomness, on the CPU.

    Returns:
        New factors that share nothing but the features with `factors`.
    """
    others = sample_factors(generator, len(factors["age"]), correlated=False)
    return others | {name: factors[name] for name in FEATURES}


def visibility(factors: Factors) -> Tensor:
    """Which judged attributes an image shows; scores of the others are left out.

    A hat hides the brows, and all hair that does not fall over the ears; grey hair has no hair colour.

    Returns:
        (n, judged attributes) bool, in the order of `JUDGED`.
    """
    bare = factors["hat"] < 0.5
    shown = {
        "brow": bare,
        "hair_color": (factors["age"] < 0.6) & (bare | (factors["hair_length"] > 0.35)),
        "hair_length": bare | (factors["hair_length"] > 0.35),
    }
    return seen_of(JUDGED, shown, bare)


def render(factors: Factors, size: int) -> Tensor:
    """Paints portraits, anti-aliased, on the device of the factors.

    Args:
        factors: Each (n,), as `sample_factors` gives them.
        size: Height and width in pixels; any.

    Returns:
        (n, 3, size, size) float32 in [-1, 1].

    Examples:
        >>> factors = sample_factors(torch.Generator().manual_seed(0), 2)
        >>> tuple(render(factors, 32).shape)
        (2, 3, 32, 32)
    """
    return picture(factors, size, layers)


def region_masks(factors: Factors, size: int) -> dict[str, Tensor]:
    """Exact visible region of each part: a pixel belongs to a part that paints more than half of it.

    Args:
        factors: Each (n,), as `sample_factors` gives them.
        size: Height and width in pixels; any.

    Returns:
        By region (`REGIONS`): (n, size, size) bool. `face` includes the eyes, brows, mouth and nose in it; no other
        two regions share a pixel.
    """
    shares = region_shares(factors, size, layers, REGIONS)
    masks = dict(zip(REGIONS, shares.unbind(1), strict=True))
    masks["face"] = torch.stack([masks[part] for part in ("face", "eyes", "brows", "mouth", "nose")]).sum(0)
    return {region: mask > 0.5 for region, mask in masks.items()}


PORTRAITS = World(
    id="portraits",
    version=2,
    attributes=ATTRIBUTES,
    sample_factors=sample_factors,
    render=render,
    visibility=visibility,
    vary=resample_expression,
    pairs={"identity": resample_scene, "likeness": resample_looks},
    regions=REGIONS,
    region_masks=region_masks,
    background=background_embedding,
)
"""Faces under a light, with expression, hair and headgear."""
