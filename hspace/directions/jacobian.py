"""Image-specific directions: the top right singular vectors of the prediction's Jacobian in h."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hspace.unet import Encoded, SemanticUNet

log = logging.getLogger(__name__)

FORWARD_MODES = ("fused attention", "math attention", "double backward")
"""Ways to get J v, fastest first. Fused attention has no forward derivative in most builds of torch, and some other
operations have none at all; reverse mode over reverse mode always works."""


class DecoderJacobian:
    """J = d output / d h of one sample at one step, at fixed x_t: the skip connections are constants.

    The output is the network's raw one. Only the decoder runs: once here, kept for all reverse products, and once for
    each block of forward products.

    Attributes:
        in_shape: (channel, height, width) of h.
        out_shape: (channel, height, width) of the output.
        dtype: Of products, the model's or float32 where that is less.
        forward_mode: The one of FORWARD_MODES in use, found at the first forward product.

    Source: Haas et al. 2024 (arXiv 2303.11073), sec. IV-B; with a mask eqs. 9 and 10.
    """

    def __init__(
        self, unet: SemanticUNet, encoded: Encoded, mask: Tensor | None = None, avoid: Tensor | None = None
    ) -> None:
        """Linearise the decoder.

        Args:
            unet: The model's U-Net.
            encoded: One sample at one step.
            mask: (height, width), 1 where the output counts and 0 elsewhere: J becomes M J.
            avoid: (r, channel, height, width), orthonormal directions of h that are projected off: J becomes
                J (I - A^T A).
        """
        self.in_shape, self.out_shape = tuple(encoded.h.shape[1:]), unet.sample_shape
        self.device, self.dtype = encoded.h.device, torch.promote_types(encoded.h.dtype, torch.float32)
        self.forward_mode = FORWARD_MODES[0]
        self._unet, self._encoded = unet, encoded
        self._mask = None if mask is None else mask.to(encoded.h)
        self._avoid = None if avoid is None else avoid.to(encoded.h).flatten(1)
        self._origin = torch.zeros_like(encoded.h[0])
        # Reverse mode has no batched rule for fused attention.
        with sdpa_kernel(SDPBackend.MATH):
            _, self._pullback = torch.func.vjp(self._output, self._origin)

    def jvp(self, v: Tensor) -> Tensor:
        """J v, (block, *in_shape) to (block, *out_shape), by the first of FORWARD_MODES that works."""
        while True:
            try:
                return _FORWARD[self.forward_mode](self, v.to(self._origin.dtype)).to(self.dtype)
            except RuntimeError as error:
                if self.forward_mode == FORWARD_MODES[-1] or isinstance(error, torch.OutOfMemoryError):
                    raise
                failed, self.forward_mode = self.forward_mode, FORWARD_MODES[FORWARD_MODES.index(self.forward_mode) + 1]
                reason = str(error).splitlines()[0]
                log.debug("no forward mode with %s (%s); trying %s", failed, reason, self.forward_mode)

    def vjp(self, u: Tensor) -> Tensor:
        """J^T u, (block, *out_shape) to (block, *in_shape), in one batched reverse pass."""
        return torch.vmap(self._pullback)(u.to(self._origin.dtype))[0].to(self.dtype)

    def _output(self, delta_h: Tensor) -> Tensor:
        """The masked output of one sample as a function of the offset of its h."""
        if self._avoid is not None:
            delta_h = delta_h - ((self._avoid @ delta_h.flatten()) @ self._avoid).unflatten(0, self.in_shape)
        output = self._unet.decode(self._encoded.h + delta_h, self._encoded)[0]
        return output if self._mask is None else output * self._mask

    def _forward_over_block(self, v: Tensor) -> Tensor:
        return torch.vmap(lambda tangent: torch.func.jvp(self._output, (self._origin,), (tangent,))[1])(v)

    def _math_forward_over_block(self, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return self._forward_over_block(v)

    def _double_backward(self, v: Tensor) -> Tensor:
        """J v as the derivative of u -> J^T u, which is linear, in direction v."""
        start = self._origin.new_zeros(self.out_shape)
        _, pullback = torch.func.vjp(lambda u: self._pullback(u)[0], start)
        return torch.vmap(pullback)(v)[0]


_FORWARD: dict[str, Callable[[DecoderJacobian, Tensor], Tensor]] = dict(
    zip(
        FORWARD_MODES,
        (
            DecoderJacobian._forward_over_block,
            DecoderJacobian._math_forward_over_block,
            DecoderJacobian._double_backward,
        ),
        strict=True,
    )
)
