"""Inputs and outputs of the diffusion transformers of diffusers: DiT, PixArt, Stable Diffusion 3 and FLUX."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hspace.types import InputError


class PatchWiring(ABC):
    """Inputs and output of a transformer that cuts an image into patches itself; see `Wiring`.

    The condition's inputs are its arguments by name.
    """

    conditional = True

    def __init__(self, network: Any, time: type) -> None:
        """Take over a network's sizes.

        Args:
            network: Transformer of diffusers.
            time: Type of its model time: int for diffusion, float for flow matching.

        Raises:
            InputError: If its configuration does not say how large a sample is.
        """
        config = network.config
        size, patch = config["sample_size"], config["patch_size"]
        if not isinstance(size, int) or size % patch:
            raise InputError(f"sample_size must be a multiple of patch_size {patch}, got {size}")
        self.sample_shape: tuple[int, int, int] = (config["in_channels"], size, size)
        self.image_tokens: int | None = (size // patch) ** 2
        self._config, self._time = config, time

    def inputs(self, x_t: Tensor, t: float, given: Mapping[str, Tensor]) -> dict[str, Any]:
        """The network's arguments for rows of x_t."""
        kind = torch.long if self._time is int else torch.promote_types(x_t.dtype, torch.float32)
        return {"hidden_states": x_t, "timestep": torch.full((len(x_t),), t, dtype=kind, device=x_t.device), **given}

    def output(self, raw: Tensor) -> Tensor:
        """The prediction without the variance that some networks have learnt beside it."""
        return raw[:, : self.sample_shape[0]]

    @abstractmethod
    def example(self, zeros: Any) -> dict[str, Tensor]:
        """A conditioning's inputs for the search of shapes."""


class DiTWiring(PatchWiring):
    """DiT: conditioned on a class."""

    def __init__(self, network: Any) -> None:
        super().__init__(network, int)

    def example(self, zeros: Any) -> dict[str, Tensor]:
        """Class 0."""
        return {"class_labels": zeros(1).long()}


class PixArtWiring(PatchWiring):
    """PixArt alpha and Sigma: conditioned on a prompt and, for the large models, on the size of the image."""

    def __init__(self, network: Any) -> None:
        super().__init__(network, int)
        self._sized = network.use_additional_conditions

    def inputs(self, x_t: Tensor, t: float, given: Mapping[str, Tensor]) -> dict[str, Any]:
        """The network's arguments for rows of x_t."""
        values = super().inputs(x_t, t, given)
        side, rows = 8 * self.sample_shape[1], len(x_t)
        sized = {"resolution": x_t.new_full((rows, 2), side), "aspect_ratio": x_t.new_ones(rows, 1)}
        values["added_cond_kwargs"] = sized if self._sized else dict.fromkeys(sized)
        return values

    def example(self, zeros: Any) -> dict[str, Tensor]:
        """One token."""
        tokens = {"encoder_hidden_states": zeros(1, 1, self._config["caption_channels"])}
        return tokens | {"encoder_attention_mask": zeros(1, 1) + 1}


class SD3Wiring(PatchWiring):
    """Stable Diffusion 3 and 3.5: conditioned on a prompt, whose tokens run beside those of the image."""

    def __init__(self, network: Any) -> None:
        super().__init__(network, float)

    def example(self, zeros: Any) -> dict[str, Tensor]:
        """One token."""
        tokens = {"encoder_hidden_states": zeros(1, 1, self._config["joint_attention_dim"])}
        return tokens | {"pooled_projections": zeros(1, self._config["pooled_projection_dim"])}


class FluxWiring:
    """FLUX.1: patches of 2 x 2 are channels of tokens, model time goes from 1 to 0, guidance is an input.

    Attributes:
        distilled: Whether guidance is an input of the network.
    """

    conditional = True

    def __init__(self, network: Any, size: int) -> None:
        """Take over a network's sizes.

        Args:
            network: A `FluxTransformer2DModel`.
            size: Side of its latents, which its configuration does not hold.

        Raises:
            InputError: If the side is odd.
        """
        self._config = config = network.config
        if size % 2:
            raise InputError(f"the sides of FLUX's latents must be multiples of 2, got {size}")
        self.distilled: bool = bool(config["guidance_embeds"])
        self.sample_shape: tuple[int, int, int] = (config["in_channels"] // 4, size, size)
        self.image_tokens: int | None = (size // 2) ** 2

    def inputs(self, x_t: Tensor, t: float, given: Mapping[str, Tensor]) -> dict[str, Any]:
        """The network's arguments for rows of x_t."""
        side = self.sample_shape[1] // 2
        rows = torch.arange(side, device=x_t.device, dtype=x_t.dtype)
        ids = torch.stack(torch.meshgrid(torch.zeros_like(rows[:1]), rows, rows, indexing="ij"), dim=-1)
        text = given["encoder_hidden_states"].shape[1]
        return {
            "hidden_states": _pack(x_t), "timestep": torch.full_like(x_t[:, 0, 0, 0], t / 1000),
            "img_ids": ids.flatten(0, 2), "txt_ids": x_t.new_zeros(text, 3), **given,
        }  # fmt: skip

    def output(self, raw: Tensor) -> Tensor:
        """The prediction as an image again."""
        side = self.sample_shape[1] // 2
        patches = raw.unflatten(1, (side, side)).unflatten(3, (-1, 2, 2))
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3, 4)

    def example(self, zeros: Any) -> dict[str, Tensor]:
        """One token."""
        inputs = {"encoder_hidden_states": zeros(1, 1, self._config["joint_attention_dim"])}
        inputs |= {"pooled_projections": zeros(1, self._config["pooled_projection_dim"])}
        return inputs | ({"guidance": zeros(1)} if self.distilled else {})


def _pack(x_t: Tensor) -> Tensor:
    """(batch, channel, height, width) to (batch, height / 2 · width / 2, 4 · channel)."""
    patches = x_t.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
