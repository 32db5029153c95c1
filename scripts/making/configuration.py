"""The configuration of a training script: a file of conf/train and key=value overrides."""

from collections.abc import Sequence
from typing import cast

from omegaconf import DictConfig, OmegaConf

from hspace.system.files import package_path
from hspace.system.registry import unknown
from hspace.types import InputError


def training_configuration(name: str, overrides: Sequence[str]) -> DictConfig:
    """conf/train/NAME.yaml with overrides in the notation of OmegaConf's dot lists.

    Args:
        name: ddpm or scorers.
        overrides: Such as `unet.layers_per_block=2`; a key that holds a list takes the whole list.

    Raises:
        InputError: The file has no such key, or keys under it where a value is given.
    """
    defaults = cast(DictConfig, OmegaConf.load(package_path("conf") / "train" / f"{name}.yaml"))
    changes = OmegaConf.from_dotlist(list(overrides))
    _check(changes, defaults)
    return cast(DictConfig, OmegaConf.merge(defaults, changes))


def _check(changes: DictConfig, defaults: DictConfig, prefix: str = "") -> None:
    for key, value in changes.items():
        if key not in defaults:
            raise InputError(unknown("key", f"{prefix}{key}", [f"{prefix}{known}" for known in defaults]))
        if not isinstance(defaults[key], DictConfig):
            continue
        if not isinstance(value, DictConfig):
            raise InputError(f"{prefix}{key} has keys of its own, as in {prefix}{key}.{next(iter(defaults[key]))}=...")
        _check(value, defaults[key], f"{prefix}{key}.")
