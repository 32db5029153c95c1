"""Convolutions whose second derivative costs one convolution, of the channels that matter.

torch's own double backward of a convolution always computes the derivative by its weights too, which doubles the work
of a Jacobian's forward products.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
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
    """Differentiates the convolutions of `nn.Conv2d` by their input alone, inside this context.

    Only the channels that depend on the variable are differentiated. Where a constant skip connection is concatenated
    to them, its channels are followed through normalisation and activation, and convolved once, as a constant.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace what `nn.Conv2d` calls, with its seven arguments, unless its padding is a word."""
        if func is torch.conv2d and len(args) == 7 and not kwargs and not isinstance(args[4], str):
            return _convolve(*args)
        result = func(*args, **(kwargs or {}))
        channels = _variable_channels(func, args, kwargs or {})
        if channels is not None:
            result.variable_channels = channels
        return result


def _variable_channels(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Number of the result's first channels that depend on the variable; None where it is unknown."""
    if func is torch.cat and (args[1:] == (1,) or kwargs == {"dim": 1}):
        first, *rest = args[0]
        return first.shape[1] if first.requires_grad and not any(part.requires_grad for part in rest) else None
    if func not in (F.group_norm, F.silu, F.dropout) or not hasattr(args[0], "variable_channels"):
        return None
    # Normalisation mixes the channels of a group.
    group = args[0].shape[1] // args[1] if func is F.group_norm else 1
    return -(-args[0].variable_channels // group) * group


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
    channels = getattr(x, "variable_channels", x.shape[1])
    # With channels last derivatives take a tenth to a half more.
    x, weight = x.contiguous(), weight.contiguous()
    groups = options[-1]
    if groups > 1 or channels == x.shape[1]:
        return _Convolution.apply(x, weight, bias, *options)
    with torch.no_grad():
        constant = torch.conv2d(x[:, channels:], weight[:, channels:], bias, *options)
    return constant + _Convolution.apply(x[:, :channels], weight[:, :channels].contiguous(), None, *options)
