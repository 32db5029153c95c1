"""`parse`: a composed configuration becomes the validated record, or one line says what is wrong with it."""

import dataclasses
import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from hspace.runs.config import METHOD_KEYS, OPTIONAL_KEYS, Config, MethodConfig, known_keys
from hspace.system.registry import unknown
from hspace.types import InputError

SIZES = ("k", "num_samples")
"""What `debug=` and `size=` set whatever the method; `parse` leaves out those that it does not read."""


def parse(cfg: DictConfig) -> Config:
    """Validates a composed configuration.

    A null `output_dir` becomes `outputs/<name>/<time>-<random digits>`, so that no two runs share a folder.

    Raises:
        InputError: If a key is unknown or missing, or a value, alone or beside the others, makes no sense.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    if values.get("output_dir") is None:
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(3)}"
        values["output_dir"] = f"outputs/{values.get('name')}/{stamp}"
    config = _build(Config, values, "")
    unread = {key: None for key in SIZES if key not in _read(config.method.name)}
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, **unread))
    _check_method(config)
    _check_edit(config)
    if config.evaluation.annotator == config.evaluation.judge and not config.evaluation.allow_same_scorer:
        raise InputError(
            f"evaluation.judge is {config.evaluation.judge!r}, which is the annotator too and would grade its own "
            "choices: name another, or set evaluation.allow_same_scorer=true"
        )
    return config


def check_attributes(config: Config, known: Collection[str]) -> None:
    """Sees that the attributes the method names are among those that the scorers know.

    Raises:
        InputError: If one is not.
    """
    method = config.method
    named = [("method.attribute", method.attribute), ("method.balance", method.balance)]
    if config.procedure != "edit":
        named += [("study.attributes", attribute) for attribute in config.study.attributes]
    for key, name in named + [("method.conditions", condition) for condition in method.conditions or ()]:
        if name is not None and name not in known:
            raise InputError(unknown(key, name, known))


def _build(record: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{prefix.rstrip('.')} must be a section of keys, got {values!r}")
    hints = get_type_hints(record, include_extras=True)
    for key in values:
        if key not in hints:
            raise InputError(unknown("key", f"{prefix}{key}", known_keys()))
    for field in dataclasses.fields(record):
        absent = "???" if field.default is dataclasses.MISSING else None
        if values.get(field.name, absent) == "???":
            raise InputError(f"{prefix}{field.name} is missing: give it as {prefix}{field.name}=VALUE")
    return record(**{key: _value(hints[key], prefix + key, value) for key, value in values.items()})


def _value(hint: Any, key: str, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{key}.")
    return hint.__metadata__[0](key, value)


def _read(method: str) -> set[str]:
    return METHOD_KEYS[method] | OPTIONAL_KEYS.get(method, set())


def _check_method(config: Config) -> None:
    method, needed, read = config.method, METHOD_KEYS[config.method.name], _read(config.method.name)
    for key, value in vars(method).items():
        if key != "name" and value is not None and key not in read:
            names = ", ".join(sorted(read))
            raise InputError(f"method.{key} is not read by method {method.name!r}, which reads {names}")
        if key in needed and value is None:
            raise InputError(f"method.{key} is missing: method {method.name!r} needs it")
    if method.name == "supervised":
        _check_examples(method)
    elif method.k is not None and method.num_samples is not None and method.k >= method.num_samples:
        raise InputError(
            f"method.k must be below method.num_samples={method.num_samples} (n samples span n - 1 components), "
            f"got {method.k}"
        )
    if method.steps and max(method.steps) >= config.diffusion.num_steps:
        raise InputError(
            f"method.steps must be below diffusion.num_steps={config.diffusion.num_steps}, got {max(method.steps)}"
        )


def _check_examples(method: MethodConfig) -> None:
    assert method.k is not None and method.num_samples is not None
    if 2 * method.k > method.num_samples:
        raise InputError(
            f"method.k must be at most half of method.num_samples={method.num_samples} (k examples on each side), "
            f"got {method.k}"
        )
    if method.conditions and method.attribute in method.conditions:
        raise InputError(f"method.conditions must not name method.attribute itself, got {method.attribute}")


def _check_edit(config: Config) -> None:
    steps, edit = config.diffusion.num_steps, config.edit
    eta = config.diffusion.eta
    if isinstance(eta, tuple) and len(eta) != steps:
        raise InputError(f"diffusion.eta must be one number or {steps} (one per step), got {len(eta)}")
    if not edit.start < (steps if edit.stop is None else edit.stop) <= steps:
        raise InputError(
            f"edit.start and edit.stop must choose steps of the {steps} there are, got {edit.start} to {edit.stop}"
        )
    if not any(edit.strengths):
        raise InputError(f"edit.strengths must hold a number besides 0, got {list(edit.strengths)}")
    if (
        edit.components
        and config.method.name in ("pca", "local_pca", "random")
        and max(edit.components) >= (config.method.k or 0)
    ):
        raise InputError(
            f"edit.components must be indices below method.k={config.method.k}, got {max(edit.components)}"
        )
