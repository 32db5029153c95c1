"""A U-Net of diffusers cut in two at its bottleneck, so that h can be read and edited in between.

`decode(encode(x_t, t).h, encoded)` runs the very stages of the U-Net's own `forward`, and returns the same bits.

Classifier-free guidance needs two passes, with the prompt and without; both are run as one batch. h is the prompted
pass's: it is what is recorded. What is added to it is added to the unprompted pass's too, so that an edit moves both
terms of the guidance alike (as the authors' code does, which records the unprompted one) and the network that
everything else sees stays a function of one h. Replacing h shifts the unprompted pass's by the same difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, UNetMidBlock2DCrossAttn
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from hspace.types import HBatch, Images, InputError

TAPS = ("before", "middle", "after")


@dataclass(frozen=True)
class Conditioning:
    """The text that a U-Net is conditioned on.

    Attributes:
        prompt: What it says.
        context: Text features of each pass, (1 or 2, tokens, dim): the prompt's, then the empty prompt's if guided.
        guidance: w of classifier-free guidance, without + w (with - without); 1 where there is one pass.

    Source: Ho & Salimans 2022 (arXiv 2207.12598), eq. 6; their w is our w - 1.
    """

    prompt: str
    context: Float[Tensor, "passes tokens dim"]
    guidance: float


@dataclass(frozen=True)
class Encoded:
    """All that decoding needs. Where guidance takes two passes, the first samples are prompted, the others are not.

    Attributes:
        h: Bottleneck features at the tap, (batch, channel, height, width); of the prompted pass.
        skips: Features of the down path, shallowest first.
        temb: Time embedding, (passes · batch, dim).
        t: Model time of each sample, (passes · batch,).
        residual: Input of the mid block's last residual block, where the tap is in the middle of it; else None.
        context: Text features, (passes · batch, tokens, dim), or None.
        unprompted_h: The other pass's h, shaped like h, or None.
        guidance: w of classifier-free guidance.
    """

    h: HBatch
    skips: tuple[Tensor, ...]
    temb: Tensor
    t: Tensor
    residual: Tensor | None
    context: Tensor | None = None
    unprompted_h: HBatch | None = None
    guidance: float = 1.0

    def select(self, rows: Sequence[int]) -> "Encoded":
        """The samples at `rows`, any number of times each."""
        batch = len(self.h)
        passes = [row + start for start in range(0, len(self.temb), batch) for row in rows]

        def take(part: Tensor | None, rows: Sequence[int]) -> Any:
            return None if part is None else part[torch.tensor(rows, device=part.device)]

        return Encoded(
            h=take(self.h, rows),
            skips=tuple(take(skip, passes) for skip in self.skips),
            temb=take(self.temb, passes),
            t=take(self.t, passes),
            residual=take(self.residual, passes),
            context=take(self.context, passes),
            unprompted_h=take(self.unprompted_h, rows),
            guidance=self.guidance,
        )


class SemanticUNet(nn.Module):
    """`encode` up to the tap and `decode` from there on.

    The tap is `after` the mid block (all results of the paper), `before` it, or in its `middle`: between the
    two convolutions of its last residual block, after the second normalisation.

    Attributes:
        tap: Where h is tapped.
        sample_shape: (channel, height, width) of x_t.
        h_shape: (channel, height, width) of h.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3; Haas et al. 2024 (arXiv 2303.11073), sec. III.
    """

    def __init__(self, unet: UNet2DModel | UNet2DConditionModel, tap: str = "after") -> None:
        """Wrap `unet`; its weights are shared, not copied.

        Raises:
            InputError: If the U-Net is of an unsupported kind or has no such tap.
        """
        super().__init__()
        _check_supported(unet, tap)
        self.network = unet
        self.tap = tap
        size = unet.config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        self.sample_shape = (unet.config["in_channels"], height, width)
        self.h_shape = self._find_h_shape()

    @property
    def is_conditional(self) -> bool:
        """Whether the U-Net is conditioned on text."""
        return isinstance(self.network, UNet2DConditionModel)

    @property
    def _mid(self) -> Any:
        return self.network.mid_block

    @torch.no_grad()
    def _find_h_shape(self) -> tuple[int, int, int]:
        zeros, cond = next(self.network.parameters()).new_zeros, None
        if self.is_conditional:
            cond = Conditioning("", zeros(1, 1, self.network.config["cross_attention_dim"]), 1.0)
        _, channels, height, width = self.encode(zeros(1, *self.sample_shape), 0, cond).h.shape
        return channels, height, width

    def encode(self, x_t: Images, t: int, cond: Conditioning | None = None) -> Encoded:
        """Run the U-Net up to the tap.

        Args:
            x_t: Noisy images, (batch, channel, height, width), in any floating dtype.
            t: Model time.
            cond: The text; an unconditional U-Net takes None.

        Returns:
            The features at the tap and all that `decode` needs.

        Raises:
            InputError: If a U-Net conditioned on text is given none, or another one is given some.
        """
        unet, batch = self.network, len(x_t)
        if self.is_conditional != (cond is not None):
            raise InputError("a U-Net conditioned on text needs a prompt, and no other takes one")
        x_t, context = x_t.to(unet.dtype), None
        if cond is not None:
            x_t = torch.cat([x_t] * len(cond.context))
            context = cond.context.to(x_t).repeat_interleave(batch, dim=0)
        times = torch.full((len(x_t),), t, dtype=torch.long, device=x_t.device)
        temb = unet.time_embedding(unet.time_proj(times).to(unet.dtype))
        image = 2 * x_t - 1.0 if unet.config["center_input_sample"] else x_t
        h, skips = _down(unet, image, temb, context)
        residual = None
        if self.tap == "middle":
            h, residual = _mid_until_tap(self._mid, h, temb, context)
        elif self.tap == "after":
            h = self._mid(h, temb, **_text(self._mid, context))
        if len(h) == batch:
            return Encoded(h, skips, temb, times, residual, context)
        assert cond is not None
        return Encoded(h[:batch], skips, temb, times, residual, context, h[batch:], cond.guidance)

    def decode(self, h: HBatch, encoded: Encoded) -> Images:
        """Run the U-Net from the tap on.

        Args:
            h: Features at the tap, edited or not, (batch, channel, height, width).
            encoded: What `encode` returned for the same samples.

        Returns:
            The network's raw output, shaped like x_t; `Schedule.to_eps` reads it.
        """
        if encoded.unprompted_h is not None:
            h = torch.cat([h, encoded.unprompted_h + (h - encoded.h)])
        if self.tap == "middle":
            h = _mid_from_tap(self._mid.resnets[-1], h, encoded)
        elif self.tap == "before":
            h = self._mid(h, encoded.temb, **_text(self._mid, encoded.context))
        output = _up(self.network, h, encoded)
        if encoded.unprompted_h is None:
            return output
        prompted, unprompted = output.chunk(2)
        return unprompted + encoded.guidance * (prompted - unprompted)


def _check_supported(unet: Any, tap: str) -> None:
    if tap not in TAPS:
        raise InputError(f"tap must be one of {', '.join(TAPS)}, got {tap}")
    if not isinstance(unet, UNet2DModel | UNet2DConditionModel):
        raise InputError(f"the U-Net must be a UNet2DModel or UNet2DConditionModel, got {type(unet).__name__}")
    if unet.mid_block is None:
        raise InputError("the U-Net has no mid block, so h cannot be tapped")
    if unet.class_embedding is not None:
        raise InputError("the U-Net is conditioned on classes; give an unconditional one")
    if unet.config["sample_size"] is None:
        raise InputError("the U-Net's config has no sample_size, so the shape of h is unknown")
    channels, out_channels = unet.config["in_channels"], unet.config["out_channels"]
    if out_channels != channels:
        raise InputError(f"the U-Net must return as many channels as it takes, got {channels} to {out_channels}")
    plain_mid = isinstance(unet.mid_block, UNetMidBlock2D | UNetMidBlock2DCrossAttn)
    if tap == "middle" and not (plain_mid and isinstance(unet.mid_block.resnets[-1], ResnetBlock2D)):
        raise InputError("the mid block's last residual block is no ResnetBlock2D; tap h before or after it")
    if isinstance(unet, UNet2DConditionModel):
        _check_conditional(unet)


def _check_conditional(unet: UNet2DConditionModel) -> None:
    """Refuse what Stable Diffusion 1 and 2 do not have, since `encode` would leave it out."""
    config = unet.config
    plain = {"addition_embed_type": None, "encoder_hid_dim_type": None, "time_cond_proj_dim": None}
    plain |= {"time_embedding_act_fn": None, "time_embedding_type": "positional", "attention_type": "default"}
    for key, value in plain.items():
        if config[key] != value:
            raise InputError(f"only U-Nets like Stable Diffusion 1 and 2 are supported, got {key} {config[key]}")
    if not isinstance(config["cross_attention_dim"], int):
        raise InputError(f"cross_attention_dim must be one number for all levels, got {config['cross_attention_dim']}")
    size = config["sample_size"]
    sides, factor = [size] if isinstance(size, int) else size, 2**unet.num_upsamplers
    if any(side % factor for side in sides):
        raise InputError(f"the sides of x_t must be multiples of {factor}, got {size}")


def _text(block: Any, context: Tensor | None) -> dict[str, Tensor | None]:
    """The argument of blocks that attend to text; the others take none."""
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}


def _down(unet: Any, image: Tensor, temb: Tensor, context: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Stages 2 and 3 of the U-Net's `forward`: the deepest features and the skips."""
    hidden = unet.conv_in(image)
    skips = (hidden,)
    for block in unet.down_blocks:
        if hasattr(block, "skip_conv"):
            hidden, new_skips, image = block(hidden_states=hidden, temb=temb, skip_sample=image)
        else:
            hidden, new_skips = block(hidden_states=hidden, temb=temb, **_text(block, context))
        skips += new_skips
    return hidden, skips


def _mid_until_tap(mid: Any, hidden: Tensor, temb: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mid block up to its last `norm2`, and the input of that residual block."""
    *resnets, last = mid.resnets
    for resnet, attention in zip(resnets, mid.attentions, strict=True):
        hidden = resnet(hidden, temb)
        if text := _text(mid, context):
            hidden = attention(hidden, **text, return_dict=False)[0]
        elif attention is not None:
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
    """Stages 5 and 6 of the U-Net's `forward`."""
    skips, image = encoded.skips, None
    for block in unet.up_blocks:
        count = len(block.resnets)
        skips, block_skips = skips[:-count], skips[-count:]
        if hasattr(block, "skip_conv"):
            hidden, image = block(hidden, block_skips, encoded.temb, image)
        else:
            hidden = block(hidden, block_skips, encoded.temb, **_text(block, encoded.context))
    output = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    if image is not None:
        output = output + image
    if unet.config["time_embedding_type"] == "fourier":
        output = output / encoded.t[:, None, None, None]
    return output
