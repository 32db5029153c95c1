"""All that is measured at one place of a network, and its figures in the mean over attributes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from hspace.evaluation.ladder import Strength
from hspace.evaluation.readings import Readings
from hspace.experiments.doses import Dose
from hspace.experiments.places import Place, find, readings
from hspace.experiments.probes import calibrate, components, exchanged, semantic
from hspace.metrics.interval import MIN_SAMPLES, Interval, mean_interval

SHARES = (1.0, 0.5)
"""Effects at which edits are compared, in fractions of `study.target`."""
WHOLE = "all steps"


class Key(NamedTuple):
    """What an edit is for: the attribute, the effect that an edit of all steps has there, and the edited steps."""

    attribute: str
    target: float
    window: str


class Figures(NamedTuple):
    """Figures of some edits; likeness is None where no encoder reads it, and selectivity a mean without an interval."""

    effect: Interval
    selectivity: Interval | float
    identity: Interval
    likeness: Interval | None


@dataclass(frozen=True)
class Measured:
    """What was measured at one place.

    Attributes:
        place: The place.
        strengths: Strength of each attribute's direction, by attribute and target.
        edits: Figures of each edit of one attribute.
        means: The same in the mean over attributes, by target and window.
        semantic: Attributes of the components that move one.
        carried: What a swap of h carries over, by attribute, and `background` where there is one.
        readings: The judge's readings, of the edits and of the components, by name.
    """

    place: Place
    strengths: Mapping[tuple[str, float], Strength]
    edits: Mapping[Key, Figures]
    means: Mapping[tuple[float, str], Figures]
    semantic: Sequence[str]
    carried: Mapping[str, Interval]
    readings: Mapping[str, Readings]

    @property
    def median_carried(self) -> float:
        """Median over attributes of the share that a swap carries."""
        shares = [each.value for name, each in self.carried.items() if name != "background"]
        known = [share for share in shares if math.isfinite(share)]
        return float(np.median(known)) if known else math.nan

    def reached(self, target: float) -> int:
        """Number of attributes of which the annotator sees a target effect."""
        return sum(strength.reached for (_, wanted), strength in self.strengths.items() if wanted == target)


def windows(steps: int) -> dict[str, tuple[int, int | None]]:
    """All steps, and each third of them, by name: the first, and the one to stop before.

    Examples:
        >>> list(windows(10).values())
        [(0, None), (0, 4), (4, 7), (7, 10)]
    """
    thirds = [part.tolist() for part in np.array_split(np.arange(steps), 3)]
    return {WHOLE: (0, None), **{_named(part[0], part[-1]): (part[0], part[-1] + 1) for part in thirds if part}}


def _named(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"


def measure(place: Place) -> Measured:
    """Finds directions at a place, edits along them at equal effect, edits components, and swaps h."""
    vectors, targets = find(place), [share * place.lab.cfg.study.target for share in SHARES]
    strengths = calibrate(place, vectors, targets)
    doses = dict(_doses(place, strengths))
    named = {f"{key.attribute} at {key.target:g} sd, {key.window}": dose for key, dose in doses.items()}
    seen = readings(place, vectors, named, place.lab.seeds(), place.lab.judge)
    components_seen, effects = components(place, vectors)
    edits = {key: _figures(seen, row, key.attribute) for row, key in enumerate(doses)}
    return Measured(
        place, strengths, edits, _means(seen, list(doses), edits), semantic(effects), exchanged(place),
        {"edits": seen, "components": components_seen},
    )  # fmt: skip


def _doses(place: Place, strengths: Mapping[tuple[str, float], Strength]) -> Iterator[tuple[Key, Dose]]:
    """Every direction at every target, and at the largest one also in each window of steps."""
    largest, parts = max(target for _, target in strengths), windows(len(place.lab.model.process.timesteps))
    for (name, target), strength in strengths.items():
        for window, steps in parts.items():
            if window == WHOLE or target == largest:
                yield Key(name, target, window), Dose(place.attributes.index(name), strength.value, *steps)


def _figures(seen: Readings, row: int, attribute: str) -> Figures:
    """Of one edit."""
    effects = seen.effects()
    selectivity = effects.selectivity_of(row, attribute)
    return Figures(effects.cell(row, attribute), selectivity, seen.identity(row), seen.likeness(row))


def _means(seen: Readings, keys: Sequence[Key], edits: Mapping[Key, Figures]) -> dict[tuple[float, str], Figures]:
    """Figures in the mean over attributes."""
    means = {}
    for target, window in dict.fromkeys((key.target, key.window) for key in keys):
        rows = {key.attribute: row for row, key in enumerate(keys) if (key.target, key.window) == (target, window)}
        shares = [edits[Key(name, target, window)].selectivity for name in rows]
        selectivity = float(np.mean([share.value for share in shares if isinstance(share, Interval)]))
        identity, likeness = (_mean_cosine(cosine, rows) for cosine in (seen.cosine, seen.likeness_cosine))
        assert identity is not None
        means[target, window] = Figures(mean_effect(seen, rows), selectivity, identity, likeness)
    return means


def mean_effect(seen: Readings, rows: Mapping[str, int]) -> Interval:
    """Mean over attributes of the effect of each one's own edit, over the samples that show it.

    It is nan where fewer than ten samples show one of the attributes, as that effect is.

    Args:
        seen: Readings of the edits.
        rows: Index of each attribute's edit.
    """
    total = np.zeros(len(seen.seeds))
    for name, row in rows.items():
        change = seen.changes(row, name)
        shown = np.isfinite(change)
        if shown.sum() < MIN_SAMPLES:
            return Interval(math.nan, math.nan, math.nan, int(shown.sum()))
        mean = change[shown].mean()
        # The influence of each sample on the mean, of which a hidden one has none.
        total += mean + np.where(shown, np.nan_to_num(change) - mean, 0) / shown.mean()
    return mean_interval(total / len(rows))


def _mean_cosine(cosine: Tensor | None, rows: Mapping[str, int]) -> Interval | None:
    return None if cosine is None else mean_interval(cosine[list(rows.values())].mean(dim=0).numpy(), -1.0, 1.0)
