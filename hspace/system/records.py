"""Records on disk: tensors and facts about them in one safetensors file, which is read without trust in its writer.

The facts are one JSON object in the file's metadata, under the key `hspace`.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hspace.system.files import write_atomic
from hspace.types import InputError

KEY = "hspace"
MAX_FILE_BYTES = 16 * 2**30
MAX_FACTS_CHARACTERS = 16 * 2**20
Rule = tuple[Callable[[Any], bool], str]
"""A check of a value, and a description of right values."""


def save_record(path: str | Path, tensors: Mapping[str, Tensor | None], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts, atomically.

    Args:
        path: Safetensors file to write.
        tensors: Tensors by name; None is left out.
        facts: Facts as JSON values.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If a number of the facts is NaN or infinite.
    """
    text = json.dumps(facts, allow_nan=False)
    present = {name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    with write_atomic(path) as temporary:
        save_file(present, temporary, metadata={KEY: text})


def load_record(path: str | Path, what: str, parse: Callable[[dict[str, Any], dict[str, Tensor]], Any]) -> Any:
    """Read a record that anyone may have written.

    Args:
        path: Safetensors file to read.
        what: Name of its expected contents, for errors: `directions`.
        parse: Function that checks facts and tensors, raises InputError, and makes the record.

    Raises:
        InputError: If the file is missing, too large, not of that kind, or refused by `parse`; one line that names it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{what} file not found: {path}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{what} file {path} is larger than {MAX_FILE_BYTES >> 30} GiB")
    try:
        with safe_open(path, framework="pt") as file:
            facts = parse_facts((file.metadata() or {}).get(KEY))
            # Copies: a tensor that keeps the file mapped would keep Windows from writing it anew.
            return parse(facts, {name: file.get_tensor(name).clone() for name in file.keys()})
    except InputError as error:
        raise InputError(f"{what} file {path}: {error}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{what} file {path} is not a readable safetensors file: {short(error)}") from None


def parse_facts(text: str | None) -> dict[str, Any]:
    """A stranger's JSON object.

    Raises:
        InputError: If there is none, or it is too long, not JSON, too deeply nested, or holds a number that is not
            finite, or a whole one of more than 64 bits.
    """
    if text is None:
        raise InputError(f"must have metadata under the key '{KEY}', has none: not written by hspace")
    if len(text) > MAX_FACTS_CHARACTERS:
        raise InputError(f"metadata must be at most {MAX_FACTS_CHARACTERS} characters, got {len(text)}")
    try:
        values = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise InputError(f"metadata must be JSON with finite numbers: {short(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"metadata must be a JSON object, got {type(values).__name__}")
    return values


def check_facts(facts: Mapping[str, Any], rules: Mapping[str, Rule], what: str) -> None:
    """Check that there is every key of the rules and no other, and that each value is right.

    Raises:
        InputError: If a key is missing or too many, or a value is wrong; the message names it.
    """
    wrong = sorted(set(facts) ^ set(rules))
    if wrong:
        raise InputError(f"metadata must have exactly the keys of {what}, wrong here: {short(wrong)}")
    for name, (is_right, rule) in rules.items():
        if not is_right(facts[name]):
            raise InputError(f"{name} must be {rule}, got {short(facts[name])}")


def check_names(tensors: Mapping[str, Tensor], required: set[str], optional: set[str]) -> None:
    """Check that a file holds all required tensors, and no others than the required and optional ones.

    Raises:
        InputError: If it does not, with the names of its tensors.
    """
    if not required <= set(tensors) <= required | optional:
        allowed = f" and at most {', '.join(sorted(optional))}" if optional else ""
        needed = ", ".join(f"'{name}'" for name in sorted(required))
        raise InputError(f"must hold the tensors {needed}{allowed}, got {short(sorted(tensors))}")


def check_floats(tensors: Mapping[str, Tensor]) -> None:
    """Check that all tensors are of finite floating-point numbers.

    Raises:
        InputError: If one is not, with its name.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise InputError(f"{name} must be floating-point, got {str(tensor.dtype).removeprefix('torch.')}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{name} must be finite, got nan or inf")


def tuples(value: Any) -> Any:
    """JSON values with tuples for lists, at any depth."""
    if isinstance(value, list):
        return tuple(tuples(each) for each in value)
    return {key: tuples(each) for key, each in value.items()} if isinstance(value, dict) else value


def short(value: object) -> str:
    """A stranger's value on one line, without control characters, at most 100 characters."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= 100 else f"{text[:99]}…"


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Whether it is a tuple."""
    return isinstance(value, tuple)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a list."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def is_label(value: object) -> bool:
    """Whether it is a text of 1 to 200 printable characters."""
    return isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable()


def are_labels(values: object) -> bool:
    """Whether it is a tuple of labels; see `is_label`."""
    return is_tuple(values) and all(map(is_label, values))


def are_counts(values: object) -> bool:
    """Whether it is a tuple of integers >= 0."""
    return isinstance(values, tuple) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def is_number(value: object) -> bool:
    """Whether it is a number, which True is not."""
    return type(value) in (int, float)


def is_sha256(value: object) -> bool:
    """Whether it is 64 hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def one_of(choices: tuple[str, ...]) -> Rule:
    """The rule of a choice."""
    return lambda value: value in choices, " or ".join(choices)


ANYTHING: Rule = (lambda _: True, "anything")
LABEL: Rule = (is_label, "1 to 200 printable characters")


def _whole(text: str) -> int:
    number = int(text)
    if number.bit_length() > 64:
        raise ValueError(f"number {text[:20]}")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"number {text[:20]}")
    return number
