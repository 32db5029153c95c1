"""Edit accuracy: how often an edit leaves its target attribute on the side that was asked for."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hspace.metrics.interval import Z_95, Interval
from hspace.types import InputError


class EditAccuracy(Metric):
    """Share of edited images whose score lies strictly beyond `threshold`, on the side of the strength's sign.

    Accumulates two counts, so that it adds up over batches and processes.

    Args:
        threshold: Where one side ends, in the score's unit.
        strength: The edit's strength; positive asks for a score above the threshold, negative for one below.
        **options: Of every torchmetrics metric, such as `sync_on_compute`.

    Raises:
        InputError: If the strength is 0: it asks for neither side.

    Example:
        >>> accuracy = EditAccuracy(threshold=0.5, strength=2.0)
        >>> accuracy.update(torch.tensor([0.9, 0.8, 0.1, 0.7]))
        >>> accuracy.compute().value
        0.75
    """

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    total: Tensor

    def __init__(self, threshold: float, strength: float, **options: Any) -> None:
        super().__init__(**options)
        if strength == 0:
            raise InputError("edit accuracy needs a strength other than 0: an unedited image was asked for no side")
        self.threshold = threshold
        self.sign = math.copysign(1, strength)
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor) -> None:
        """Count a batch of edited scores, (batch,)."""
        self.hits += (self.sign * (scores - self.threshold) > 0).sum()
        self.total += scores.numel()

    def compute(self) -> Interval:
        """Share in [0, 1] with its 95% Wilson interval."""
        return wilson(int(self.hits), int(self.total))


def edit_accuracy(original: Tensor, edited: Tensor, *, binary: bool, strength: float) -> Interval:
    """Accuracy of one edit on one target attribute.

    The sides of a binary attribute meet at a probability of .5; those of a continuous one at the median of the
    unedited samples, so that an edit which does nothing scores .5.

    Args:
        original: Target scores of the unedited samples, (n,); used for continuous attributes only.
        edited: Target scores after the edit, (m,).
        binary: Whether scores are probabilities.
        strength: The edit's strength; only its sign matters, and 0 is an error.

    Returns:
        Share of edits on the asked side, in [0, 1], with its Wilson interval.
    """
    threshold = 0.5 if binary else float(original.double().quantile(0.5))
    # Every process has all rows: nothing is to be added up over them.
    accuracy = EditAccuracy(threshold, strength, sync_on_compute=False)
    accuracy.update(edited)
    return accuracy.compute()


def wilson(hits: int, total: int) -> Interval:
    """95% score interval of a proportion.

    Raises:
        InputError: If `total` is 0.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    if total == 0:
        raise InputError("a proportion needs at least one image, got 0")
    share, spread = hits / total, Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return Interval(share, max(centre - half, 0.0), min(centre + half, 1.0))
