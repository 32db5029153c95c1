"""Names of the networks that read images, known before any of them is loaded."""

from typing import Any

from hspace.system.registry import Registry

SCORERS: Registry[Any] = Registry(
    "scorer",
    object,
    {
        "portraits-annotator": "hspace.scorers.portraits:annotator",
        "portraits-judge": "hspace.scorers.portraits:judge",
        "clip": "hspace.scorers.clip:load_clip",
        "hub": "hspace.scorers.hub:load_classifier",
    },
)
"""What reads attributes: a class or function that gives a `Scorer`; of "name:MODEL" it gets the MODEL."""

EMBEDDERS: Registry[Any] = Registry(
    "embedder",
    object,
    {"portraits-identity": "hspace.scorers.portraits:load_identity", "hub": "hspace.scorers.hub:load_features"},
)
"""What says whether two images show the same person: gives an `Embedder`."""

REGIONS: Registry[Any] = Registry(
    "region",
    object,
    {"portraits-regions": "hspace.scorers.portraits:load_regions", "hub": "hspace.scorers.hub:load_parser"},
)
"""What finds named regions: gives a `RegionNetwork`."""
