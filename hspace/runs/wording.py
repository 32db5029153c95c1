"""Pydantic's errors about a configuration, on one line: the key, what would be right, and what was given."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hspace.system.registry import unknown

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")


@dataclasses.dataclass(frozen=True)
class Meaning:
    """The rule of a value in words, where its type does not say it; metadata of an annotation."""

    words: str


@dataclasses.dataclass(frozen=True)
class _Place:
    """The place of an error.

    Attributes:
        key: Dotted key, with the indices of lists.
        hint: Type of the value.
        metadata: Constraints of the value.
        scalar: Whether the error comes from a branch of a union that is not a list.
    """

    key: str
    hint: Any
    metadata: Sequence[Any] = ()
    scalar: bool = False


def fields_of(record: Any) -> Mapping[str, FieldInfo] | None:
    """Fields of a pydantic record; None if it is not one."""
    if isinstance(record, type) and issubclass(record, BaseModel):
        return record.model_fields
    return getattr(record, "__pydantic_fields__", None)


def in_our_words(error: ValidationError, record: Any, prefix: str, unknown_key: Callable[[str], str]) -> str:
    """The first mistake; unknown keys come before wrong values.

    Args:
        error: Error that validating the record raised.
        record: The record.
        prefix: Prefix of its keys, such as "method."; "" at the top.
        unknown_key: Function that gives the message for an unknown key.
    """
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] not in UNKNOWN_KEY)
    place = _place(record, first["loc"], prefix)
    # A value that fits no branch of a union has an error in each; those of a list belong to the list.
    if isinstance(first["input"], list) and place.scalar:
        others = [each for each in errors if not _place(record, each["loc"], prefix).scalar]
        first = next(each for each in others if _place(record, each["loc"], prefix).key.startswith(place.key))
        place = _place(record, first["loc"], prefix)
    return _message(first, place, unknown_key)


def rule_of(field: FieldInfo) -> str:
    """The rule of a field's value in words."""
    return _words(field.annotation, field.metadata)


def _words(hint: Any, metadata: Sequence[Any]) -> str:
    place = _unwrapped(_Place("", hint, metadata))
    if typing.get_origin(place.hint) is typing.Literal:
        return ", ".join(map(str, typing.get_args(place.hint)))
    branches = _branches(place.hint)
    if not branches:
        return _rule(place.hint, place.metadata)
    null = ["null"] if type(None) in typing.get_args(place.hint) else []
    return " or ".join([*(_words(branch, place.metadata) for branch in branches), *null])


def _message(error: ErrorDetails, place: _Place, unknown_key: Callable[[str], str]) -> str:
    key, value, context = place.key, error["input"], error.get("ctx", {})
    if error["type"] in UNKNOWN_KEY:
        return unknown_key(key)
    if error["type"] == "missing":
        return f"{key} is missing: give it as {key}=VALUE"
    if error["type"] == "unknown_name":
        return unknown(key, value, context["known"])
    if error["type"] == "value_error" and fields_of(place.hint) is not None:
        return of_record(str(context["error"]), place.hint, f"{key}." if key else "")
    if typing.get_origin(place.hint) is typing.Literal:
        return unknown(key, value, typing.get_args(place.hint))
    if error["type"] == "value_error" and not any(isinstance(each, Meaning) for each in place.metadata):
        return f"{key}: {context['error']}"
    return f"{key} must be {_rule(place.hint, place.metadata)}, got {value!r}"


def of_record(message: str, record: Any, prefix: str) -> str:
    """The message of a check of several fields, with the full name of the field that it begins with."""
    begins_with_a_field = message.partition(" ")[0].partition("=")[0] in (fields_of(record) or {})
    return f"{prefix}{message}" if begins_with_a_field else f"{prefix.rstrip('.')}: {message}".removeprefix(": ")


def _place(record: Any, location: Iterable[int | str], prefix: str) -> _Place:
    """Follows an error's location from a record down to the value."""
    place, tokens = _Place(prefix.rstrip("."), record), list(location)
    while tokens or _branches(place.hint):
        place = _unwrapped(place)
        fields, branches = fields_of(place.hint), _branches(place.hint)
        if fields is not None:
            name = str(tokens.pop(0))
            key = f"{place.key}.{name}".removeprefix(".")
            field = fields.get(name)
            place = _Place(key, None) if field is None else _Place(key, field.annotation, field.metadata)
        elif len(branches) > 1:
            # The name of the branch; where there is none, the value itself is at fault.
            is_list = bool(tokens) and str(tokens.pop(0)).startswith("tuple")
            hint = next(each for each in branches if is_list == (_list_item(each) is not None))
            place = _Place(place.key, hint, place.metadata, scalar=not is_list)
        elif branches:
            place = _Place(place.key, branches[0], place.metadata)
        elif _list_item(place.hint) is not None and isinstance(tokens[0], int):
            place = _Place(f"{place.key}[{tokens.pop(0)}]", _list_item(place.hint))
        else:
            break
    return _unwrapped(place)


def _unwrapped(place: _Place) -> _Place:
    """The same without `Annotated`, whose constraints are added."""
    hint, metadata = place.hint, [*place.metadata]
    while typing.get_origin(hint) is typing.Annotated:
        hint, *more = typing.get_args(hint)
        for each in more:
            metadata += each.metadata if isinstance(each, FieldInfo) else [each]
    return dataclasses.replace(place, hint=hint, metadata=metadata)


def _branches(hint: Any) -> list[Any]:
    """The branches of a union, besides None; empty if the type is not a union."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return []
    return [each for each in typing.get_args(hint) if each is not type(None)]


def _list_item(hint: Any) -> Any:
    """Type of the items of a list of any length; None if the type is not a list."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None


def _rule(hint: Any, metadata: Iterable[Any]) -> str:
    """The rule of a value."""
    metadata = list(metadata)
    if meanings := [each.words for each in metadata if isinstance(each, Meaning)]:
        return meanings[-1]
    if fields_of(hint) is not None:
        return "a section of keys"
    if hint is bool:
        return "true or false"
    if hint in (int, float):
        return _number(hint, metadata)
    if _list_item(hint) is not None:
        item = _unwrapped(_Place("", _list_item(hint)))
        return f"a list such as {'[0,1]' if item.hint in (int, float, bool) else '[a,b]'}"
    return "text" if hint in (str, Path) else "another value"


def _number(hint: type, metadata: Iterable[Any]) -> str:
    names = ("ge", "gt", "le", "lt")
    bounds = {name: getattr(each, name) for each in metadata for name in names if hasattr(each, name)}
    whole = hint is int
    low = bounds["gt"] + 1 if whole and "gt" in bounds else bounds.get("ge", bounds.get("gt"))
    high = bounds["lt"] - 1 if whole and "lt" in bounds else bounds.get("le", bounds.get("lt"))
    if low is None and high is None:
        return "a whole number" if whole else "a finite number"
    if not whole:
        return f"a number in [{-math.inf if low is None else low:g}, {math.inf if high is None else high:g}]"
    if high is None:
        return f"a whole number of at least {low}"
    return f"a whole number of at most {high}" if low is None else f"a whole number from {low} to {high}"
