"""Inputs and outputs of the U-Nets of diffusers: plain, class-conditional, Stable Diffusion 1 and 2, and SDXL."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from hspace.diffusion.denoiser import CutDenoiser
from hspace.types import InputError


class SemanticUNet(CutDenoiser):
    """A U-Net cut at a tap, by default `after` its mid block, as in all results of the paper."""

    def __init__(self, unet: UNet2DModel | UNet2DConditionModel, tap: str = "after") -> None:
        """Wrap `unet`; its weights are shared, not copied.

        Raises:
            InputError: If the U-Net's kind is not supported, or the tap does not exist in it.
        """
        super().__init__(unet, tap, UNetWiring(unet))


class UNetWiring:
    """Inputs and output of a U-Net; see `Wiring`.

    Attributes:
        classes: Number of classes that the network is conditioned on; 0 where there is none.
    """

    image_tokens: int | None = None

    def __init__(self, unet: Any) -> None:
        _check_supported(unet)
        self._config = config = unet.config
        size = config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        self.sample_shape: tuple[int, int, int] = (config["in_channels"], height, width)
        self.has_text: bool = isinstance(unet, UNet2DConditionModel)
        self.classes: int = 0 if self.has_text else config["num_class_embeds"] or 0
        self.conditional: bool = self.has_text or self.classes > 0

    def inputs(self, x_t: Tensor, t: float, given: Mapping[str, Tensor]) -> dict[str, Any]:
        """The network's arguments for rows of x_t."""
        times = torch.full(
            (len(x_t),), t, dtype=torch.float32 if isinstance(t, float) else torch.long, device=x_t.device
        )
        values: dict[str, Any] = {"sample": x_t, "timestep": times, **given}
        if "text_embeds" in given:
            values["added_cond_kwargs"] = {name: values.pop(name) for name in ("text_embeds", "time_ids")}
        return values

    def output(self, raw: Tensor) -> Tensor:
        """The prediction without the variance that some networks have learnt beside it."""
        return raw[:, : self.sample_shape[0]]

    def example(self, zeros: Any) -> dict[str, Tensor]:
        """A conditioning's inputs for the search of shapes."""
        if not self.has_text:
            return {"class_labels": zeros(1).long()}
        inputs = {"encoder_hidden_states": zeros(1, 1, self._config["cross_attention_dim"])}
        if self._config["addition_embed_type"] == "text_time":
            ids = 6 * self._config["addition_time_embed_dim"]
            inputs |= {"text_embeds": zeros(1, self._config["projection_class_embeddings_input_dim"] - ids)}
            inputs |= {"time_ids": zeros(1, 6)}
        return inputs


def _check_supported(unet: Any) -> None:
    if not isinstance(unet, UNet2DModel | UNet2DConditionModel):
        raise InputError(f"the U-Net must be a UNet2DModel or UNet2DConditionModel, got {type(unet).__name__}")
    config = unet.config
    if config["sample_size"] is None:
        raise InputError("the U-Net's config has no sample_size, so the shape of h is unknown")
    channels, out_channels = config["in_channels"], config["out_channels"]
    if out_channels not in (channels, 2 * channels):
        raise InputError(
            f"the U-Net must return as many channels as it takes, or twice as many, got {channels} to {out_channels}"
        )
    _check_sides(config["sample_size"], 2 ** (len(config["block_out_channels"]) - 1))
    if isinstance(unet, UNet2DConditionModel):
        _check_conditional(config)
    elif unet.class_embedding is not None and not config["num_class_embeds"]:
        raise InputError(
            f"classes must be numbered (num_class_embeds), got class_embed_type {config['class_embed_type']}"
        )


def _check_sides(size: Any, factor: int) -> None:
    if any(side % factor for side in ([size] if isinstance(size, int) else size)):
        raise InputError(f"the sides of x_t must be multiples of {factor}, got sample_size {size}")


def _check_conditional(config: Mapping[str, Any]) -> None:
    """Refuse what neither Stable Diffusion 1 and 2 nor SDXL have, since `inputs` would leave it out."""
    plain = {"encoder_hid_dim_type": None, "time_cond_proj_dim": None, "class_embed_type": None}
    plain |= {"num_class_embeds": None, "time_embedding_act_fn": None, "time_embedding_type": "positional"}
    for key, value in plain.items():
        if config[key] != value:
            raise InputError(f"U-Nets with text must be like Stable Diffusion 1, 2 or XL, got {key} {config[key]}")
    if config["addition_embed_type"] not in (None, "text_time"):
        got = config["addition_embed_type"]
        raise InputError(f"U-Nets with text must be like Stable Diffusion 1, 2 or XL, got addition_embed_type {got}")
    if not isinstance(config["cross_attention_dim"], int):
        raise InputError(f"cross_attention_dim must be one number for all levels, got {config['cross_attention_dim']}")
