"""Scorers, identity encoders and region networks by the names that a configuration gives them."""

import torch
from torch import nn

from hspace.scorers import portraits
from hspace.scorers.clip import load_clip
from hspace.scorers.hub import load_classifier, load_features, load_parser
from hspace.scorers.pretrained import Pretrained
from hspace.system.hashes import weights_sha256
from hspace.types import Embedder, InputError, RegionNetwork, Scorer

NOT_INDEPENDENT = "NOT INDEPENDENT: also the annotator"
"""What is written behind the name of a judge that chose what it judges."""


def load_scorer(name: str) -> Scorer:
    """A scorer, ready to score.

    Args:
        name: `portraits-annotator`, `portraits-judge`, `clip:MODEL` or `hub:MODEL`, where MODEL is a folder or hub id.

    Raises:
        InputError: If there is no such scorer, or its model cannot be read.
    """
    kind, _, model = name.partition(":")
    if model and kind in ("clip", "hub"):
        return load_clip(model) if kind == "clip" else load_classifier(model)
    return portraits.load_scorer(name)


def load_identity(name: str = "portraits-identity") -> Embedder:
    """An identity encoder, with embeddings of unit norm.

    Args:
        name: `portraits-identity`, or `hub:MODEL`, where MODEL is a folder or hub id.

    Raises:
        InputError: If there is none of the name, or its model cannot be read.
    """
    return load_features(_hub_model(name)) if name != "portraits-identity" else portraits.load_identity()


def load_regions(name: str = "portraits-regions") -> RegionNetwork:
    """A network that finds regions.

    Args:
        name: `portraits-regions`, or `hub:MODEL`, where MODEL is a folder or hub id.

    Raises:
        InputError: If there is none of the name, or its model cannot be read.
    """
    return load_parser(_hub_model(name)) if name != "portraits-regions" else portraits.load_regions()


def features_of(scorer: Scorer) -> Embedder | None:
    """The hidden layer of an embedded scorer, by which images are compared; None of others."""
    return portraits.PortraitFeatures(scorer) if isinstance(scorer, portraits.PortraitScorer) else None


def same_network(first: Scorer, second: Scorer) -> bool:
    """Whether two scorers are one, under whatever names: the same weights, or the same id where they are no modules."""
    if isinstance(first, nn.Module) and isinstance(second, nn.Module):
        return weights_sha256(first) == weights_sha256(second)
    return first.id == second.id


def place(network: Scorer | Embedder, device: torch.device) -> None:
    """Moves a large network to where the model is; the embedded ones are small and stay on the CPU."""
    if isinstance(network, Pretrained):
        network.to(device)


def _hub_model(name: str) -> str:
    kind, _, model = name.partition(":")
    if kind != "hub" or not model:
        raise InputError(f"unknown network {name!r}: name an embedded one, or hub:MODEL with a folder or hub id")
    return model
