"""What the card has to know of a world beyond its factors and pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hspace.system.registry import unknown
from hspace.types import InputError
from hspace.worlds.attributes import Factors
from hspace.worlds.world import WORLDS, World


@dataclass(frozen=True)
class Subject:
    """A world as the card measures it.

    Attributes:
        world: Drawn world.
        moved: Attributes that boundaries are found for.
        shown: Changes factors so that no attribute is hidden.
        kept: Roles of the encoders that say what an edit has kept; the first is the one that has a target.
    """

    world: World
    moved: tuple[str, ...]
    shown: Callable[[Factors], Factors]
    kept: tuple[str, ...]


def _bare_and_young(factors: Factors) -> Factors:
    """No hat hides brows and hair, and no hair is grey."""
    return factors | {"hat": torch.zeros_like(factors["hat"]), "age": 0.5 * factors["age"]}


def _by_day(factors: Factors) -> Factors:
    """The sun shines, and colours are seen."""
    return factors | {"night": torch.zeros_like(factors["night"])}


SUBJECTS = {
    "portraits": Subject(
        WORLDS.get("portraits"),
        ("glasses", "hat", "gender", "smile", "yaw"),
        _bare_and_young,
        ("likeness", "identity"),
    ),
    "rooms": Subject(WORLDS.get("rooms"), ("night", "lamp", "picture", "plant", "yaw"), _by_day, ("identity",)),
}


def subject_of(world: str) -> Subject:
    """What the card knows of a world.

    Raises:
        InputError: If it knows nothing.
    """
    if world not in SUBJECTS:
        raise InputError(unknown("world", world, SUBJECTS))
    return SUBJECTS[world]
