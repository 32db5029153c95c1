"""What a value may be. A rule takes a key, for its message, and a value; it returns the value to keep or says no.

Every refusal is an `InputError` of one line: the key, what would be right, and what was given.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hspace.system.registry import unknown
from hspace.types import InputError

Rule = Callable[[str, Any], Any]


def whole(low: int, high: int | None = None) -> Rule:
    """A whole number in [low, high], or of at least `low`."""
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"

    def rule(key: str, value: Any) -> int:
        _require(
            _is(value, int) and low <= value and (high is None or value <= high), key, f"a whole number {bounds}", value
        )
        return value

    return rule


def number(low: int | float = -math.inf, high: int | float = math.inf) -> Rule:
    """A finite number in [low, high]."""
    meaning = f"a number in [{low:g}, {high:g}]" if math.isfinite(low) else "a finite number"

    def rule(key: str, value: Any) -> float:
        _require(_is(value, int, float) and math.isfinite(value) and low <= value <= high, key, meaning, value)
        return float(value)

    return rule


def choice(*names: str) -> Rule:
    """One of the names."""

    def rule(key: str, value: Any) -> str:
        if value not in names:
            raise InputError(unknown(key, value, names))
        return value

    return rule


def network(*names: str, kinds: tuple[str, ...]) -> Rule:
    """One of the names, or KIND:MODEL with a folder or hub id."""

    def rule(key: str, value: Any) -> str:
        kind, _, model = str(value).partition(":")
        if value not in names and not (kind in kinds and model):
            raise InputError(unknown(key, value, [*names, *(f"{kind}:MODEL" for kind in kinds)]))
        return str(value)

    return rule


def flag(key: str, value: Any) -> bool:
    """True or false."""
    _require(isinstance(value, bool), key, "true or false", value)
    return value


def text(key: str, value: Any) -> str:
    """Text that is not empty."""
    _require(isinstance(value, str) and value.strip() != "", key, "text that is not empty", value)
    return value


def word(key: str, value: Any) -> str:
    """Text that can be a file's name on any system."""
    right = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value)
    _require(bool(right), key, "a word of letters, digits, '_', '-' and '.'", value)
    return value


def filepath(key: str, value: Any) -> Path:
    """A path; `~` is the home folder."""
    return Path(text(key, value)).expanduser()


def several(rule: Rule, at_least: int = 0) -> Rule:
    """A list of values that keep the rule, as a tuple."""

    def checked(key: str, value: Any) -> tuple[Any, ...]:
        _require(isinstance(value, list) and len(value) >= at_least, key, "a list such as [0,1]", value)
        return tuple(rule(f"{key}[{i}]", item) for i, item in enumerate(value))

    return checked


def one_or_several(rule: Rule) -> Rule:
    """One value that keeps the rule, or a list of them."""
    return lambda key, value: several(rule, at_least=1)(key, value) if isinstance(value, list) else rule(key, value)


def listed(rule: Rule) -> Rule:
    """One value that keeps the rule, or a list of any length of them, as a tuple."""
    return lambda key, value: several(rule)(key, value if isinstance(value, list) else [value])


def text_or_several(rule: Rule) -> Rule:
    """Text, or a list of values that keep the rule."""
    return lambda key, value: several(rule, at_least=1)(key, value) if isinstance(value, list) else text(key, value)


def optional(rule: Rule) -> Rule:
    """Null, or a value that keeps the rule."""
    return lambda key, value: None if value is None else rule(key, value)


def _is(value: Any, *kinds: type) -> bool:
    """Whether the value is of a kind; true and false are no numbers."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def _require(right: bool, key: str, rule: str, value: Any) -> None:
    if not right:
        raise InputError(f"{key} must be {rule}, got {value!r}")
