"""A part of a network as a linear map about one sample: products with its Jacobian and its transpose, in blocks."""

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hspace.diffusion.cut import forward_derivatives
from hspace.directions.convolution import LeanConvolutions
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

Function = Callable[[Tensor], Tensor]
"""The output of a block of copies of the sample, (block, *out_shape), as a function of offsets (block, *in_shape)."""

FORWARD_MODES = ("double backward", "forward mode")
"""Ways to get J v. The first, reverse mode through a reverse pass that is kept, costs the tangents only and is two to
three times faster than forward mode, which repeats the network itself in every product; the second serves networks
with an operation that has no second derivative."""


class NetworkJacobian(ABC):
    """J = d output / d input of one sample. What derivatives need is kept: as many activations as a block has vectors.

    Attributes:
        in_shape: Shape of one input.
        out_shape: Shape of one output.
        device: Device of products.
        dtype: Dtype of products, the model's or at least float32.
        forward_mode: The first of FORWARD_MODES that works; None before the first forward product.
    """

    def __init__(self, network: nn.Module, point: Tensor, out_shape: tuple[int, ...]) -> None:
        """Set J; nothing is computed yet.

        Args:
            network: The network.
            point: The input, (1, *in_shape).
            out_shape: Shape of one output.
        """
        self.in_shape: tuple[int, ...] = tuple(point.shape[1:])
        self.out_shape: tuple[int, ...] = out_shape
        self.device: torch.device = point.device
        self.dtype: torch.dtype = torch.promote_types(point.dtype, torch.float32)
        self.forward_mode: str | None = None
        self._network, self._point = network, point
        self._linear: _Linearised | None = None

    @abstractmethod
    def _function(self, block: int) -> Function:
        """The outputs of `block` copies of the sample as a function of offsets of their inputs."""

    def jvp(self, v: Tensor) -> Tensor:
        """J v, (block, *in_shape) to (block, *out_shape), by `forward_mode`.

        Raises:
            InputError: If none of FORWARD_MODES works for the network.
        """
        with full_precision():
            return self._first_jvp(v) if self.forward_mode is None else self._jvp(v, self.forward_mode)

    def vjp(self, u: Tensor) -> Tensor:
        """J^T u, (block, *out_shape) to (block, *in_shape), in one batched reverse pass."""
        with full_precision():
            linear = self._linearised(len(u))
            return _gradient(linear.output, linear.offset, u)

    def _jvp(self, v: Tensor, forward_mode: str) -> Tensor:
        if forward_mode == "double backward":
            linear = self._linearised(len(v))
            return _gradient(linear.pulled, linear.cotangent, v)
        output, origin = self._function(1), torch.zeros_like(self._point)

        def along(tangent: Tensor) -> Tensor:
            return torch.func.jvp(output, (origin,), (tangent,))[1]

        size = _sizes(v)
        with forward_derivatives(self._network):
            product = torch.vmap(along)((v / size)[:, None].to(origin))
        return _sized(size, product[:, 0].to(self.dtype))

    def _first_jvp(self, v: Tensor) -> Tensor:
        """J v by the first of FORWARD_MODES with <J v, J v> = <J^T J v, v>, which is kept for all later products.

        Without a second derivative some operations raise, and others make the product 0.
        """
        for mode in FORWARD_MODES:
            try:
                product = self._jvp(v, mode)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                log.info("no %s: %s", mode, str(error).splitlines()[0])
                continue
            square = product.square().sum()
            if (square - (self.vjp(product) * v).sum()).abs() <= 0.05 * square:
                self.forward_mode = mode
                return product
            log.info("no %s: it is not adjoint to the reverse product", mode)
        raise InputError("the network has an operation with neither a second nor a forward derivative")

    def _linearised(self, block: int) -> "_Linearised":
        """The network at `block` copies of the sample; kept until another size is asked for."""
        if self._linear is None or len(self._linear.offset) != block:
            self._linear = None
            self._linear = _Linearised(self._function(block), self._point.expand(block, *self.in_shape))
        return self._linear


class _Linearised:
    """A network's output at offset 0 with its derivatives' graphs.

    Attributes:
        offset: 0, (block, *in_shape).
        output: (block, *out_shape), to be differentiated by `offset`.
    """

    def __init__(self, function: Function, like: Tensor) -> None:
        self.offset = torch.zeros(like.shape, dtype=like.dtype, device=like.device, requires_grad=True)
        # Fused attention has no second or forward derivative; sampling keeps it.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), LeanConvolutions():
            self.output = function(self.offset)

    @cached_property
    def cotangent(self) -> Tensor:
        """0, shaped like `output`; `pulled` is linear in it, so that any value would do."""
        return torch.zeros_like(self.output, requires_grad=True)

    @cached_property
    def pulled(self) -> Tensor:
        """J^T cotangent, to be differentiated by `cotangent`: its transpose is v -> J v."""
        with torch.enable_grad():
            return torch.autograd.grad(self.output, self.offset, self.cotangent, create_graph=True)[0]


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Lets a GPU compute float32 products in float32, as torch by default does not for convolutions.

    TF32 keeps ten bits: errors of 1e-3 in J are as large as the gaps between its singular values.
    """
    kinds: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = False
    try:
        yield
    finally:
        for kind, allowed in zip(kinds, before, strict=True):
            kind.allow_tf32 = allowed


def _gradient(output: Tensor, by: Tensor, vectors: Tensor) -> Tensor:
    """The transpose of d output / d by, applied to `vectors`, in their dtype; the graph stays."""
    size = _sizes(vectors)
    product = torch.autograd.grad(output, by, (vectors / size).to(output), retain_graph=True)[0]
    return _sized(size, product.to(vectors))


def _sizes(vectors: Tensor) -> Tensor:
    """A power of two near the largest entry of each vector: float16 has no numbers as small as those of J^T J v."""
    largest = vectors.flatten(1).abs().amax(dim=1)
    power = torch.where(largest > 0, torch.frexp(largest).exponent, 0)
    return torch.ldexp(torch.ones_like(largest), power).reshape(-1, *(1,) * (vectors.ndim - 1))


def _sized(size: Tensor, products: Tensor) -> Tensor:
    return products * size.reshape(-1, *(1,) * (products.ndim - 1))
