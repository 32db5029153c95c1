"""Edit accuracy: the share of samples whose target attribute an edit flips, among those that could flip."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hspace.metrics.interval import Interval, wilson
from hspace.types import InputError


class EditAccuracy(Metric):
    """Share of the samples on the wrong side of `threshold` that the edit takes to the side of its strength's sign.

    Samples that are already on the asked side say nothing: an edit that does nothing has an accuracy of 0, whatever the
    base rate. The metric accumulates two counts, so that it adds up over batches and processes.

    Args:
        threshold: Score at which the two sides meet, in the score's unit.
        strength: The edit's strength; positive asks for a score above the threshold, negative for one below.
        **options: Options of every torchmetrics metric, such as `sync_on_compute`.

    Raises:
        InputError: If the strength is 0: it asks for neither side.

    Examples:
        >>> accuracy = EditAccuracy(threshold=0.5, strength=2.0)
        >>> accuracy.update(torch.tensor([0.1, 0.3, 0.9]).repeat(10), torch.tensor([0.8, 0.2, 0.9]).repeat(10))
        >>> accuracy.compute().value
        0.5
    """

    full_state_update: bool | None = False
    higher_is_better: bool | None = True
    hits: Tensor
    total: Tensor

    def __init__(self, threshold: float, strength: float, **options: Any) -> None:
        super().__init__(**options)
        if strength == 0:
            raise InputError("edit accuracy needs a strength other than 0: an unedited image was asked for no side")
        self.threshold = threshold
        self.sign: float = math.copysign(1, strength)
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, original: Tensor, edited: Tensor) -> None:
        """Count a batch of scores before and after the edit, (batch,) each."""
        could = ~self._asked(original)
        self.hits += (could & self._asked(edited)).sum()
        self.total += could.sum()

    def compute(self) -> Interval:
        """Share in [0, 1] with its 95% Wilson interval; n is the number of samples that could flip."""
        return wilson(int(self.hits), int(self.total))

    def _asked(self, scores: Tensor) -> Tensor:
        return self.sign * (scores - self.threshold) > 0


def edit_accuracy(original: Tensor, edited: Tensor, *, binary: bool, strength: float) -> Interval:
    """Accuracy of one edit on one target attribute.

    The sides of a binary attribute meet at a probability of .5; those of a continuous one at the median of the
    unedited samples.

    Args:
        original: Target scores of the unedited samples, (n,).
        edited: Target scores of the same samples after the edit, (n,).
        binary: Whether scores are probabilities.
        strength: The edit's strength; only its sign matters, and 0 is an error.

    Returns:
        Share that flips to the asked side of those that could, in [0, 1], with its Wilson interval; nan where fewer
        than ten could.

    Examples:
        >>> before, after = torch.linspace(0, 0.8, 21), torch.linspace(0.2, 1, 21)
        >>> found = edit_accuracy(before, after, binary=True, strength=1.0)
        >>> round(found.value, 3), found.n
        (0.385, 13)
    """
    if not len(original):
        return wilson(0, 0)
    threshold = 0.5 if binary else float(original.double().quantile(0.5))
    # Every process has all rows, so that nothing may be summed over processes.
    accuracy = EditAccuracy(threshold, strength, sync_on_compute=False)
    accuracy.update(original, edited)
    return accuracy.compute()
