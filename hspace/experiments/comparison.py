"""What is compared of methods, by their figures in every draw, and what comes of it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hspace.metrics.interval import Interval, over_draws
from hspace.metrics.paired import differs, holm, leading, paired_draws
from hspace.output.tables import Cell, format_number

REFERENCE = "mean difference"
"""The paper's supervised method, which every other is compared with."""
RANKED = ("selectivity", "table", "identity", "likeness")
"""Figures whose best method is told."""
TESTED = ("effect", *RANKED)
"""Figures that differences are tested of: the effects too, which are to be equal, so that none of them is the best."""
MOST = 0.5
"""Methods are compared on the attributes that this part of them reaches."""


class Figures(NamedTuple):
    """What the judge reads of an edit; nan where it cannot be told.

    Attributes:
        effect: Effect on the attribute, in sd, signed.
        selectivity: Over all judged attributes.
        table: Selectivity over the attributes of the comparison.
        accuracy: Share that flips to the asked side of those that could.
        identity: Cosine of all that a person owns.
        likeness: Cosine of what no judged attribute is.
    """

    effect: float
    selectivity: float
    table: float
    accuracy: float
    identity: float
    likeness: float


NAMES = ("effect", "selectivity", "selectivity in the table", "accuracy", "identity", "likeness")
"""The figures in tables."""
UNREAD = Figures(*[float("nan")] * len(NAMES))
Compared = Mapping[str, np.ndarray]
"""Figures by method, (draws, figures)."""


class Lead(NamedTuple):
    """The method with the largest mean of a figure.

    Attributes:
        method: Its name.
        value: The mean over draws.
        difference: Mean difference to the second, by draw; its limits are nan where its error is not known.
    """

    method: str
    value: float
    difference: Interval

    @property
    def winner(self) -> str | None:
        """The method, if the interval of the difference leaves 0 out."""
        return self.method if self.difference.low > 0 else None


def comparable(reached: np.ndarray, signs: Sequence[int]) -> tuple[list[int], list[int]]:
    """The attributes and the methods that are compared, by what the annotator sees and the judge does not.

    Args:
        reached: Whether the target is reached, bool (methods, draws, attributes).
        signs: Of every method 1, or -1 of what takes an attribute off: it changes other samples, and is not compared.

    Returns:
        Indices of the attributes that at least half of the methods with sign 1 reach in every draw, and of those of
        them that reach all of these in every draw.
    """
    giving = np.array(signs) > 0
    always = np.logical_and.reduce(reached, axis=1) & giving[:, None]
    common = np.flatnonzero(always.sum(axis=0) >= max(MOST * giving.sum(), 1))
    fair = np.flatnonzero(always[:, common].all(axis=1)) if len(common) else []
    return [int(j) for j in common], [int(m) for m in fair]


def over_attributes(values: np.ndarray) -> np.ndarray:
    """Means over attributes of (methods, draws, attributes, ..., figures): of all of them, or nan.

    That of accuracy is over the attributes where enough samples could flip, if every edit can be read.
    """
    means, place = values.mean(axis=2), Figures._fields.index("accuracy")
    read = np.isfinite(means[..., Figures._fields.index("effect")])
    accuracy = values[..., place]
    known = np.isfinite(accuracy)
    count = np.where(read & known.any(axis=2), known.sum(axis=2), np.nan)
    means[..., place] = np.where(known, accuracy, 0).sum(axis=2) / count
    return means


def lead(compared: Compared, name: str) -> Lead | None:
    """The method that is first in a figure; None where fewer than two have one."""
    columns = {method: values[:, Figures._fields.index(name)] for method, values in compared.items()}
    columns = {method: values for method, values in columns.items() if np.isfinite(values).any()}
    if len(columns) < 2:
        return None
    first, difference = leading(columns)
    return Lead(first, over_draws(columns[first]).value, difference)


def winners(compared: Compared) -> dict[str, str | None]:
    """The method that beats the second, of every figure that has a best."""
    leads = {name: lead(compared, name) for name in RANKED}
    return {name: None if each is None else each.winner for name, each in leads.items()}


def differences(compared: Compared) -> list[tuple[Cell, ...]]:
    """Each method less the reference in each figure, by draw; Holm's correction is over the methods of a figure."""
    rows: list[tuple[Cell, ...]] = []
    others = [method for method in compared if method != REFERENCE] if REFERENCE in compared else []
    for name in TESTED if others else ():
        column = Figures._fields.index(name)
        found = [paired_draws(compared[each][:, column], compared[REFERENCE][:, column]) for each in others]
        corrected = holm(np.array([p for _, p in found]))
        rows += [
            (NAMES[column], method, difference, float(p), differs(p))
            for method, (difference, _), p in zip(others, found, corrected, strict=True)
        ]
    return rows


def conclusion(at: str, attributes: Sequence[str], compared: Compared) -> str:
    """Which of the methods that reach every target is most selective, and which keeps identity best."""
    if not compared:
        return f"At {at} no method is compared: none reaches the target where half of them do."
    where = f"for {', '.join(attributes)}"
    if len(compared) == 1:
        return f"At {at} {next(iter(compared))} alone reaches the target {where}."
    leads = {name: lead(compared, name) for name in ("selectivity", "identity")}
    told = ", and ".join(_told(name, each) for name, each in leads.items())
    known = [each for each in leads.values() if each is not None and math.isfinite(each.difference.low)]
    error = (
        " The error is the 95% interval of the paired difference to the second, not corrected for the choice of the "
        "first among the methods."
    )
    return f"At {at}, of {len(compared)} methods that reach it {where}, {told}." + error * bool(known)


def _told(name: str, first: Lead | None) -> str:
    """Such as "identity is highest for ICA (.82), with a lead beyond its error"."""
    if first is None:
        return f"{name} is known for fewer than two"
    if math.isnan(first.difference.low):
        sure = "whose error is not known"
    else:
        sure = "beyond its error" if first.winner else "within its error"
    return f"{name} is highest for {first.method} ({format_number(first.value)}), with a lead {sure}"
