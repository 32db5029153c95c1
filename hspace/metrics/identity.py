"""Identity preservation: whether the edited image still shows the same person."""

import torch
from torch import Tensor
from torchmetrics import Metric

from hspace.metrics.base import Z_95, Interval
from hspace.types import InputError


class IdentityPreservation(Metric):
    """Mean cosine similarity between the identity embeddings of an edited image and of its original.

    Accumulates count, sum and sum of squares, so that it adds up over batches and processes.

    Example:
        >>> identity = IdentityPreservation()
        >>> person = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
        >>> identity.update(person, person)
        >>> round(identity.compute().value, 5)
        1.0
    """

    full_state_update = False
    higher_is_better = True
    count: Tensor
    first: Tensor
    second: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("first", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("second", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, original: Tensor, edited: Tensor) -> None:
        """Add a batch of pairs.

        Args:
            original: Unit-norm embeddings of the unedited images, (batch, dim).
            edited: Unit-norm embeddings of the same samples edited, (batch, dim).

        Raises:
            InputError: If the shapes differ or an embedding's norm is not 1 to 1e-3.
        """
        if original.ndim != 2 or original.shape != edited.shape:
            shapes = f"{tuple(original.shape)} and {tuple(edited.shape)}"
            raise InputError(f"embeddings must be two (batch, dim) of one shape, got {shapes}")
        cosine = (_unit_norm(original) * _unit_norm(edited)).sum(dim=1)
        self.count += len(cosine)
        self.first += cosine.sum()
        self.second += cosine.square().sum()

    def compute(self) -> Interval:
        """Mean cosine in [-1, 1] with its 95% normal interval.

        Raises:
            InputError: With fewer than two pairs.
        """
        count = int(self.count)
        if count < 2:
            raise InputError(f"identity preservation needs at least two pairs of images, got {count}")
        mean = float(self.first) / count
        variance = max(float(self.second) - count * mean**2, 0.0) / (count - 1)
        half = Z_95 * (variance / count) ** 0.5
        return Interval(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def identity_preservation(original: Tensor, edited: Tensor) -> Interval:
    """Mean cosine between unit-norm embeddings of originals and edits, both (n, dim); see `IdentityPreservation`."""
    identity = IdentityPreservation()
    identity.update(original, edited)
    return identity.compute()


def true_accept_rate(first: Tensor, second: Tensor, false_accepts: float = 0.01) -> float:
    """How often two images of one person are recognised as such.

    Args:
        first: Unit-norm embeddings of n people, (n, dim).
        second: Of the same people in other images, (n, dim); row i belongs to row i of `first` alone.
        false_accepts: Share of the pairs of different people that the threshold lets pass.

    Returns:
        Share of the n pairs whose cosine is above the threshold, in [0, 1].

    Raises:
        InputError: If the shapes differ, or a norm is not 1 to 1e-3.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise InputError(f"embeddings must be two (n, dim) of one shape, got {[*first.shape]} and {[*second.shape]}")
    cosine = _unit_norm(first) @ _unit_norm(second).T
    different = cosine[~torch.eye(len(cosine), dtype=torch.bool)]
    # kthvalue rather than quantile, which refuses more than 2^24 values.
    threshold = different.kthvalue(max(int((1 - false_accepts) * len(different)), 1)).values
    return float((cosine.diagonal() > threshold).double().mean())


def _unit_norm(embeddings: Tensor) -> Tensor:
    """The embeddings in float64, after a check that their norms are 1."""
    embeddings = embeddings.double()
    norms = embeddings.norm(dim=1)
    # Written so that a nan norm is caught too.
    if not bool(((norms - 1).abs() <= 1e-3).all()):
        worst = float(norms[(norms - 1).abs().argmax()])
        raise InputError(f"identity embeddings must have unit norm, got a norm of {worst:.4g}")
    return embeddings
