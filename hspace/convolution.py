"""Convolutions whose second derivative costs one convolution.

torch's own double backward of a convolution also computes the derivative by its weights, wanted or not, which doubles
the work of a Jacobian's forward products (measured: 2 to 2.7 times).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_Pair = tuple[int, int]


class _Convolution(torch.autograd.Function):
    """`conv2d` by constant weights; its derivative is the transposed convolution."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair, dilation: _Pair, groups: int
    ) -> Tensor:
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *ctx.options = inputs
        ctx.size = x.shape[-2:]
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        stride, padding, dilation, groups = ctx.options
        lost = [
            size - ((short - 1) * s - 2 * p + d * (kernel - 1) + 1)
            for size, short, s, p, d, kernel in zip(
                ctx.size, gradient.shape[-2:], stride, padding, dilation, weight.shape[-2:], strict=True
            )
        ]
        x = F.conv_transpose2d(gradient, weight, None, stride, padding, lost, groups, dilation)
        return x, None, None, None, None, None, None


class LeanConvolutions(TorchFunctionMode):
    """Inside this context the convolutions of `nn.Conv2d` are differentiated by their input alone."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace what `nn.Conv2d` calls, with its seven arguments, unless its padding is a word."""
        if func is torch.conv2d and len(args) == 7 and not kwargs and not isinstance(args[4], str):
            return _Convolution.apply(*args)
        return func(*args, **(kwargs or {}))
