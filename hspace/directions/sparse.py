"""A sparse autoencoder of vectors: many more features than channels, of which each vector uses a few (TopK)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hspace.system.progress import bar

AUXILIARY = 1 / 32
"""Weight of the loss by which dead features explain what the others leave."""
PATIENCE = 20_000
"""Number of vectors in a row without a feature after which it counts as dead."""


@dataclass(frozen=True)
class SparseAutoencoder:
    """z = relu(TopK(W_e (x - b_p) + b_e)), x_hat = W_d z + b_p.

    Attributes:
        encoder: W_e, (features, channels).
        bias: b_e, (features,).
        decoder: Columns of W_d as rows of unit norm, (features, channels).
        offset: b_p, (channels,).
        active: Most features that a vector uses.

    Source: Gao et al. 2024 (arXiv 2406.04093), sec. 2.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    offset: Tensor
    active: int

    def inputs(self, x: Tensor) -> Tensor:
        """The features before the choice of the largest, (..., channels) to (..., features)."""
        return (x - self.offset) @ self.encoder.T + self.bias

    def encode(self, x: Tensor) -> Tensor:
        """The features of vectors, (..., channels) to (..., features): at most `active` are above 0, none below."""
        return largest(self.inputs(x), self.active)

    def decode(self, z: Tensor) -> Tensor:
        """The vectors of features, (..., features) to (..., channels)."""
        return z @ self.decoder + self.offset


def largest(values: Tensor, k: int) -> Tensor:
    """The k largest values of each row where they are positive, and 0 elsewhere.

    Examples:
        >>> largest(torch.tensor([[3.0, -1.0, 2.0, 1.0]]), 2).tolist()
        [[3.0, 0.0, 2.0, 0.0]]
    """
    kept, places = values.topk(k, dim=-1)
    return torch.zeros_like(values).scatter(-1, places, kept.relu())


def fit_sparse(
    draw: Callable[[], Tensor], *, features: int, active: int, updates: int, rate: float = 1e-3
) -> SparseAutoencoder:
    """Train a sparse autoencoder by Adam.

    The loss is the squared error over the variance of the batch, and a share of the same for what the largest features
    among the dead ones make of the residual, so that these come back to life. Columns of the decoder have unit norm
    after every update, and the gradient along them is left out.

    Args:
        draw: Function that gives the next batch of vectors, (n, channels) float32, about centred.
        features: Number of features.
        active: Most features that a vector uses, at most `features`.
        updates: Number of updates.
        rate: Rate of Adam.

    Source: Gao et al. 2024 (arXiv 2406.04093), sec. 2.3 and 2.4 and appendix A, with a patience for few vectors.
    """
    state = _State.start(draw(), features, active)
    optimiser = torch.optim.Adam(state.parameters, lr=rate)
    for _ in bar(range(updates), stage="train features"):
        state.backward(draw())
        optimiser.step()
        state.normalise()
    return state.detached()


@dataclass
class _State:
    """An autoencoder in training."""

    model: SparseAutoencoder
    unused: Tensor
    """Number of vectors since each feature was last used."""
    parameters: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        model = self.model
        self.parameters = [model.encoder, model.bias, model.decoder, model.offset]

    @classmethod
    def start(cls, x: Tensor, features: int, active: int) -> "_State":
        """Random columns, whose transpose is the encoder, about the mean of a batch."""
        columns = torch.randn(features, x.shape[1], generator=torch.Generator().manual_seed(0))
        columns = columns / columns.norm(dim=1, keepdim=True)
        tensors = (columns.clone(), torch.zeros(features), columns, x.mean(dim=0))
        encoder, bias, decoder, offset = (each.requires_grad_() for each in tensors)
        return cls(SparseAutoencoder(encoder, bias, decoder, offset, active), torch.zeros(features))

    def backward(self, x: Tensor) -> None:
        """Sets the gradients of the loss of a batch, the decoder's without its part along the columns."""
        model = self.model
        inputs = model.inputs(x)
        z = largest(inputs, model.active)
        residual = x - model.decode(z)
        variance = (x - x.mean(dim=0)).square().mean()
        loss = residual.square().mean() / variance + AUXILIARY * self._dead_loss(inputs, residual.detach())
        for parameter, slope in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
            parameter.grad = slope
        columns, slope = model.decoder.detach(), model.decoder.grad
        assert slope is not None
        model.decoder.grad = slope - (slope * columns).sum(dim=1, keepdim=True) * columns
        used = (z > 0).any(dim=0)
        self.unused = torch.where(used, 0, self.unused + len(x))

    def _dead_loss(self, inputs: Tensor, residual: Tensor) -> Tensor:
        """Share of the residual that the largest dead features, as many as half the channels, do not explain."""
        dead = self.unused >= PATIENCE
        count = min(int(dead.sum()), max(residual.shape[1] // 2, 1))
        if count == 0:
            return residual.new_zeros(())
        z = largest(inputs.masked_fill(~dead, -torch.inf), count)
        left = (residual - z @ self.model.decoder).square().mean()
        return left / residual.square().mean().clamp(min=torch.finfo(residual.dtype).tiny)

    @torch.no_grad()
    def normalise(self) -> None:
        """Gives the decoder's columns unit norm."""
        decoder = self.model.decoder
        decoder.div_(decoder.norm(dim=1, keepdim=True))

    def detached(self) -> SparseAutoencoder:
        """The autoencoder without gradients."""
        encoder, bias, decoder, offset = (each.detach() for each in self.parameters)
        return SparseAutoencoder(encoder, bias, decoder, offset, self.model.active)
