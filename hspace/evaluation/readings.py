# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Readings of a scorer and of encoders of a person from edits of the same samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.metrics.accuracy import edit_accuracy
from hspace.metrics.effect import EffectMatrix, effect_matrix
from hspace.metrics.interval import Interval, mean_interval
from hspace.output.figures import strip_figure
from hspace.output.tables import Cell, Table
from hspace.types import Embedder, Images, InputError, Scorer

UNEDITED = "unedited"
"""Name of the unedited samples in tables of scores."""
DIGITS = 5
"""Of scores in tables."""


@dataclass(frozen=True)
class Readings:
    """Readings of a scorer and of encoders of a person from samples and their edits.

    Attributes:
        scorer: Scorer that read them.
        names: Names of the E edits.
        seeds: Seeds of the n samples.
        original: Scores of the unedited samples, (n, A).
        edited: Scores of the edits, (E, n, A).
        people: Identity embeddings of the samples, unedited and under every edit, (n, 1 + E, D), of unit norm.
        images: The first samples unedited and under every edit, (shown, 1 + E, C, H, W) in [-1, 1].
        unit: Standard deviation of each score over unedited samples, (A,), in which effects are counted.
        features: Likeness embeddings of the same images, (n, 1 + E, F), of unit norm; None where no encoder reads them.
    """

    scorer: Scorer
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    original: Tensor
    edited: Tensor
    people: Tensor
    images: Tensor
    unit: Tensor
    features: Tensor | None = None

    @cached_property
    def visible(self) -> Tensor:
        """Whether both scores can be read, bool (E, n, A)."""
        edited = torch.stack([self.scorer.visible(scores) for scores in self.edited])
        return edited & self.scorer.visible(self.original)

    @cached_property
    def cosine(self) -> Tensor:
        """Cosine of the identity embeddings of each edit and its original, (E, n)."""
        return _to_unedited(self.people)

    @cached_property
    def likeness_cosine(self) -> Tensor | None:
        """Cosine of the likeness embeddings of each edit and its original, (E, n), where an encoder reads them."""
        return None if self.features is None else _to_unedited(self.features)

    def effects(self) -> EffectMatrix:
        """Mean effects with their intervals, in `unit`."""
        return self._effects

    @cached_property
    def _effects(self) -> EffectMatrix:
        return self.matrix(self.edited, self.visible, self.names)

    def identity(self, edit: int) -> Interval:
        """Mean cosine of an edit's identity embeddings to those of the unedited samples."""
        return mean_interval(self.cosine[edit].numpy(), -1.0, 1.0)

    def likeness(self, edit: int) -> Interval | None:
        """The same of the likeness embeddings, where an encoder reads them."""
        cosine = self.likeness_cosine
        return None if cosine is None else mean_interval(cosine[edit].numpy(), -1.0, 1.0)

    def changes(self, edit: int, attribute: str) -> np.ndarray:
        """Change of an attribute under an edit, in `unit`, by sample, (n,); nan where it cannot be seen."""
        column = self.scorer.attributes.index(attribute)
        change = (self.edited[edit, :, column] - self.original[:, column]).double() / self.unit[column]
        return torch.where(self.visible[edit, :, column], change, torch.nan).numpy()

    def accuracy(self, edit: int, attribute: str, strength: float) -> Interval:
        """Share that an edit flips to the side of `strength`'s sign, of the visible samples that could flip."""
        column = self.scorer.attributes.index(attribute)
        seen = self.visible[edit, :, column]
        before, after = self.original[seen, column], self.edited[edit][seen, column]
        return edit_accuracy(before, after, binary=self.scorer.binary[column], strength=strength)

    def table(self) -> Table:
        """Every score of every sample, empty where it is hidden, and the cosines to the unedited sample."""
        cosines = {"identity": self.cosine, "likeness": self.likeness_cosine}
        kept = {
            name: torch.cat([torch.ones_like(each[:1]), each]) for name, each in cosines.items() if each is not None
        }
        scores, alike = torch.cat([self.original[None], self.edited]), torch.stack([*kept.values()], dim=-1)
        rows: list[tuple[Cell, ...]] = []
        for edit, values, same in zip((UNEDITED, *self.names), scores, alike, strict=True):
            shown = self.scorer.visible(values)
            for seed, row, seen, person in zip(self.seeds, values.tolist(), shown.tolist(), same.tolist(), strict=True):
                visible = (round(v, DIGITS) if s else None for v, s in zip(row, seen, strict=True))
                rows.append((edit, seed, *visible, *(round(cosine, DIGITS) for cosine in person)))
        return Table(("edit", "seed", *self.scorer.attributes, *kept), tuple(rows), "Scores by sample.")

    def matrix(self, edited: Tensor, visible: Tensor, names: Sequence[str]) -> EffectMatrix:
        """Effects of other scores of the same samples.

        Args:
            edited: Scores of E edits, (E, n, A).
            visible: Whether each of them counts, bool (E, n, A).
            names: E names of the edits.
        """
        return effect_matrix(
            self.original, edited, attributes=self.scorer.attributes, binary=self.scorer.binary, edits=names,
            visible=visible, unit=self.unit,
        )  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """Directions, each at every strength.

    Attributes:
        labels: Labels of the directions.
        strengths: S strengths in the directions' unit, without 0.
        readings: Readings of the edits, ordered by direction, then by strength.
    """

    labels: tuple[str, ...]
    strengths: tuple[float, ...]
    readings: Readings

    def row(self, direction: int, strength: float) -> int:
        """Index of an edit in the readings."""
        return direction * len(self.strengths) + self.strengths.index(strength)

    def at(self, strength: float) -> list[int]:
        """Every direction at one strength."""
        return [self.row(j, strength) for j in range(len(self.labels))]

    def effects(self, strength: float) -> EffectMatrix:
        """Mean effects of every direction at one strength, with their intervals."""
        return self.readings.effects().rows(self.at(strength), self.labels)

    def odd_effects(self, samples: slice = slice(None)) -> EffectMatrix:
        """Half the difference of the effects at +s and -s, where s is the largest strength with both signs.

        Whatever does not depend on the sign, such as damage to the image, cancels out: directions are named by this.

        Args:
            samples: Slice of the samples that count; all of them by default.

        Raises:
            InputError: If no strength has both signs.
        """
        pairs = [s for s in self.strengths if s > 0 and -s in self.strengths]
        if not pairs:
            raise InputError(f"naming a direction needs strengths of both signs, such as [-2, 2], got {self.strengths}")
        readings, rows = self.readings, [self.at(sign * max(pairs)) for sign in (1, -1)]
        plus, minus = (readings.edited[each] for each in rows)
        visible = readings.visible[rows[0]] & readings.visible[rows[1]]
        counted = torch.zeros_like(visible)
        counted[:, samples] = visible[:, samples]
        return readings.matrix(readings.original + (plus - minus) / 2, counted, self.labels)

    def strip(self, title: str, path: Path, notes: Sequence[str] = (), shown: int = 0) -> Path:
        """One sample as rows of directions and columns of strengths, the unedited one among them."""
        columns = sorted([0.0, *self.strengths])
        return strip_figure(self.shown(columns)[:, shown], self.noted(notes), columns, title, path)

    def shown(self, strengths: Sequence[float]) -> Tensor:
        """The first samples under every direction at some strengths, (directions, shown, strengths, C, H, W)."""
        index = [[0 if s == 0 else 1 + self.row(j, s) for s in strengths] for j in range(len(self.labels))]
        return self.readings.images[:, torch.tensor(index)].transpose(0, 1)

    def noted(self, notes: Sequence[str]) -> list[str]:
        """The label of each direction with a note under it, if there is one."""
        return [f"{a}\n{b}" if b else a for a, b in zip(self.labels, notes or [""] * len(self.labels), strict=True)]


@torch.no_grad()
def score(network: Scorer | Embedder, images: Images, batch_size: int = 256) -> Tensor:
    """Scores or embeddings of many images, in batches."""
    return torch.cat([network(batch.float()) for batch in images.split(batch_size)])


def read(images: Tensor, *networks: Scorer | Embedder) -> list[Tensor]:
    """Scores (n, m, A) or embeddings (n, m, D), one tensor a network, of m images of each of n samples.

    Args:
        images: Images, (n, m, C, H, W) in [-1, 1].
        networks: Networks that read them.
    """
    flat = images.flatten(0, 1)
    return [score(network, flat).unflatten(0, images.shape[:2]) for network in networks]


def _to_unedited(embeddings: Tensor) -> Tensor:
    """Cosines of unit vectors (n, 1 + E, D) to the first of each row, (E, n)."""
    return (embeddings[:, 1:] * embeddings[:, :1]).sum(-1).T


def finite(values: Any) -> Any:
    """Numbers of any nesting as JSON types; what is not finite becomes None."""
    if isinstance(values, np.ndarray | np.generic | Tensor):
        return finite(values.tolist())
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
