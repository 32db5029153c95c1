"""The embedded networks that read rooms, by the names of the registries."""

from hspace.scorers import embedded
from hspace.scorers.embedded import WorldIdentity, WorldRegions, WorldScorer


def annotator() -> WorldScorer:
    """The embedded scorer of rooms that names and chooses."""
    return embedded.load_annotator("rooms")


def judge() -> WorldScorer:
    """The embedded scorer of rooms that grades."""
    return embedded.load_judge("rooms")


def identity() -> WorldIdentity:
    """The embedded encoder of all that a room owns, at whatever hour and from wherever it is seen."""
    return embedded.load_encoder("rooms", "identity")


def regions() -> WorldRegions:
    """The embedded segmentation network of rooms."""
    return embedded.load_regions("rooms")
