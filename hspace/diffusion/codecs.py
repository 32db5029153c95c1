"""Maps between images and the space that a model works in: the pixels themselves, or the latents of an autoencoder.

Autoencoders compute in float32 at least: in half precision they cost more quality than they save time.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hspace.types import Images, InputError


@runtime_checkable
class Codec(Protocol):
    """Maps images to a model's space and back."""

    @property
    def parts(self) -> dict[str, Any]:
        """What images depend on, by role; see `model_identity`."""
        ...

    def encode(self, images: Images) -> Tensor:
        """Images in [-1, 1] to the model's space."""
        ...

    def decode(self, x_0: Tensor) -> Images:
        """The model's clean samples to images in [-1, 1], not clipped."""
        ...

    def image_shape(self, sample_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(channel, height, width) of the images of samples of this shape."""
        ...

    def check(self, sample_shape: tuple[int, int, int]) -> None:
        """Checks that samples of this shape are images, or can be decoded to images.

        Raises:
            InputError: If they are not.
        """
        ...


class PixelCodec:
    """The codec of a model whose own space is pixels, in colour or grey: grey images are shown with three channels."""

    parts: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, grey: bool = False) -> None:
        """Set whether the model's own images have one channel."""
        self._grey = grey

    def encode(self, images: Images) -> Tensor:
        """Images in [-1, 1] to the model's space, where they are the same; of a grey model their mean over channels."""
        return images.mean(dim=1, keepdim=True) if self._grey else images

    def decode(self, x_0: Tensor) -> Images:
        """The model's clean samples to images in [-1, 1], not clipped."""
        return x_0.expand(-1, 3, -1, -1) if x_0.shape[1] == 1 else x_0

    def image_shape(self, sample_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape itself, with three channels."""
        return 3, *sample_shape[1:]

    def check(self, sample_shape: tuple[int, int, int]) -> None:
        """Refuse samples that are neither grey nor colour images.

        Raises:
            InputError: If they have neither one nor three channels.
        """
        if sample_shape[0] not in (1, 3):
            raise InputError(f"a model of pixels must have 1 or 3 channels, got {sample_shape[0]}")


class VQCodec:
    """A `VQModel` of diffusers: latents are quantised when they are decoded, not when they are encoded.

    Source: Rombach et al. 2022 (arXiv 2112.10752), sec. 3.1: the quantisation layer belongs to the decoder.
    """

    def __init__(
        self,
        autoencoder: Any,
        scale: float,
        shift: float = 0.0,
        statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        """Take over an autoencoder.

        Args:
            autoencoder: Autoencoder of diffusers, in evaluation mode.
            scale: Factor of its latents for the diffusion model.
            shift: Number that is subtracted from the latents before.
            statistics: Mean and standard deviation of each channel of the latents: the one is subtracted instead of
                `shift`, and the other divides what is left.
        """
        self.autoencoder: Any = autoencoder
        self.scale: float = scale
        self.shift: float = shift
        self.statistics: tuple[Sequence[float], Sequence[float]] | None = statistics

    @property
    def parts(self) -> dict[str, Any]:
        """The autoencoder and the scaling of its latents, which its own configuration may leave open."""
        parts: dict[str, Any] = {"autoencoder": self.autoencoder, "scaling": self.scale}
        parts |= {"shift": self.shift} if self.shift else {}
        return parts | ({"statistics": [list(each) for each in self.statistics]} if self.statistics else {})

    def encode(self, images: Images) -> Tensor:
        """Images in [-1, 1] to scaled latents."""
        latents = self._encode(images.to(self.autoencoder.dtype))
        if self.statistics is None:
            return self.scale * (latents - self.shift)
        mean, std = self._by_channel(latents)
        return self.scale * (latents - mean) / std

    def _encode(self, images: Images) -> Tensor:
        return self.autoencoder.encode(images).latents

    def decode(self, x_0: Tensor) -> Images:
        """Scaled latents to images, about [-1, 1], not clipped."""
        x_0 = x_0.to(self.autoencoder.dtype)
        if self.statistics is None:
            return self.autoencoder.decode(x_0 / self.scale + self.shift).sample
        mean, std = self._by_channel(x_0)
        return self.autoencoder.decode(x_0 * std / self.scale + mean).sample

    def _by_channel(self, like: Tensor) -> list[Tensor]:
        assert self.statistics is not None, "checked before"
        return [like.new_tensor(each).view(1, -1, 1, 1) for each in self.statistics]

    def image_shape(self, sample_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(channel, height, width) of the images; every level of the autoencoder but one halves the sides."""
        factor = 2 ** (len(self.autoencoder.config["block_out_channels"]) - 1)
        return self.autoencoder.config["in_channels"], factor * sample_shape[1], factor * sample_shape[2]

    def check(self, sample_shape: tuple[int, int, int]) -> None:
        """Refuse samples that the autoencoder cannot decode.

        Raises:
            InputError: If they have another number of channels than its latents.
        """
        channels = self.autoencoder.config["latent_channels"]
        if sample_shape[0] != channels:
            raise InputError(f"the autoencoder's latents have {channels} channels, the network's {sample_shape[0]}")


class KLCodec(VQCodec):
    """An `AutoencoderKL` of diffusers: images are encoded to the mean of the posterior, so that nothing is drawn.

    Source: Rombach et al. 2022 (arXiv 2112.10752), sec. 3.1 and appendix G.
    """

    def _encode(self, images: Images) -> Tensor:
        return self.autoencoder.encode(images).latent_dist.mode()


def make_codec(
    autoencoder: Any,
    scale: float,
    dtype: torch.dtype,
    shift: float = 0.0,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Codec:
    """The codec of an autoencoder, by its class name, for a model that computes in `dtype`."""
    kind = {"VQModel": VQCodec, "AutoencoderKL": KLCodec}[type(autoencoder).__name__]
    wide = torch.promote_types(dtype, torch.float32)
    return kind(autoencoder.to(dtype=wide).eval().requires_grad_(False), scale, shift, statistics)
