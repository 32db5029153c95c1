"""Names of directions by what they move; a name is a claim, which needs evidence from two sets of samples."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import LEVEL
from hspace.metrics.paired import SIGNIFICANT, holm
from hspace.types import InputError

LEAST_EFFECT = 0.2
"""Smallest effect, in sd, that gives a name."""
UNNAMED = "unnamed"


class Name(NamedTuple):
    """The attribute that a direction moves.

    Attributes:
        attribute: Attribute that it moves most.
        sign: Sign of that move at positive strength, +1 or -1.
        others: Attributes that it moves as much, to within the error.
    """

    attribute: str
    sign: int
    others: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Such as "yaw (+ hair_length)"."""
        return f"{self.attribute} (+ {', '.join(self.others)})" if self.others else self.attribute


def name_edits(first: EffectMatrix, fresh: EffectMatrix) -> list[Name | None]:
    """Names each edit by the attribute that it moves most, on two sets of samples that share none.

    The attribute must be moved by at least .2 sd on both sets, significantly on the first (Holm's correction over the
    attributes), with ten samples or more, to the same side, and most of all on both. Where another attribute that is
    significant too is moved as much, to within the error, the name holds both. Otherwise the edit has no name.

    Args:
        first: Effects on the samples that suggest a name.
        fresh: Effects of the same edits on other samples.

    Raises:
        InputError: If the rows or the columns differ.
    """
    if (first.edits, first.attributes) != (fresh.edits, fresh.attributes):
        raise InputError(
            f"both sets must have the same edits and attributes, got {first.edits} by {first.attributes} and "
            f"{fresh.edits} by {fresh.attributes}"
        )
    return [_name(first, fresh, row, candidates) for row, candidates in enumerate(_candidates(first))]


def suggested(first: EffectMatrix) -> list[int]:
    """The edits that a first set of samples may name; `name_edits` names no other, whatever the second set shows."""
    return np.flatnonzero(_candidates(first).any(axis=1)).tolist()


def numbered(names: Sequence[Name | None]) -> list[str]:
    """The labels of names, equal ones numbered: "yaw 1", "yaw 2"; "unnamed" where there is none.

    Examples:
        >>> numbered([Name("yaw", 1), None, Name("yaw", -1), Name("age", 1, ("beard",))])
        ['yaw 1', 'unnamed', 'yaw 2', 'age (+ beard)']
    """
    labels = [UNNAMED if name is None else name.label for name in names]
    total, seen = Counter(labels), Counter()
    seen_so_far = []
    for label in labels:
        seen[label] += 1
        alone = label == UNNAMED or total[label] == 1
        seen_so_far.append(label if alone else f"{label} {seen[label]}")
    return seen_so_far


def _candidates(first: EffectMatrix) -> np.ndarray:
    """Attributes that each edit surely moves, and enough of, bool (E, A)."""
    with np.errstate(invalid="ignore"):
        return (np.abs(first.effect) >= LEAST_EFFECT) & (np.array([holm(p) for p in first.p]) < SIGNIFICANT)


def _name(first: EffectMatrix, fresh: EffectMatrix, row: int, candidates: np.ndarray) -> Name | None:
    size = np.abs(first.effect[row])
    with np.errstate(invalid="ignore"):
        again = np.abs(fresh.effect[row]) >= LEAST_EFFECT
    again &= np.sign(fresh.effect[row]) == np.sign(first.effect[row])
    if not candidates.any() or np.isnan(fresh.effect[row]).all():
        return None
    most = int(np.where(candidates, size, -1).argmax())
    equal = [j for j in np.flatnonzero(candidates) if j != most and _within_error(first, fresh, row, most, int(j))]
    largest = int(np.nanargmax(np.abs(fresh.effect[row])))
    if not again[most] or largest not in (most, *equal):
        return None
    sign = 1 if first.effect[row, most] > 0 else -1
    return Name(first.attributes[most], sign, tuple(first.attributes[j] for j in equal))


def _within_error(first: EffectMatrix, fresh: EffectMatrix, row: int, a: int, b: int) -> bool:
    """Whether the sizes of two effects, in the mean of both sets, differ by no more than their difference's error."""
    difference, variance = 0.0, 0.0
    for matrix in (first, fresh):
        effect, errors = matrix.effect[row], matrix.covariance[row]
        difference += (abs(effect[a]) - abs(effect[b])) / 2
        variance += (errors[a, a] + errors[b, b] - 2 * np.sign(effect[a] * effect[b]) * errors[a, b]) / 4
    return bool(abs(difference) <= stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(max(variance, 0.0)))
