"""`hspace list`: what there is to choose, by name and in one line each; nothing that is listed is imported."""

from collections.abc import Iterable
from functools import partial
from importlib import import_module

from hspace.directions.settings import METHODS
from hspace.system.files import package_path
from hspace.system.registry import unknown
from hspace.types import InputError

LISTS = {"models": "model"}
"""What `hspace list` shows of conf/, and the folder where it is."""

REGISTRIES = {
    "methods": ("hspace.directions.settings", "METHODS"),
    "scorers": ("hspace.scorers.names", "SCORERS"),
    "embedders": ("hspace.scorers.names", "EMBEDDERS"),
    "regions": ("hspace.scorers.names", "REGIONS"),
    "measures": ("hspace.evaluation.measures", "MEASURES"),
    "families": ("hspace.diffusion.families", "families"),
}
"""What `hspace list` shows of what can be registered, and the registry: its module and its name there."""


def lists(words: list[str]) -> int:
    """Prints what there is to choose: of the named topics, or of all.

    Raises:
        InputError: If there is no such topic.
    """
    topics = {topic: partial(_choices, folder) for topic, folder in LISTS.items()}
    topics |= {topic: partial(_registered, *place) for topic, place in REGISTRIES.items()}
    topics |= {"attributes": _attributes, "experiments": _experiments}
    for word in words:
        if word not in topics and not word.startswith("method="):
            raise InputError(unknown("list", word, topics))
    for topic in words or sorted(topics):
        rows = list(topics[topic]() if topic in topics else _settings(topic.partition("=")[2]))
        print(f"{topic}:")
        for name, meaning in rows:
            print(f"  {name:<19} {meaning}")
    return 0


def _registered(module: str, registry: str) -> Iterable[tuple[str, str]]:
    """The entries of a registry, none of which is imported."""
    return [(entry.name, entry.meaning) for entry in getattr(import_module(module), registry).listed()]


def _settings(method: str) -> Iterable[tuple[str, str]]:
    """The settings of a method with their defaults."""
    for name, field in METHODS.get(method).settings.model_fields.items():
        if name != "name":
            default = "needed" if field.is_required() else f"default {field.default}"
            yield f"method.{name}", f"{field.description} ({default})"


def _choices(group: str) -> Iterable[tuple[str, str]]:
    """The files of a group of choices and the first sentence of the comment that each begins with."""
    for file in sorted((package_path("conf") / group).glob("*.yaml")):
        comments = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        meaning = next(line for line in comments if not line.startswith("@package"))
        yield file.stem, meaning.partition(" Launch:")[0]


def _experiments() -> Iterable[tuple[str, str]]:
    """Those of conf/experiment, and the procedures that have no file there."""
    chosen = dict(_choices("experiment"))
    return [
        *chosen.items(),
        *(row for row in _registered("hspace.runs.procedures", "EXPERIMENTS") if row[0] not in chosen),
    ]


def _attributes() -> Iterable[tuple[str, str]]:
    worlds = import_module("hspace.worlds.world").WORLDS
    return [
        (attribute.id, f"{world}, {attribute.kind}: {attribute.meaning}")
        for world in worlds.names()
        for attribute in worlds.get(world).attributes
    ]
