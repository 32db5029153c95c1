"""Between images and the space a model works in: the pixels themselves, or the latents of an autoencoder.

Autoencoders compute in float32 at least: in half precision they cost more quality than they save time.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hspace.types import Images


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


class PixelCodec:
    """The codec of a model whose own space is pixels: nothing to do."""

    parts: dict[str, Any] = {}  # noqa: RUF012

    def encode(self, images: Images) -> Tensor:
        """Images in [-1, 1] to the model's space, where they are the same."""
        return images

    def decode(self, x_0: Tensor) -> Images:
        """The model's clean samples to images in [-1, 1], not clipped."""
        return x_0

    def image_shape(self, sample_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape itself."""
        return sample_shape


class VQCodec:
    """A `VQModel` of diffusers: latents are quantised when they are decoded, not when they are encoded.

    Source: Rombach et al. 2022 (arXiv 2112.10752), sec. 3.1: the quantisation layer belongs to the decoder.
    """

    def __init__(self, autoencoder: Any, scale: float) -> None:
        """Take over an autoencoder.

        Args:
            autoencoder: In evaluation mode.
            scale: What its latents are multiplied with for the diffusion model.
        """
        self.autoencoder, self.scale = autoencoder, scale

    @property
    def parts(self) -> dict[str, Any]:
        """The autoencoder and the scaling of its latents, which its own configuration may leave open."""
        return {"autoencoder": self.autoencoder, "scaling": self.scale}

    def encode(self, images: Images) -> Tensor:
        """Images in [-1, 1] to scaled latents."""
        return self.scale * self._encode(images.to(self.autoencoder.dtype))

    def _encode(self, images: Images) -> Tensor:
        return self.autoencoder.encode(images).latents

    def decode(self, x_0: Tensor) -> Images:
        """Scaled latents to images, about [-1, 1], not clipped."""
        return self.autoencoder.decode(x_0.to(self.autoencoder.dtype) / self.scale).sample

    def image_shape(self, sample_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(channel, height, width) of the images; every level of the autoencoder but one halves the sides."""
        factor = 2 ** (len(self.autoencoder.config["block_out_channels"]) - 1)
        return self.autoencoder.config["in_channels"], factor * sample_shape[1], factor * sample_shape[2]


class KLCodec(VQCodec):
    """An `AutoencoderKL` of diffusers: images are encoded to the mean of the posterior, so that nothing is drawn.

    Source: Rombach et al. 2022 (arXiv 2112.10752), sec. 3.1 and appendix G.
    """

    def _encode(self, images: Images) -> Tensor:
        return self.autoencoder.encode(images).latent_dist.mode()


def make_codec(autoencoder: Any, scale: float, dtype: torch.dtype) -> Codec:
    """The codec of an autoencoder, by its class name, for a model that computes in `dtype`."""
    kind = {"VQModel": VQCodec, "AutoencoderKL": KLCodec}[type(autoencoder).__name__]
    wide = torch.promote_types(dtype, torch.float32)
    return kind(autoencoder.to(dtype=wide).eval().requires_grad_(False), scale)
