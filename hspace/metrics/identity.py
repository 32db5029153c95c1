"""Identity preservation: whether the edited image still shows the same person."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hspace.metrics.interval import Interval, mean_interval
from hspace.types import InputError


class IdentityPreservation(Metric):
    """Mean cosine similarity between the identity embeddings of an edited image and of its original.

    The metric keeps the cosine of every pair, so that it adds up over batches and processes.

    Args:
        **options: Options of every torchmetrics metric, such as `sync_on_compute`.

    Examples:
        >>> identity = IdentityPreservation()
        >>> person = torch.nn.functional.normalize(torch.randn(10, 8), dim=1)
        >>> identity.update(person, person)
        >>> round(identity.compute().value, 5)
        1.0
    """

    full_state_update: bool | None = False
    higher_is_better: bool | None = True
    cosines: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("cosines", [], dist_reduce_fx="cat")

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
        self.cosines.append((_unit_norm(original) * _unit_norm(edited)).sum(dim=1))

    def compute(self) -> Interval:
        """Mean cosine in [-1, 1] with its 95% interval, by `hspace.metrics.interval.mean_interval`."""
        return mean_interval(dim_zero_cat(self.cosines).cpu().numpy(), low=-1.0, high=1.0)


def identity_preservation(original: Tensor, edited: Tensor) -> Interval:
    """Mean cosine between unit-norm embeddings of originals and edits, both (n, dim); see `IdentityPreservation`.

    Examples:
        >>> people = torch.eye(10)
        >>> round(identity_preservation(people, people).value, 6)
        1.0
    """
    # Every process has all rows, so that nothing may be summed over processes.
    identity = IdentityPreservation(sync_on_compute=False)
    identity.update(original, edited)
    return identity.compute()


def stranger_threshold(embeddings: Tensor, false_accepts: float = 0.01) -> float:
    """The cosine that a share `false_accepts` of the pairs of different people exceeds.

    Args:
        embeddings: Unit-norm embeddings of n >= 2 different people, (n, dim), such as unedited samples.
        false_accepts: Share in (0, 1).

    Raises:
        InputError: If there are fewer than two embeddings, or a norm is not 1 to 1e-3.

    Examples:
        >>> stranger_threshold(torch.eye(5))
        0.0
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(f"a threshold needs (n >= 2, dim) embeddings, got {tuple(embeddings.shape)}")
    embeddings = _unit_norm(embeddings)
    return float(_threshold(embeddings @ embeddings.T, false_accepts))


def true_accept_rate(first: Tensor, second: Tensor, false_accepts: float = 0.01) -> float:
    """Share of people whose two images are recognised as one person.

    Args:
        first: Unit-norm embeddings of n people, (n, dim).
        second: Unit-norm embeddings of the same people in other images, (n, dim), in the same order.
        false_accepts: Share of the pairs of different people that the threshold lets pass.

    Returns:
        Share of the n pairs whose cosine is above the threshold, in [0, 1].

    Raises:
        InputError: If the shapes differ, or a norm is not 1 to 1e-3.

    Examples:
        >>> true_accept_rate(torch.eye(5), torch.eye(5))
        1.0
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise InputError(f"embeddings must be two (n, dim) of one shape, got {[*first.shape]} and {[*second.shape]}")
    cosine = _unit_norm(first) @ _unit_norm(second).T
    return float((cosine.diagonal() > _threshold(cosine, false_accepts)).double().mean())


def _threshold(cosine: Tensor, false_accepts: float) -> Tensor:
    """The cosine that the given share of those off the diagonal exceeds."""
    different = cosine[~torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)]
    # quantile refuses more than 2^24 values, kthvalue does not.
    return different.kthvalue(max(int((1 - false_accepts) * len(different)), 1)).values


def _unit_norm(embeddings: Tensor) -> Tensor:
    """The embeddings in float64, after a check that their norms are 1."""
    embeddings = embeddings.double()
    norms = embeddings.norm(dim=1)
    # Written so that a nan norm is caught too.
    if not bool(((norms - 1).abs() <= 1e-3).all()):
        worst = float(norms[(norms - 1).abs().argmax()])
        raise InputError(f"identity embeddings must have unit norm, got a norm of {worst:.4g}")
    return embeddings
