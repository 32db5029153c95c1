"""Pictures as the latents of an autoencoder, encoded once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from hspace.types import InputError
from hspace.worlds.rendered import Rendered

CHUNK = 64


@dataclass(frozen=True)
class Encoded:
    """Latents in memory.

    Attributes:
        images: (n, channel, height, width) float16, scaled to unit variance.
    """

    images: Tensor

    def batch(self, index: Tensor) -> Tensor:
        """Latents of the given rows, float32."""
        return self.images[index.to(self.images.device)].float()


def load_autoencoder(folder: str) -> AutoencoderKL:
    """An autoencoder that was trained, in evaluation mode, without gradients.

    Raises:
        InputError: If the folder holds none.
    """
    _check(folder)
    network = cast(Any, AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False))
    return network.eval().requires_grad_(False)


def reduction(folder: str) -> int:
    """How many times smaller than the images the latents of an autoencoder are; its weights are not read.

    Raises:
        InputError: If the folder holds none.
    """
    _check(folder)
    config = cast(dict[str, Any], AutoencoderKL.load_config(folder, local_files_only=True))
    return 2 ** (len(config["block_out_channels"]) - 1)


def _check(folder: str) -> None:
    if not (Path(folder) / "config.json").exists():
        raise InputError(f"autoencoder={folder} is not a folder that train_autoencoder.py wrote")


@torch.no_grad()
def encoded(pictures: Rendered, folder: str) -> Encoded:
    """The means of the posteriors of all pictures, computed where their images are."""
    network = cast(Any, load_autoencoder(folder)).to(pictures.images.device)
    rows = torch.arange(len(pictures.images)).split(CHUNK)
    means = [network.encode(pictures.batch(index)).latent_dist.mode().half() for index in rows]
    return Encoded(torch.cat(means) * network.config.scaling_factor)
