"""A U-Net of diffusers cut in two at its bottleneck, so that h can be read and edited in between.

`decode(encode(x_t, t).h, encoded)` runs the very stages of `UNet2DModel.forward`, and returns the same bits.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from hspace.types import HBatch, Images, InputError

H_SPACES = ("before", "middle", "after")


@dataclass(frozen=True)
class Encoded:
    """All that decoding needs.

    Attributes:
        h: Bottleneck features at the tap, (batch, channel, height, width).
        skips: Features of the down path, shallowest first.
        temb: Time embedding, (batch, dim).
        t: Model time of each sample, (batch,).
        residual: Input of the mid block's last residual block, where the tap is in the middle of it; else None.
    """

    h: HBatch
    skips: tuple[Tensor, ...]
    temb: Tensor
    t: Tensor
    residual: Tensor | None


class SemanticUNet(nn.Module):
    """`encode` up to the tap and `decode` from there on.

    The tap h_space is `after` the mid block (all results of the paper), `before` it, or in its `middle`: between the
    two convolutions of its last residual block, after the second normalisation.

    Attributes:
        h_space: Where h is tapped.
        sample_shape: (channel, height, width) of x_t.
        h_shape: (channel, height, width) of h.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3; Haas et al. 2024 (arXiv 2303.11073), sec. III.
    """

    def __init__(self, unet: UNet2DModel, h_space: str = "after") -> None:
        """Wrap `unet`; its weights are shared, not copied.

        Raises:
            InputError: If the U-Net is of an unsupported kind or has no such tap.
        """
        super().__init__()
        _check_supported(unet, h_space)
        self.unet = unet
        self.h_space = h_space
        size = unet.config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        self.sample_shape = (unet.config["in_channels"], height, width)
        self.h_shape = self._find_h_shape()

    @property
    def _mid(self) -> Any:
        return self.unet.mid_block

    @torch.no_grad()
    def _find_h_shape(self) -> tuple[int, int, int]:
        parameter = next(self.unet.parameters())
        _, channels, height, width = self.encode(parameter.new_zeros(1, *self.sample_shape), 0).h.shape
        return channels, height, width

    def encode(self, x_t: Images, t: int, cond: None = None) -> Encoded:
        """Run the U-Net up to the tap.

        Args:
            x_t: Noisy images, (batch, channel, height, width), in any floating dtype.
            t: Model time.
            cond: Conditioning; an unconditional U-Net takes None.

        Returns:
            The features at the tap and all that `decode` needs.
        """
        unet = self.unet
        x_t = x_t.to(unet.dtype)
        times = torch.full((len(x_t),), t, dtype=torch.long, device=x_t.device)
        temb = unet.time_embedding(unet.time_proj(times).to(unet.dtype))
        image = 2 * x_t - 1.0 if unet.config["center_input_sample"] else x_t
        h, skips = _down(unet, image, temb)
        residual = None
        if self.h_space == "middle":
            h, residual = _mid_until_tap(self._mid, h, temb)
        elif self.h_space == "after":
            h = self._mid(h, temb)
        return Encoded(h, skips, temb, times, residual)

    def decode(self, h: HBatch, encoded: Encoded) -> Images:
        """Run the U-Net from the tap on.

        Args:
            h: Features at the tap, edited or not, (batch, channel, height, width).
            encoded: What `encode` returned for the same samples; its own `h` is not read.

        Returns:
            The network's raw output, shaped like x_t; `Schedule.to_eps` reads it.
        """
        if self.h_space == "middle":
            h = _mid_from_tap(self._mid.resnets[-1], h, encoded)
        elif self.h_space == "before":
            h = self._mid(h, encoded.temb)
        return _up(self.unet, h, encoded)


def _check_supported(unet: Any, h_space: str) -> None:
    if h_space not in H_SPACES:
        raise InputError(f"h_space must be one of {', '.join(H_SPACES)}, got {h_space}")
    if not isinstance(unet, UNet2DModel):
        raise InputError(f"the U-Net must be an unconditional UNet2DModel of diffusers, got {type(unet).__name__}")
    if unet.mid_block is None:
        raise InputError("the U-Net has no mid block, so h cannot be tapped")
    if unet.class_embedding is not None:
        raise InputError("the U-Net is conditioned on classes; give an unconditional one")
    if unet.config["sample_size"] is None:
        raise InputError("the U-Net's config has no sample_size, so the shape of h is unknown")
    channels, out_channels = unet.config["in_channels"], unet.config["out_channels"]
    if out_channels != channels:
        raise InputError(f"the U-Net must return as many channels as it takes, got {channels} to {out_channels}")
    if h_space == "middle" and not isinstance(unet.mid_block.resnets[-1], ResnetBlock2D):
        raise InputError("the mid block's last residual block is no ResnetBlock2D; tap h before or after it")


def _down(unet: Any, image: Tensor, temb: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Stages 2 and 3 of `UNet2DModel.forward`: the deepest features and the skips."""
    hidden = unet.conv_in(image)
    skips = (hidden,)
    for block in unet.down_blocks:
        if hasattr(block, "skip_conv"):
            hidden, new_skips, image = block(hidden_states=hidden, temb=temb, skip_sample=image)
        else:
            hidden, new_skips = block(hidden_states=hidden, temb=temb)
        skips += new_skips
    return hidden, skips


def _mid_until_tap(mid: Any, hidden: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
    """The mid block up to its last `norm2`, and the input of that residual block."""
    *resnets, last = mid.resnets
    for resnet, attention in zip(resnets, mid.attentions, strict=True):
        hidden = resnet(hidden, temb)
        if attention is not None:
            hidden = attention(hidden, temb=temb)
    h = last.conv1(last.nonlinearity(last.norm1(hidden)))
    if last.time_embedding_norm == "default":
        h = h + last.time_emb_proj(last.nonlinearity(temb))[:, :, None, None]
    return last.norm2(h), hidden


def _mid_from_tap(last: Any, h: Tensor, encoded: Encoded) -> Tensor:
    """The rest of the mid block's last residual block."""
    if last.time_embedding_norm == "scale_shift":
        scale, shift = last.time_emb_proj(last.nonlinearity(encoded.temb))[:, :, None, None].chunk(2, dim=1)
        h = h * (1 + scale) + shift
    assert encoded.residual is not None
    h = last.conv2(last.dropout(last.nonlinearity(h)))
    return (encoded.residual + h) / last.output_scale_factor


def _up(unet: Any, hidden: Tensor, encoded: Encoded) -> Tensor:
    """Stages 5 and 6 of `UNet2DModel.forward`."""
    skips, image = encoded.skips, None
    for block in unet.up_blocks:
        count = len(block.resnets)
        skips, block_skips = skips[:-count], skips[-count:]
        if hasattr(block, "skip_conv"):
            hidden, image = block(hidden, block_skips, encoded.temb, image)
        else:
            hidden = block(hidden, block_skips, encoded.temb)
    output = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    if image is not None:
        output = output + image
    if unet.config["time_embedding_type"] == "fourier":
        output = output / encoded.t[:, None, None, None]
    return output
