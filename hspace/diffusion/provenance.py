# pyright: strict, reportUnknownMemberType=false
"""The provenance of h, latents, scores and directions: one record, and one check of whether two fit together."""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

from hspace.diffusion.identity import WEIGHTS
from hspace.diffusion.sampler import INJECTIONS
from hspace.system.records import (
    ANYTHING,
    Rule,
    are_labels,
    check_facts,
    is_label,
    is_number,
    is_object,
    is_sha256,
    is_tuple,
    short,
    tuples,
)
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

CLOSE = 1e-6
"""Relative difference up to which numbers count as equal, since the last bits may differ between machines."""


@dataclass(frozen=True)
class ProcessFacts:
    """The generative process as far as a sample depends on it.

    Attributes:
        timesteps: Model time of each step, descending.
        levels: (a, b) of x_t = a x_0 + b eps at each step, noisiest first, then at the clean end; () if unknown.
        prediction_type: Kind of the network's prediction.
    """

    timesteps: tuple[float, ...]
    levels: tuple[tuple[float, float], ...]
    prediction_type: str


@dataclass(frozen=True)
class Provenance:
    """All that a generated thing depends on except its seeds; a field is None where it is unknown or does not matter.

    Attributes:
        model: Parts of the model's identity without the scheduler's, which `process` replaces; `network.tensors` alone
            if the others are unknown.
        process: Steps that are taken.
        tap: Places where h is read.
        conditioning: Condition of the model: `prompt` (SHA-256 of the text) and `guidance`, or `label`; empty for an
            unconditional model.
        eta: Stochasticity of each step, in [0, 1].
        injection: Way in which an edit enters a step, `symmetric` or `asyrp`.
        annotator: `id` and `sha256` of the scorer that chose the examples.
    """

    model: dict[str, str] = field(hash=False)
    process: ProcessFacts
    tap: tuple[str, ...] | None = None
    conditioning: dict[str, Any] | None = field(default=None, hash=False)
    eta: tuple[float, ...] | None = None
    injection: str | None = None
    annotator: dict[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Raises InputError naming the first field that is wrong."""
        check_facts(vars(self), RULES, "a provenance")
        check_facts(vars(self.process), PROCESS_RULES, "a process")
        steps, levels, eta = len(self.process.timesteps), len(self.process.levels), self.eta
        if levels not in (0, steps + 1):
            raise InputError(f"levels must be one per step and the clean end's, got {levels} for {steps} steps")
        if eta is not None and len(eta) != steps:
            raise InputError(f"eta must be one number per step, got {len(eta)} for {steps} steps")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values, for files and for the keys of the cache."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Provenance":
        """Inverse of `to_dict`, of values that anyone may have written.

        Raises:
            InputError: If a key or a value is not one of a provenance.
        """
        if not is_object(values) or not is_object(values.get("process")):
            raise InputError(f"provenance must be an object with a process, got {short(values)}")
        facts = tuples(dict(values))
        # The check comes before the records, whose types are promises that a stranger has not made.
        check_facts(facts | {"process": None}, RULES | {"process": ANYTHING}, "a provenance")
        check_facts(facts["process"], PROCESS_RULES, "a process")
        return cls(**(facts | {"process": ProcessFacts(**facts["process"])}))

    def check(self, other: "Provenance", what: str, allow: Sequence[str] = ()) -> tuple[str, ...]:
        """Check that something may be used where `other` holds.

        Args:
            other: Provenance of the model, or of the thing that this one is used with.
            what: Name of the thing that has this provenance, in the plural: `directions`.
            allow: Fields that may differ; each such difference is logged.

        Returns:
            The differences that were allowed, in words.

        Raises:
            InputError: If a field differs, with its name, both values and the way to allow it; or if `allow` names
                something that is not a field.
        """
        check_allowed(allow)
        accepted: list[str] = []
        for name, (ours, theirs) in self._differences(other).items():
            said = f"{name} is {ours} in the {what}, {theirs} here"
            if name not in allow:
                raise InputError(f"the {what} do not fit: {said}; {self._remedy(other, name)}")
            log.warning("%s, as allowed", said)
            accepted.append(said)
        return tuple(accepted)

    def _remedy(self, other: "Provenance", name: str) -> str:
        if name == "process" and len(self.process.timesteps) != len(other.process.timesteps):
            return f"take {len(self.process.timesteps)} steps"
        return f"allow={name} uses them all the same"

    def _differences(self, other: "Provenance") -> dict[str, tuple[str, str]]:
        """Fields that both know and in which they differ, with both values in words."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        known = {name: pair for name, pair in pairs.items() if None not in pair}
        shown = {name: _DIFFERENCE[name](*pair) for name, pair in known.items()}
        return {name: difference for name, difference in shown.items() if difference is not None}


FIELDS = tuple(field.name for field in fields(Provenance))


def check_allowed(allow: Sequence[str]) -> None:
    """Check that every name in `allow` is a field of a provenance.

    Raises:
        InputError: Naming the first that is not.
    """
    for name in allow:
        if name not in FIELDS:
            raise InputError(f"allow must name some of {', '.join(FIELDS)}, got {name!r}")


def conditioning_of(prompt: str, guidance: float) -> dict[str, Any]:
    """The conditioning by a prompt, without its words."""
    return {"prompt": hashlib.sha256(prompt.encode()).hexdigest(), "guidance": float(guidance)}


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys in which two objects differ."""
    keys = [key for key in sorted({*ours, *theirs}) if not _same(ours.get(key), theirs.get(key))]
    return (_say_keys(ours, keys), _say_keys(theirs, keys)) if keys else None


def _say_keys(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {_say(values.get(key))}" for key in keys)


def _model(ours: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, str] | None:
    weak = {WEIGHTS} in (set(ours), set(theirs))
    return _differing(*({WEIGHTS: part[WEIGHTS]} if weak else part for part in (ours, theirs)))


def _process(ours: ProcessFacts, theirs: ProcessFacts) -> tuple[str, str] | None:
    """Levels last, since different steps have different ones."""
    known = ("timesteps", "prediction_type", *(("levels",) if ours.levels and theirs.levels else ()))
    for name in known:
        difference = _values(getattr(ours, name), getattr(theirs, name))
        if difference is not None:
            return f"{name} {difference[0]}", f"{name} {difference[1]}"
    return None


def _values(ours: Any, theirs: Any) -> tuple[str, str] | None:
    return None if _same(ours, theirs) else (_say(ours), _say(theirs))


def _same(ours: Any, theirs: Any) -> bool:
    if is_tuple(ours) and is_tuple(theirs):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if is_number(ours) and is_number(theirs):
        numbers: Any = (ours, theirs)
        return math.isclose(*numbers, rel_tol=CLOSE, abs_tol=CLOSE)
    return ours == theirs


def _say(value: Any) -> str:
    """A value in a message: hashes by their first digits, equal values of all steps as one."""
    if value is None:
        return "none"
    if is_sha256(value):
        return value[:12]
    if is_tuple(value) and len(set(value)) == 1:
        return _say(value[0])
    if is_tuple(value):
        return short([_plain(each) for each in value])
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if is_tuple(value):
        return tuple(map(_plain, value))
    return float(f"{value:.6g}") if isinstance(value, float) else value


_DIFFERENCE = {
    "model": _model, "process": _process, "tap": _values, "conditioning": _differing, "eta": _values,
    "injection": _values, "annotator": _differing,
}  # fmt: skip


def _are_times(values: Any) -> bool:
    numbers = is_tuple(values) and len(values) > 0 and all(is_number(each) and each >= 0 for each in values)
    return numbers and all(a > b for a, b in pairwise(values))


def _are_levels(values: Any) -> bool:
    pairs = is_tuple(values) and all(is_tuple(pair) and len(pair) == 2 for pair in values)
    return pairs and all(is_number(number) and math.isfinite(number) for pair in values for number in pair)


def _are_etas(values: Any) -> bool:
    return is_tuple(values) and all(is_number(value) and 0 <= value <= 1 for value in values)


def _are_hashes(values: Any) -> bool:
    return (
        is_object(values) and WEIGHTS in values and all(map(is_label, values)) and all(map(is_sha256, values.values()))
    )


def _is_conditioning(values: Any) -> bool:
    return (
        is_object(values)
        and set(values) <= {"prompt", "guidance", "label"}
        and all(is_number(value) or is_label(value) for value in values.values())
    )


def _is_annotator(values: Any) -> bool:
    return is_object(values) and set(values) == {"id", "sha256"} and all(map(is_label, values.values()))


def _or_none(rule: Rule) -> Rule:
    is_right, text = rule
    return lambda value: value is None or is_right(value), f"{text}, or null"


PROCESS_RULES: dict[str, Rule] = {
    "timesteps": (_are_times, "numbers >= 0, descending, at least one"),
    "levels": (_are_levels, "pairs of finite numbers"),
    "prediction_type": (is_label, "1 to 200 printable characters"),
}
RULES: dict[str, Rule] = {
    "model": (_are_hashes, f"an object of SHA-256 sums, {WEIGHTS} among them"),
    "process": (lambda value: isinstance(value, ProcessFacts), "a process"),
    "tap": _or_none((are_labels, "names of taps")),
    "conditioning": _or_none((_is_conditioning, "an object of prompt, guidance and label")),
    "eta": _or_none((_are_etas, "numbers in [0, 1]")),
    "injection": _or_none((lambda value: value in INJECTIONS, " or ".join(INJECTIONS))),
    "annotator": _or_none((_is_annotator, "an object of id and sha256")),
}
"""What each field may be, and how to say so: the same for our own records and a stranger's file."""
