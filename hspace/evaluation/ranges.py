"""The range in which a direction or an operator can safely be moved, as files keep it; `safe_ranges` measures it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from hspace.diffusion.sampler import INJECTIONS, Sampler
from hspace.directions.operators import STRENGTHS, Found, Operator
from hspace.system.records import is_object

POINTS = 4
"""Strengths on either side of 0 at which a direction is measured, and then spaced; twice as many of an operator."""
Kept = TypeVar("Kept", bound=Found)


@dataclass(frozen=True)
class SliderRange:
    """A direction, or an operator, as a slider, as JSON values.

    Attributes:
        attribute: Attribute that it is named after or moves most; None where no attribute can be read or moves surely.
        low: Smallest safe strength, <= 0; 0 of an operator.
        high: Largest safe strength, >= 0.
        low_because: Reason of its lower end: `identity`, the id of another attribute, or `untested` beyond the
            strengths that were tried.
        high_because: Reason of its upper end.
        strengths: Strengths from low to high, through 0, whose images are evenly apart, 2 POINTS + 1 of them.
        tried: Strengths that were measured, ascending; 0 is among them.
        effect: Effect on `attribute` at each, in sd, with the ends of its 95% interval, (tried, 3); None where fewer
            than ten samples show it, as hair under a hat, and for the ends also where it changes alike in all.
        identity: Mean cosine at each; empty without an identity encoder.
        limits: Limits that were used.
        scorer: Id of the scorer.
        seeds: Seeds of the samples.
        injection: Terms of the step that the edits entered; see `Sampler`.
        start: First step that was edited.
        stop: First step that was not edited any more; None is the end.
        shown: Numbers of samples that show `attribute` at each of `tried`; empty in records that do not tell.
        eta: Stochasticity of the sampling, one value or one per step; None in records that do not tell.
    """

    attribute: str | None
    low: float
    high: float
    low_because: str
    high_because: str
    strengths: tuple[float, ...]
    tried: tuple[float, ...]
    effect: tuple[tuple[float | None, float | None, float | None], ...]
    identity: tuple[float, ...]
    limits: dict[str, float | None]
    scorer: str
    seeds: tuple[int, ...]
    injection: str = "symmetric"
    start: int = 0
    stop: int | None = None
    shown: tuple[int, ...] = ()
    eta: float | Sequence[float] | None = None

    def unlike(self, sampler: Sampler, num_steps: int) -> str:
        """The settings of the edits, of `num_steps` steps, that were others when it was measured; empty if none."""
        ours, theirs = (_settings(each, num_steps) for each in (self, sampler))
        return ", ".join(f"{name}={value}" for name, value in ours.items() if value not in (None, theirs[name]))

    def beyond(self, strength: float) -> str | None:
        """What it costs to go as far as a strength: a reason as in `high_because`; None within the safe range."""
        if self.low <= strength <= self.high:
            return None
        return self.high_because if strength > self.high else self.low_because

    def evenly(self, end: float, count: int) -> list[float]:
        """Strengths after 0 up to `end`, whose images are evenly apart; beyond the safe range the last gap goes on.

        Args:
            end: Last strength, of either sign.
            count: Number of strengths, >= 1.
        """
        side = [0.0, *sorted(abs(strength) for strength in self.strengths if strength * end > 0)]
        if len(set(side)) < max(len(side), 2):  # nothing is safe on this side, and nothing was spaced
            return [end * (i + 1) / count for i in range(count)]
        last = side[-1] - side[-2]
        sizes = [*side, side[-1] + last * (abs(end) / last + 1)]
        places = [*range(len(side)), len(side) + abs(end) / last]
        whole = float(np.interp(abs(end), sizes, places))
        found = np.interp([whole * (i + 1) / count for i in range(count)], places, sizes)
        return [math.copysign(float(size), end) for size in found[:-1]] + [end]

    def scaled(self, factor: float) -> "SliderRange":
        """The range of a direction whose strengths are `factor`, not 0, times those of this one; -1 turns it round."""
        side = 1 if factor > 0 else -1

        def moved(strengths: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(factor * strength + 0.0 for strength in strengths[::side])  # without minus zero

        (low, high), because = moved((self.low, self.high)), (self.low_because, self.high_because)[::side]
        return replace(
            self, low=low, high=high, low_because=because[0], high_because=because[1], strengths=moved(self.strengths),
            tried=moved(self.tried), effect=self.effect[::side], identity=self.identity[::side],
            shown=self.shown[::side],
        )  # fmt: skip


def _settings(source: SliderRange | Sampler, num_steps: int) -> dict[str, Any]:
    """What decides on an edit besides its direction; no stop is the same as the last step, one eta as that of each."""
    eta, stop = source.eta, num_steps if source.stop is None else source.stop
    if isinstance(eta, Sequence) and len(set(eta)) == 1:
        eta = eta[0]
    return {"eta": eta, "injection": source.injection, "start": source.start, "stop": stop}


def with_ranges(directions: Kept, ranges: dict[int, SliderRange]) -> Kept:
    """The directions with the ranges of some of them in their metadata, under `range` of the direction's name.

    If all ranges of directions are known, the tensor `range` holds the safe strengths. An operator is component 0.
    """
    records: dict[str, Any] = dict(directions.meta.calibration or {})
    for component, found in ranges.items():
        name = directions.meta.names[component]
        records[name] = facts_about(directions, name) | {"range": asdict(found)}
    kept = replace(directions, meta=replace(directions.meta, calibration=records))
    if isinstance(kept, Operator):
        return kept
    known = [range_of(kept, component) for component in range(len(kept.meta.names))]
    ends = [[found.low, found.high] for found in known if found is not None]
    return replace(kept, range=torch.tensor(ends)) if len(ends) == len(known) else kept


def without_range(directions: Kept, component: int) -> Kept:
    """The directions without the range of one of them, or the operator without its own."""
    name = directions.meta.names[component]
    facts = {key: value for key, value in facts_about(directions, name).items() if key != "range"}
    records = (directions.meta.calibration or {}) | {name: facts}
    left = replace(directions, meta=replace(directions.meta, calibration=records))
    return left if isinstance(left, Operator) else replace(left, range=None)


def facts_about(directions: Found, name: str) -> dict[str, Any]:
    """What a file's metadata say of a direction under its name; a stranger's file may hold anything there."""
    found = (directions.meta.calibration or {}).get(name)
    return found if is_object(found) else {}


def range_of(directions: Found, component: int) -> SliderRange | None:
    """The range of a direction, or an operator, that a file holds; None where it holds none that can be read."""
    values: Any = facts_about(directions, directions.meta.names[component]).get("range")
    try:
        tuples = {key: tuple(values[key]) for key in ("strengths", "tried", "identity", "seeds")}
        tuples["shown"], eta = tuple(values.get("shown", ())), values.get("eta")
        tuples |= {"eta": tuple(eta)} if isinstance(eta, list) else {}
        found = SliderRange(**(values | tuples | {"effect": tuple(map(tuple, values["effect"]))}))
        return found if _is_sound(found, isinstance(directions, Operator)) else None
    except (TypeError, KeyError):
        return None


def range_unlike(directions: Found, component: int, sampler: Sampler) -> str:
    """The settings of the edits that were others when a range was measured; empty if none, or no range."""
    # An edit of x_T is made before the steps, so that their settings do not matter.
    found = range_of(directions, component) if directions.meta.space == "h" else None
    return "" if found is None else found.unlike(sampler, len(directions.meta.timesteps))


def _is_sound(found: SliderRange, operator: bool) -> bool:
    """Whether the numbers of a stranger's file can be used: they are finite, ascending, and of the right count."""
    effects = (value for row in found.effect for value in row if value is not None)
    numbers = (found.low, found.high, *found.strengths, *found.tried, *effects, *found.shown)
    finite = all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
    ordered = finite and list(found.strengths) == sorted(found.strengths) and list(found.tried) == sorted(found.tried)
    shaped = len(found.effect) == len(found.tried) and all(len(row) == 3 for row in found.effect)
    shaped = shaped and len(found.shown) in (0, len(found.tried))
    zero = 0 if operator else POINTS
    spaced = len(found.strengths) == 2 * POINTS + 1 and found.strengths[zero] == 0 and len(found.tried) > 1
    least, most = STRENGTHS
    allowed = not operator or all(least <= each <= most for each in (found.low, *found.strengths, *found.tried))
    worded = isinstance(found.attribute, str | None) and all(
        isinstance(text, str) for text in (found.low_because, found.high_because)
    )
    steps = type(found.start) is int and (found.stop is None or type(found.stop) is int)
    made = steps and found.injection in INJECTIONS and _is_eta(found.eta)
    return ordered and shaped and spaced and allowed and worded and made and found.low <= 0 <= found.high


def _is_eta(value: Any) -> bool:
    """Whether a stranger's value is an eta, one per step, or none."""
    values: tuple[Any, ...] = value if isinstance(value, tuple) and value else (value,)
    return value is None or all(type(each) in (int, float) and 0 <= each <= 1 for each in values)
