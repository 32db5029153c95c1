"""The embedded networks that read portraits, by the names of the registries."""

from hspace.scorers import embedded
from hspace.scorers.embedded import WorldIdentity, WorldRegions, WorldScorer


def annotator() -> WorldScorer:
    """The embedded scorer of portraits that names and chooses."""
    return embedded.load_annotator("portraits")


def judge() -> WorldScorer:
    """The embedded scorer of portraits that grades."""
    return embedded.load_judge("portraits")


def identity() -> WorldIdentity:
    """The embedded identity encoder, which reads all that a person owns."""
    return embedded.load_encoder("portraits", "identity")


def likeness() -> WorldIdentity:
    """The embedded encoder of shape and features alone, which no judged attribute is."""
    return embedded.load_encoder("portraits", "likeness")


def regions() -> WorldRegions:
    """The embedded segmentation network of portraits."""
    return embedded.load_regions("portraits")
