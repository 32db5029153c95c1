# pyright: strict, reportUnknownMemberType=false
"""Scorers, identity encoders and region networks by the names that a configuration gives them."""

import inspect
from typing import Any

import torch
from torch import nn

from hspace.scorers.embedded import WorldFeatures, WorldIdentity, WorldScorer
from hspace.scorers.faceapi import FaceFinder, FaceIdentity, FaceScorer
from hspace.scorers.names import EMBEDDERS, REGIONS, SCORERS
from hspace.scorers.pretrained import Pretrained
from hspace.system.hashes import weights_sha256
from hspace.system.registry import Registry
from hspace.types import Embedder, InputError, RegionNetwork, Scorer, in_one_line

NOT_INDEPENDENT = "NOT INDEPENDENT: also the annotator"
"""Remark after the name of a judge that chose what it judges."""
NOT_MEANT = "not for this model"
"""End of the remark after the name of an embedded judge that grades another model's images."""


def load_scorer(name: str) -> Scorer:
    """A scorer, ready to score.

    Args:
        name: Name, which is `portraits-annotator`, `portraits-judge`, `rooms-annotator`, `rooms-judge`, `faceapi`,
            `clip:MODEL` or `hub:MODEL`, where MODEL is a folder or hub id, the name of an installed scorer, or
            `module:name`.

    Raises:
        InputError: If the scorer does not exist, or its model cannot be read.
    """
    return _load(SCORERS, Scorer, name)


def load_identity(name: str = "portraits-identity") -> Embedder:
    """An identity encoder, with embeddings of unit norm.

    Args:
        name: `portraits-identity`, `portraits-likeness`, `rooms-identity`, `faceapi`, `hub:MODEL`,
            where MODEL is a folder or hub id, the name of an installed one, or `module:name`.

    Raises:
        InputError: If there is none of the name, or its model cannot be read.
    """
    return _load(EMBEDDERS, Embedder, name)


def load_regions(name: str = "portraits-regions") -> RegionNetwork:
    """A network that finds regions.

    Args:
        name: `portraits-regions`, `rooms-regions`, `faceapi`, `hub:MODEL`, where MODEL is a folder or hub id, the
            name of an installed one, or `module:name`.

    Raises:
        InputError: If there is none of the name, or its model cannot be read.
    """
    return _load(REGIONS, RegionNetwork, name)


def features_of(scorer: Scorer) -> Embedder | None:
    """The hidden layer of an embedded scorer, by which images are compared; None of others."""
    return WorldFeatures(scorer) if isinstance(scorer, WorldScorer) else None


def finder_of(*networks: Scorer | Embedder | None) -> FaceFinder | None:
    """What the first of the networks that looks for faces finds them with; None where none does."""
    return next((each.finder for each in networks if isinstance(each, FaceScorer | FaceIdentity)), None)


def same_network(first: Scorer, second: Scorer) -> bool:
    """Whether two scorers are the same: they have the same weights, or, where they are not modules, the same id."""
    if isinstance(first, nn.Module) and isinstance(second, nn.Module):
        return weights_sha256(first) == weights_sha256(second)
    return first.id == second.id


def told_name(judge: Scorer, *, annotated: bool, world: str | None) -> str:
    """The name of a judge in tables and records: its id, with a remark on its grades where one is needed.

    Args:
        judge: Judge.
        annotated: Whether it chose what it judges.
        world: What the model draws; None if it is not an embedded one.
    """
    marks = [NOT_INDEPENDENT] * annotated
    if isinstance(judge, WorldScorer) and judge.world != world:
        marks.append(f"made for the embedded {judge.world}, {NOT_MEANT}")
    return f"{judge.id} ({'; '.join(marks)})" if marks else judge.id


def place(network: Scorer | Embedder, device: torch.device) -> None:
    """Moves a network to the model's device; of Metal, whose operations are fewer, the embedded ones stay away."""
    embedded = () if device.type == "mps" else (WorldScorer, WorldIdentity)
    if isinstance(network, (Pretrained, *embedded)):
        network.to(device)


def _tried(make: Any, model: str, name: str) -> Any:
    """What a stranger's files make, after a pass of one image: what they break is known before any work."""
    with in_one_line(name):
        made = make(model)
        if callable(made):
            made(torch.zeros(1, 3, 64, 64))
    return made


def _load(registry: Registry[Any], protocol: type[Any], name: str) -> Any:
    """The object that a name's class or function gives, with the model behind the name's colon if it takes one."""
    kind, _, model = name.partition(":")
    given = (model,) if model and kind in registry else ()
    make = registry.get(kind if given else name)
    if isinstance(make, protocol) and not isinstance(make, type):
        return make
    try:
        inspect.signature(make).bind(*given)
    except TypeError as error:
        raise InputError(f"{registry.kind} {name!r} needs a model, as {name}:MODEL, or none: {error}") from None
    made = _tried(make, model, name) if given else make()
    if isinstance(made, protocol):
        return made
    members = [*protocol.__annotations__, *(member for member in vars(protocol) if not member.startswith("_"))]
    lacking = ", ".join(member for member in members if not hasattr(made, member)) or "__call__"
    raise InputError(f"{registry.kind} {name!r} lacks {lacking}: see docs/extending.md")
