"""What the card has to know of an embedded model and its world beyond factors and pictures."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from hspace.system.registry import unknown
from hspace.types import InputError
from hspace.worlds.attributes import Factors
from hspace.worlds.world import WORLDS, World


@dataclass(frozen=True)
class Subject:
    """An embedded model as the card measures it.

    Attributes:
        name: Of the model.
        world: World that it draws.
        moved: Attributes that edits are found for.
        trained: Those of them for which offsets are trained where differences of samples move them too little.
        shown: Changes factors so that no attribute is hidden.
        kept: Roles of the encoders that say what an edit has kept; the first is the one that has a target.
        training: File of conf/train that says which renders the model has learnt from.
    """

    name: str
    world: World
    moved: tuple[str, ...]
    shown: Callable[[Factors], Factors]
    kept: tuple[str, ...]
    trained: tuple[str, ...] = ()
    training: str = "ddpm"

    @property
    def stem(self) -> str:
        """Beginning of the names of its pictures."""
        return self.name.replace("-", "_")


def _bare_and_young(factors: Factors) -> Factors:
    """No hat hides brows and hair, and no hair is grey."""
    return factors | {"hat": torch.zeros_like(factors["hat"]), "age": 0.5 * factors["age"]}


def _by_day(factors: Factors) -> Factors:
    """The sun shines, and colours are seen."""
    return factors | {"night": torch.zeros_like(factors["night"])}


PORTRAITS = Subject(
    "portraits",
    WORLDS.get("portraits"),
    ("glasses", "hat", "gender", "smile", "yaw"),
    _bare_and_young,
    ("likeness", "identity"),
    trained=("smile",),
)
ROOMS = Subject("rooms", WORLDS.get("rooms"), ("night", "lamp", "picture", "plant", "yaw"), _by_day, ("identity",))
SUBJECTS = {each.name: each for each in (PORTRAITS, replace(PORTRAITS, name="portraits-128", training="latent"), ROOMS)}


def subject_of(name: str) -> Subject:
    """What the card knows of an embedded model.

    Raises:
        InputError: If it knows nothing.
    """
    if name not in SUBJECTS:
        raise InputError(unknown("model", name, SUBJECTS))
    return SUBJECTS[name]
