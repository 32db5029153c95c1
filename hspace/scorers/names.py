"""Names of the networks that read images, known before any of them is loaded."""

from typing import Any

from hspace.system.registry import Registry

SCORERS: Registry[Any] = Registry(
    "scorer",
    object,
    {
        "portraits-annotator": "hspace.scorers.portraits:annotator",
        "portraits-judge": "hspace.scorers.portraits:judge",
        "rooms-annotator": "hspace.scorers.rooms:annotator",
        "rooms-judge": "hspace.scorers.rooms:judge",
        "clip": "hspace.scorers.clip:load_clip",
        "hub": "hspace.scorers.hub:load_classifier",
        "faceapi": "hspace.scorers.faceapi:scorer",
    },
)
"""Scorers of attributes: classes or functions that give a `Scorer`; for "name:MODEL" they get the MODEL."""

EMBEDDERS: Registry[Any] = Registry(
    "embedder",
    object,
    {
        "portraits-identity": "hspace.scorers.portraits:identity",
        "portraits-likeness": "hspace.scorers.portraits:likeness",
        "rooms-identity": "hspace.scorers.rooms:identity",
        "hub": "hspace.scorers.hub:load_features",
        "faceapi": "hspace.scorers.faceapi:identity",
    },
)
"""Identity encoders, which say whether images show the same person or room: they give an `Embedder`."""

REGIONS: Registry[Any] = Registry(
    "region",
    object,
    {
        "portraits-regions": "hspace.scorers.portraits:regions",
        "rooms-regions": "hspace.scorers.rooms:regions",
        "hub": "hspace.scorers.hub:load_parser",
        "faceapi": "hspace.scorers.faceapi:regions",
    },
)
"""Finders of named regions: classes or functions that give a `RegionNetwork`."""
