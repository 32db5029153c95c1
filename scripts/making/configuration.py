"""The configuration of a training script: a file of conf/train, its changes by a world, and overrides."""

from collections.abc import Sequence
from typing import cast

from omegaconf import DictConfig, OmegaConf

from hspace.system.files import package_path
from hspace.system.registry import unknown
from hspace.types import InputError
from hspace.worlds.world import WORLDS


def training_configuration(name: str, overrides: Sequence[str]) -> DictConfig:
    """conf/train/NAME.yaml with overrides in the notation of OmegaConf's dot lists.

    Another world than that of the file has its own values of some keys in conf/train/WORLD.yaml, under NAME.

    Args:
        name: Such as ddpm or scorers.
        overrides: Such as `unet.layers_per_block=2`; a key that holds a list takes the whole list.

    Raises:
        InputError: The file has no such key, or keys under it where a value is given.
    """
    defaults = cast(DictConfig, OmegaConf.load(package_path("conf") / "train" / f"{name}.yaml"))
    changes = OmegaConf.from_dotlist(list(overrides))
    _check(changes, defaults)
    return cast(DictConfig, OmegaConf.merge(defaults, _of_world(changes.get("world", defaults.world), name), changes))


def _of_world(world: str, name: str) -> DictConfig:
    """What a world changes in a configuration; nothing if it has no file."""
    WORLDS.get(world)
    path = package_path("conf") / "train" / f"{world}.yaml"
    if not path.is_file():
        return OmegaConf.create()
    return cast(DictConfig, OmegaConf.load(path)).get(name, OmegaConf.create())


def _check(changes: DictConfig, defaults: DictConfig, prefix: str = "") -> None:
    for key, value in changes.items():
        if key not in defaults:
            raise InputError(unknown("key", f"{prefix}{key}", [f"{prefix}{known}" for known in defaults]))
        if not isinstance(defaults[key], DictConfig):
            continue
        if not isinstance(value, DictConfig):
            raise InputError(f"{prefix}{key} has keys of its own, as in {prefix}{key}.{next(iter(defaults[key]))}=...")
        _check(value, defaults[key], f"{prefix}{key}.")
