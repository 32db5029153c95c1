"""Effect matrix: what each edit does to each attribute, in standard deviations of the unedited samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.types import InputError


@dataclass(frozen=True)
class EffectMatrix:
    """Signed effects of edits on attributes, with 95% intervals.

    Attributes:
        attributes: Column ids, A of them.
        edits: Row ids, E of them.
        effect: (E, A) float64, in standard deviations of the unedited scores; nan where an attribute is constant or
            was never visible, so that the unit does not exist.
        low: (E, A) 2.5% point of the bootstrap.
        high: (E, A) 97.5% point of the bootstrap.
    """

    attributes: tuple[str, ...]
    edits: tuple[str, ...]
    effect: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def select(self, attributes: Sequence[str]) -> "EffectMatrix":
        """The given columns, in the order given.

        Raises:
            InputError: If an attribute is unknown.
        """
        self._check_known(attributes)
        columns = [self.attributes.index(name) for name in attributes]
        arrays = {name: getattr(self, name)[:, columns] for name in ("effect", "low", "high")}
        return EffectMatrix(tuple(attributes), self.edits, **arrays)

    def strongest(self, row: int) -> tuple[str, float]:
        """Attribute that edit `row` moves most, and its signed effect.

        Raises:
            InputError: If no attribute of the row has an effect (all constant).
        """
        effects = self.effect[row]
        if np.isnan(effects).all():
            raise InputError(f"edit {self.edits[row]!r} has no effect to rank: every attribute is constant")
        column = int(np.nanargmax(np.abs(effects)))
        return self.attributes[column], float(effects[column])

    def selectivity(self, targets: Sequence[str]) -> np.ndarray:
        """Share of each row's total effect that falls on its target: |effect on target| / sum of |row|.

        Args:
            targets: The attribute that each edit aims at, E ids.

        Returns:
            (E,) in [0, 1]; nan where the target's effect is nan. Constant attributes count as unmoved.

        Raises:
            InputError: If a target is unknown or there are not E of them.
        """
        size, on_target = self._sizes(targets)
        with np.errstate(invalid="ignore"):
            return on_target / np.nansum(size, axis=1)

    def leakage(self, targets: Sequence[str]) -> np.ndarray:
        """Mean size of each row's other effects relative to its target's: mean |off target| / |on target|.

        0 is an edit of the target alone, 1 one that moves the others as much. Unlike selectivity it does not depend on
        the number of attributes that are read.

        Args:
            targets: The attribute that each edit aims at, E ids.

        Returns:
            (E,) >= 0, inf where the target does not move; nan where its effect is nan, or it is the only attribute.

        Raises:
            InputError: If a target is unknown or there are not E of them.

        Source: Haas et al. 2024, table I, from whose rows it is .87 before disentangling and .30 after.
        """
        size, on_target = self._sizes(targets)
        others = np.isfinite(size).sum(axis=1) - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            return (np.nansum(size, axis=1) - on_target) / others / on_target

    def _sizes(self, targets: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Sizes of all effects, (E, A), and of those on target, (E,)."""
        if len(targets) != len(self.edits):
            raise InputError(f"there must be one target for each of {len(self.edits)} edits, got {len(targets)}")
        self._check_known(targets)
        size = np.abs(self.effect)
        return size, size[np.arange(len(targets)), [self.attributes.index(target) for target in targets]]

    def _check_known(self, attributes: Sequence[str]) -> None:
        unknown = [name for name in attributes if name not in self.attributes]
        if unknown:
            raise InputError(f"unknown attribute {unknown[0]!r}, choose from {', '.join(self.attributes)}")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON types; nan becomes None."""
        arrays = {name: _to_lists(getattr(self, name)) for name in ("effect", "low", "high")}
        return {"attributes": list(self.attributes), "edits": list(self.edits), **arrays}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "EffectMatrix":
        """Inverse of `to_dict`."""
        arrays = {name: np.array(record[name], dtype=np.float64) for name in ("effect", "low", "high")}
        return cls(tuple(record["attributes"]), tuple(record["edits"]), **arrays)


def effect_matrix(
    original: Tensor,
    edited: Tensor,
    *,
    attributes: Sequence[str],
    edits: Sequence[str],
    visible: Tensor | None = None,
    unit: Tensor | None = None,
    bootstrap: int = 1000,
    seed: int,
) -> EffectMatrix:
    """Mean change of each score under each edit, in standard deviations over the unedited samples.

    effect[i, j] = mean_s(score_j(edited_i of s) - score_j(s)) / sd_s(score_j(s)), with the n - 1 sd. The interval is
    the percentile bootstrap over samples: one draw resamples originals and all their edits together, the sd included.
    A rare attribute has hardly any sd over a few samples: give `unit` then, from many unedited ones.

    Args:
        original: Scores of the unedited samples, (n, A).
        edited: Scores of the same samples under each edit, (E, n, A).
        attributes: Column ids, A.
        edits: Row ids, E.
        visible: Where both scores can be read, bool (n, A) or (E, n, A); the others are left out of mean and sd.
        unit: The sd of each score over a larger set of unedited samples, (A,), which the bootstrap then keeps; None
            takes that of `original`.
        bootstrap: Number of resamples, at least 100.
        seed: Key of the bootstrap's own generator.

    Returns:
        Effects and intervals, (E, A). An attribute that is constant over the unedited samples has no unit: nan.

    Raises:
        InputError: On shapes that do not agree, fewer than two samples, or a visible score that is not finite.

    Source: Haas et al. 2024, table I, whose formula is not stated; ours is signed and keeps the scorer's unit out.
    """
    if bootstrap < 100:
        raise InputError(f"bootstrap must be at least 100 resamples, got {bootstrap}")
    _check_shapes(original, edited, len(attributes), len(edits))
    before, after = (scores.detach().cpu().double().numpy() for scores in (original, edited))
    counted = _counted(visible, after.shape)
    if not np.isfinite(np.where(counted, after, 0) + np.where(counted, before, 0)).all():
        raise InputError("scores must be finite wherever they are visible, got nan or inf")
    before, after = np.where(counted, before, 0), np.where(counted, after, 0)
    num_samples = len(original)
    draws = np.random.default_rng(seed).multinomial(num_samples, np.full(num_samples, 1 / num_samples), size=bootstrap)
    # The first row of weights, all ones, is the sample itself: estimate and resamples share one formula.
    weights = np.vstack([np.ones(num_samples), draws])
    effects = _standardised_change(weights, before, after, counted, unit)
    low, high = _percentiles(effects[1:], missing=np.isnan(effects[0]))
    return EffectMatrix(tuple(attributes), tuple(edits), effects[0], low, high)


def name_components(matrix: EffectMatrix) -> list[tuple[str, int] | None]:
    """Name each edit after the attribute it moves most, with the sign of the move at positive strength.

    An edit none of whose intervals excludes zero stays unnamed (None): a name is a claim.

    Returns:
        E pairs (attribute, +1 or -1) or None.
    """
    excludes_zero = (matrix.low > 0) | (matrix.high < 0)
    size = np.where(excludes_zero, np.abs(matrix.effect), 0)
    names: list[tuple[str, int] | None] = []
    for row, column in enumerate(size.argmax(axis=1)):
        sign = 1 if matrix.effect[row, column] > 0 else -1
        names.append((matrix.attributes[column], sign) if size[row, column] > 0 else None)
    return names


def score_unit(scores: Tensor, visible: Tensor) -> Tensor:
    """The n - 1 sd of each score over the samples that show its attribute: (n, A) to (A,), nan under two samples."""
    shown = [column[seen].double() for column, seen in zip(scores.T, visible.T, strict=True)]
    # torch's own std of less than two values is nan too, but warns.
    return torch.stack([column.std() if len(column) > 1 else column.new_tensor(torch.nan) for column in shown])


def _standardised_change(
    weights: np.ndarray, before: np.ndarray, after: np.ndarray, counted: np.ndarray, unit: Tensor | None
) -> np.ndarray:
    """Weighted mean of (after - before) over `unit`, or over the weighted sd of before.

    (draws, n) with (E, n, A) gives (draws, E, A).
    """
    # Centring keeps the sum-of-squares form of the variance exact to rounding.
    centred = (before - before.mean(axis=1, keepdims=True)) * counted

    def total(values: np.ndarray) -> np.ndarray:
        return np.tensordot(weights, values, axes=(1, 1))

    count = total(counted.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (total(centred**2) - total(centred) ** 2 / count) / (count - 1)
        sd = np.sqrt(np.maximum(variance, 0)) if unit is None else unit.double().cpu().numpy()
        # Rounding leaves a constant score an sd of about 1e-16 of its size.
        constant = ~(sd > 1e-9 * np.abs(before).max(axis=1))
        return np.where(constant, np.nan, total(after - before) / count / np.where(constant, 1, sd))


def _percentiles(draws: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5% and 97.5% points over (draws, E, A), nan where `missing` (E, A).

    A resample in which a rare attribute happens to be constant has no unit and is left out.
    """
    low, high = np.nanquantile(np.where(missing, 0.0, draws), [0.025, 0.975], axis=0)
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)


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
