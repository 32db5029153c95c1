"""`parse`: makes the validated record from a composed configuration, or says in one line what is wrong with it."""

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from hspace.diffusion.embedded import EMBEDDED
from hspace.diffusion.sampler import BLOCK
from hspace.directions.settings import METHODS, Settings
from hspace.runs.config import Config, ModelConfig, known_keys
from hspace.runs.moved import moved
from hspace.runs.procedures import ANY_MODEL, AT_ONE_EFFECT, OF_WINDOWS, STRENGTHS
from hspace.runs.wording import fields_of, in_our_words, of_record
from hspace.system.registry import REFERENCE, unknown
from hspace.types import InputError

SIZES = ("k", "num_samples")
"""Keys that `debug=` and `size=` set for all methods; `parse` leaves out those that the method does not read."""


def parse(cfg: DictConfig) -> Config:
    """Validates a composed configuration.

    A null `output_dir` becomes `outputs/<name>/<time>-<random digits>`, so that no two runs share a folder.

    Raises:
        InputError: If a key is unknown or missing, or a value is wrong, by itself or together with others.
    """
    values: Any = _given(OmegaConf.to_container(cfg, resolve=True))
    # A run is called after its method, and "module:name" cannot be the name of a folder.
    values |= {"name": values["name"].replace(":", ".")} if REFERENCE.fullmatch(str(values.get("name"))) else {}
    if values.get("output_dir", "") is None:
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(3)}"
        values["output_dir"] = f"outputs/{values.get('name')}/{stamp}"
    config = _validated(Config, values, "")
    _check_edit(config)
    _check_study(config)
    _check_judge(config)
    # This comes last, since it imports the method and torch with it.
    config = replace(config, method=settings_of(config.method))
    _check_method(config)
    return replace(config, model=_own_folder(config.model))


def _own_folder(model: ModelConfig) -> ModelConfig:
    """The model, whose path names a folder of the user's own even where that has the name of an embedded model."""
    own = model.name == "local" and model.path in EMBEDDED and Path(model.path).is_dir()
    return replace(model, path=f"./{model.path}") if own else model


def settings_of(values: Any) -> Settings:
    """Settings of the method that `values` name, with the method's own defaults where a value is left out.

    Args:
        values: Section `method` of a configuration.

    Raises:
        InputError: If the method does not exist, or a value is wrong.
    """
    if not isinstance(values, dict):
        raise InputError(f"method must be a section of keys, got {values!r}")
    if not isinstance(values.get("name"), str):
        raise InputError(f"method.name must be the name of a method, got {values.get('name')!r}")
    settings = METHODS.get(values["name"]).settings
    values = {key: value for key, value in values.items() if key not in SIZES or key in settings.model_fields}
    return _validated(settings, values, "method.")


def check_attributes(config: Config, known: Collection[str]) -> None:
    """Checks that the scorers know the attributes that the method names.

    Raises:
        InputError: If one is not.
    """
    named = [(f"method.{key}", getattr(config.method, key, None)) for key in ("attribute", "target")]
    for key in ("conditions", "match"):
        named += [(f"method.{key}", name) for name in getattr(config.method, key, None) or ()]
    if config.procedure not in ("edit", "demo", *ANY_MODEL):
        named += [("study.attributes", attribute) for attribute in config.study.attributes]
    for key, name in named:
        if name is not None and name not in known:
            raise InputError(unknown(key, name, known))


def _given(values: Any) -> Any:
    """The values without those that a file leaves to the user, `???`."""
    if isinstance(values, dict):
        return {key: _given(value) for key, value in values.items() if value != "???"}
    return values


def _validated(record: Any, values: dict[str, Any], prefix: str) -> Any:
    """The record of the values, which are read as JSON; lists become tuples, and texts become paths."""

    def unknown_key(key: str) -> str:
        if message := moved(key):
            return message
        if not prefix:
            return unknown("key", key, known_keys())
        known = sorted(set(fields_of(record) or {}) - {"name"})
        if nearest := get_close_matches(key.removeprefix(prefix), known, n=1):
            return f"unknown key {key!r}: did you mean {prefix + nearest[0]!r}?"
        reads = f"which reads {', '.join(known)}" if known else "which has no settings"
        return f"{key} is not read by method {values['name']!r}, {reads}"

    try:
        return TypeAdapter(record).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise InputError(in_our_words(error, record, prefix, unknown_key)) from None


def _check_method(config: Config) -> None:
    method, edit = config.method, config.edit
    if edit.effects is not None and config.procedure not in STRENGTHS:
        raise InputError(
            f"edit.effects is not read by procedure={config.procedure}, which does not edit at edit.strengths: leave "
            "it out; study.target is the effect of experiments that compare at one"
        )
    if config.procedure in OF_WINDOWS:
        if not hasattr(method, "attribute"):
            raise InputError(
                f"procedure={config.procedure} needs a method that aims at an attribute, got {method.name}"
            )
        if getattr(method, "space", "h") != "h":
            raise InputError(f"procedure={config.procedure} needs an edit of h, which has steps, got method.space=x_T")
        if (edit.start, edit.stop) != (0, None):
            raise InputError(f"procedure={config.procedure} looks for edit.start and edit.stop: leave them out")
    try:
        method.check(config.diffusion.num_steps)
    except ValueError as error:
        raise InputError(of_record(str(error), type(method), "method.")) from None
    if method.strengths is not None:
        low, high = method.strengths
        if edit.effects is not None:
            raise InputError(
                f"edit.effects scales directions, and method={method.name} finds an operator, whose strengths are in "
                f"[{low:g}, {high:g}]: leave it out"
            )
        beyond = [strength for strength in edit.strengths if not low <= strength <= high]
        if beyond:
            raise InputError(
                f"edit.strengths must be in [{low:g}, {high:g}] for method={method.name}, got {beyond[0]:g}"
            )
    whole = edit.start == 0 and edit.stop in (None, config.diffusion.num_steps)
    if getattr(method, "space", "h") == "x_T" and not whole:
        raise InputError(
            f"edit.start and edit.stop choose steps, and an edit of method.space=x_T has none: leave them out, got "
            f"{edit.start} to {edit.stop}"
        )
    count = method.count()
    if edit.components and count is not None and max(edit.components) >= count:
        raise InputError(
            f"edit.components must be indices below the number of directions, {count}, got {max(edit.components)}"
        )


def _check_judge(config: Config) -> None:
    annotator, judge = config.evaluation.annotator, config.evaluation.judge
    if annotator == judge == "faceapi":
        raise InputError(
            "evaluation.annotator and evaluation.judge are both faceapi, which would grade its own choices: name "
            "another for one of them, as in evaluation.judge=clip:MODEL"
        )
    if annotator == judge and not config.evaluation.allow_same_scorer:
        raise InputError(
            f"evaluation.judge is {judge!r}, which is the annotator too and would grade its own choices: name another, "
            "or set evaluation.allow_same_scorer=true"
        )


def _check_study(config: Config) -> None:
    study, count = config.study, config.evaluation.num_samples
    for key in ("attributes", "taps", "methods"):
        _check_distinct(f"study.{key}", getattr(study, key))
    if config.procedure in AT_ONE_EFFECT and not study.target:
        raise InputError("study.target must be more than 0, since it is the effect, in sd, at which edits are compared")
    if study.repeats * count > BLOCK:
        raise InputError(
            f"study.repeats must be at most {BLOCK // count} for evaluation.num_samples={count}, since a block has "
            f"{BLOCK} seeds, got {study.repeats}"
        )
    if config.procedure != "edit" and 2 * study.examples > study.index:
        raise InputError(
            f"study.examples must be at most half of study.index={study.index}, since there are as many on each side, "
            f"got {study.examples}"
        )


def _check_distinct(key: str, values: Sequence[str]) -> None:
    repeated = [value for i, value in enumerate(values) if value in values[:i]]
    if repeated:
        raise InputError(f"{key} must not hold a value twice, got {repeated[0]} again")


def _check_edit(config: Config) -> None:
    steps, edit = config.diffusion.num_steps, config.edit
    eta = config.diffusion.eta
    if isinstance(eta, tuple) and len(eta) != steps:
        raise InputError(f"diffusion.eta must be one number or {steps} (one per step), got {len(eta)}")
    if not edit.start < (steps if edit.stop is None else edit.stop) <= steps:
        raise InputError(
            f"edit.start and edit.stop must choose some of the {steps} steps, got {edit.start} to {edit.stop}"
        )
    for key in ("strengths", "effects", "components"):
        # As results name them.
        _check_distinct(f"edit.{key}", [f"{each:g}" for each in getattr(edit, key) or ()])
    if not any(edit.strengths):
        raise InputError(f"edit.strengths must hold a number besides 0, got {list(edit.strengths)}")
    if edit.effects is not None and not any(edit.effects):
        raise InputError(f"edit.effects must hold a number besides 0, got {list(edit.effects)}")
