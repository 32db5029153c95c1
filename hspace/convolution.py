"""Convolutions whose second derivative costs one convolution.

torch's own double backward of a convolution also computes the derivative by its weights, wanted or not, which doubles
the work of a Jacobian's forward products.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode


class _Convolution(torch.autograd.Function):
    """`conv2d` by constant weights, linear in its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        ctx.size, ctx.options = x.shape, options
        ctx.save_for_backward(weight)
        return torch.conv2d(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x = _Transpose.apply(gradients[0], *ctx.saved_tensors, ctx.size, *ctx.options)
        return x, None, None, None, None, None, None


class _Transpose(torch.autograd.Function):
    """The transpose of `_Convolution`, whose transpose is the convolution again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, size: torch.Size, *options: Any) -> Tensor:
        ctx.options = options
        ctx.save_for_backward(weight)
        return conv2d_input(size, weight, gradient, *options)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = _Convolution.apply(gradients[0], *ctx.saved_tensors, None, *ctx.options)
        return gradient, None, None, None, None, None, None


class LeanConvolutions(TorchFunctionMode):
    """Inside this context the convolutions of `nn.Conv2d` are differentiated by their input alone."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace what `nn.Conv2d` calls, with its seven arguments, unless its padding is a word."""
        if func is torch.conv2d and len(args) == 7 and not kwargs and not isinstance(args[4], str):
            return _Convolution.apply(*args)
        return func(*args, **(kwargs or {}))
