# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Effect matrix: the effect of each edit on each attribute, in standard deviations of the unedited samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.metrics.interval import NOTHING, Interval, Means, flip_means, means
from hspace.metrics.selectivity import clear_sizes, selectivity
from hspace.types import InputError

ARRAYS = ("effect", "low", "high", "p")


@dataclass(frozen=True)
class EffectMatrix:
    """Signed effects of edits on attributes, with 95% intervals.

    Attributes:
        attributes: Ids of the A columns.
        edits: Ids of the E rows.
        effect: Effects, (E, A) float64, in standard deviations of the unedited scores, 0 under 1e-6; nan where an
            attribute is constant over them, so that there is no unit, or fewer than ten samples show it.
        low: Lower limits, (E, A); nan also where the change is the same in all samples.
        high: Upper limits, (E, A).
        p: Two-sided p values of no effect, (E, A), uncorrected.
        n: Numbers of samples that show the attribute before and after, (E, A).
        covariance: Covariances of the errors of each edit's effects, (E, A, A).
    """

    attributes: tuple[str, ...]
    edits: tuple[str, ...]
    effect: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    n: np.ndarray
    covariance: np.ndarray

    def select(self, attributes: Sequence[str]) -> "EffectMatrix":
        """The given columns, in the order given.

        Raises:
            InputError: If an attribute is unknown.
        """
        columns = [self._column(name) for name in attributes]
        arrays = {name: getattr(self, name)[:, columns] for name in (*ARRAYS, "n")}
        covariance = self.covariance[:, columns][:, :, columns]
        return EffectMatrix(tuple(attributes), self.edits, **arrays, covariance=covariance)

    def rows(self, rows: Sequence[int], names: Sequence[str] | None = None) -> "EffectMatrix":
        """Some edits, in the order given, under other names if given."""
        index = list(rows)
        arrays = {name: getattr(self, name)[index] for name in (*ARRAYS, "n", "covariance")}
        return replace(self, edits=tuple(names or [self.edits[row] for row in index]), **arrays)

    def cell(self, row: int, attribute: str) -> Interval:
        """One effect.

        Raises:
            InputError: If the attribute is unknown.
        """
        at = row, self._column(attribute)
        return Interval(float(self.effect[at]), float(self.low[at]), float(self.high[at]), int(self.n[at]))

    def strongest(self, row: int) -> tuple[str, float]:
        """Attribute that edit `row` moves most, and its signed effect; ("n/a", nan) where no effect is known."""
        effects = self.effect[row]
        if np.isnan(effects).all():
            return "n/a", float("nan")
        column = int(np.nanargmax(np.abs(effects)))
        return self.attributes[column], float(effects[column])

    def total(self) -> np.ndarray:
        """Sum of the sizes of each row's effects that are clear of their noise, (E,); see `selectivity`.

        Unknown effects count as much as the known ones do on average; nan where more than half are unknown.
        """
        known = np.isfinite(self.effect)
        count, whole = known.sum(axis=1), known.shape[1]
        sizes = clear_sizes(self.effect, np.diagonal(self.covariance, axis1=1, axis2=2)).sum(axis=1, where=known)
        return np.where(2 * count >= whole, sizes * whole / np.maximum(count, 1), np.nan)

    def selectivity(self, targets: Sequence[str]) -> list[Interval]:
        """Share of each row's effects that falls on its target, by `hspace.metrics.selectivity`, over all columns.

        Args:
            targets: Ids of the E attributes that the edits aim at.

        Raises:
            InputError: If a target is unknown or their number is not E.
        """
        if len(targets) != len(self.edits):
            raise InputError(f"there must be one target for each of {len(self.edits)} edits, got {len(targets)}")
        return [self.selectivity_of(row, target) for row, target in enumerate(targets)]

    def selectivity_of(self, row: int, target: str) -> Interval:
        """Share of one row's effects that falls on its target."""
        known = self.n[row][np.isfinite(self.effect[row])]
        fewest = int(known.min()) if len(known) else 0
        return selectivity(self.effect[row], self.covariance[row], self._column(target), fewest)

    def to_dict(self, whole: bool = False) -> dict[str, Any]:
        """The record as JSON types; nan becomes None.

        Args:
            whole: Whether to include the covariances, which only further computations need.
        """
        arrays = {name: _to_lists(getattr(self, name)) for name in ARRAYS} | {"n": self.n.tolist()}
        more = {"covariance": [_to_lists(each) for each in self.covariance]} if whole else {}
        return {"attributes": list(self.attributes), "edits": list(self.edits), **arrays, **more}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EffectMatrix":
        """Inverse of `to_dict(whole=True)`."""
        arrays = {name: np.array(values[name], dtype=np.float64) for name in (*ARRAYS, "covariance")}
        return cls(tuple(values["attributes"]), tuple(values["edits"]), n=np.array(values["n"]), **arrays)

    def _column(self, attribute: str) -> int:
        if attribute not in self.attributes:
            raise InputError(f"unknown attribute {attribute!r}, choose from {', '.join(self.attributes)}")
        return self.attributes.index(attribute)


def effect_matrix(
    original: Tensor,
    edited: Tensor,
    *,
    attributes: Sequence[str],
    binary: Sequence[bool],
    edits: Sequence[str],
    visible: Tensor | None = None,
    unit: Tensor | None = None,
) -> EffectMatrix:
    """Mean change of each score under each edit, in standard deviations over the unedited samples.

    effect[i, j] = mean_s(score_j(edited_i of s) - score_j(s)) / sd_s(score_j(s)), with the n - 1 sd. The interval is
    that of the mean change, by `interval.means` or, for binary attributes, `interval.flip_means`. The unit is a
    yardstick that all edits share, and no interval contains its own error. A rare attribute has hardly any sd over a
    few samples: give `unit` then, from many unedited ones.

    Args:
        original: Scores of the unedited samples, (n, A).
        edited: Scores of the same samples under each edit, (E, n, A).
        attributes: Ids of the A columns.
        binary: Whether each of the A columns holds probabilities.
        edits: Ids of the E rows.
        visible: Whether both scores can be read, bool (n, A) or (E, n, A); other scores are left out.
        unit: Standard deviation of each score over a larger set of unedited samples, (A,); None takes that of
            `original`, over the samples that show the attribute under some edit.

    Raises:
        InputError: If shapes do not agree, there are fewer than two samples, or a visible score is not finite.

    Source: Haas et al. 2024, table I, whose formula is not stated; ours is signed and keeps the scorer's unit out.

    Examples:
        >>> before = torch.linspace(-1, 1, 50)[:, None].repeat(1, 2)
        >>> after = before + torch.tensor([1.0, 0.0]) + 0.01 * before.flip(0)
        >>> columns = {"attributes": ("age", "yaw"), "binary": (False, False)}
        >>> found = effect_matrix(before, after[None], edits=("older",), **columns)
        >>> found.strongest(0)[0], round(found.cell(0, "age").value, 2), abs(found.cell(0, "yaw").value) < 0.01
        ('age', 1.68, True)
    """
    _check_shapes(original, edited, len(attributes), len(edits))
    before, after = (scores.detach().cpu().double().numpy() for scores in (original, edited))
    counted = _counted(visible, after.shape)
    if not np.isfinite(np.where(counted, after, 0) + np.where(counted, before, 0)).all():
        raise InputError("scores must be finite wherever they are visible, got nan or inf")
    sd = _unit(before, np.logical_or.reduce(counted), unit)
    before, after = np.where(counted, before, 0), np.where(counted, after, 0)
    found = [_effects(after[i] - before[i], counted[i], np.array(binary), sd) for i in range(len(edits))]
    cells = {name: np.array([getattr(each, name) for each, _ in found]) for name in ("value", "low", "high", "p", "n")}
    shape = len(edits), len(attributes)
    cells = {name: array.reshape(shape) for name, array in cells.items()}
    covariance = np.array([each for _, each in found]).reshape(*shape, shape[1])
    return EffectMatrix(tuple(attributes), tuple(edits), cells.pop("value"), **cells, covariance=covariance)


def score_unit(scores: Tensor, visible: Tensor) -> Tensor:
    """The n - 1 sd of each score over the samples that show its attribute: (n, A) to (A,), nan under two samples.

    Examples:
        >>> scores = torch.tensor([[1.0, 5.0], [3.0, 9.0]])
        >>> score_unit(scores, torch.tensor([[True, True], [True, False]]))
        tensor([1.4142,    nan], dtype=torch.float64)
    """
    shown = [column[seen].double() for column, seen in zip(scores.T, visible.T, strict=True)]
    # torch's own std of less than two values is nan too, but warns.
    return torch.stack([column.std() if len(column) > 1 else column.new_tensor(torch.nan) for column in shown])


def _effects(change: np.ndarray, counted: np.ndarray, binary: np.ndarray, unit: np.ndarray) -> tuple[Means, np.ndarray]:
    """One edit's effects, (A,), and the covariance of their errors, (A, A), from the changes of scores, (n, A)."""
    change = np.where(np.abs(change) < NOTHING * unit, 0.0, change)
    continuous, flips = means(change, counted), flip_means(np.clip(change, -1, 1), counted)
    found = {name: np.where(binary, getattr(flips, name), getattr(continuous, name)) for name in vars(flips)}
    found |= {name: found[name] / unit for name in ("value", "low", "high", "se")}
    found |= {name: np.where(np.abs(found[name]) < NOTHING, 0.0, found[name]) for name in ("value", "low", "high")}
    found["p"] = np.where(np.isfinite(unit), found["p"], np.nan)
    n = np.maximum(found["n"], 1)
    influence = np.where(counted, change - np.where(counted, change, 0).sum(axis=0) / n, 0) / n / unit
    covariance = influence.T @ influence * (len(change) / (len(change) - 1))
    # The errors of flips include those that the sample does not show.
    np.fill_diagonal(covariance, found["se"] ** 2)
    return Means(**found), covariance


def _unit(before: np.ndarray, counted: np.ndarray, unit: Tensor | None) -> np.ndarray:
    """The sd of each unedited score, (A,); nan where it is 0 up to rounding."""
    before = np.where(counted, before, 0)
    if unit is None:
        found = score_unit(torch.from_numpy(before), torch.from_numpy(counted.copy())).numpy()
    else:
        found = unit.double().cpu().numpy()
    # Rounding leaves a constant score an sd of about 1e-16 of its size.
    return np.where(found > 1e-9 * np.abs(before).max(axis=0), found, np.nan)


def _check_shapes(original: Tensor, edited: Tensor, num_attributes: int, num_edits: int) -> None:
    if original.ndim != 2 or original.shape[1] != num_attributes or len(original) < 2:
        raise InputError(f"original scores must be (n >= 2, {num_attributes} attributes), got {tuple(original.shape)}")
    if edited.shape != (num_edits, *original.shape):
        raise InputError(
            f"edited scores must be ({num_edits} edits, {len(original)}, {num_attributes}), got {tuple(edited.shape)}"
        )


def _counted(visible: Tensor | None, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of scores that count, (E, n, A)."""
    if visible is None:
        return np.ones(shape, dtype=bool)
    if tuple(visible.shape) not in (shape, shape[1:]):
        raise InputError(f"visible must be {shape[1:]} or {shape}, got {tuple(visible.shape)}")
    return np.broadcast_to(visible.cpu().numpy().astype(bool), shape)


def _to_lists(values: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]
