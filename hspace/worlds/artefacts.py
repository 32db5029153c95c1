"""Image faults as diffusion models make them, for training networks that must read generated images."""

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_NOISE, MAX_BLUR, MAX_GAIN, MAX_SHIFT = 0.15, 0.9, 0.12, 0.10
MAX_SATURATION, MAX_CONTRAST, MAX_STAIN = 0.25, 0.20, 0.12


def diffusion_artefacts(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blurs, recolours and adds noise, each on a random half of the images and of random size.

    Args:
        images: (batch, 3, height, width) in [-1, 1].
        generator: Source of randomness, on the device of the images.

    Returns:
        Images in [-1, 1]: a Gaussian blur of up to .9 pixels, a gain of 1 ± .12 and a shift of ± .10 per colour, and
        noise of a standard deviation up to .15.
    """
    n = len(images)

    def amount(*shape: int) -> Tensor:
        chosen = (torch.rand(n, 1, 1, 1, generator=generator, device=images.device) < 0.5).float()
        return chosen * torch.rand(n, *shape, generator=generator, device=images.device)

    images = _blur(images, MAX_BLUR * amount(1, 1, 1))
    gain = (torch.rand(n, 3, 1, 1, generator=generator, device=images.device) * 2 - 1) * MAX_GAIN
    shift = (torch.rand(n, 3, 1, 1, generator=generator, device=images.device) * 2 - 1) * MAX_SHIFT
    recolour = amount(1, 1, 1)
    images = images * (1 + recolour * gain) + recolour * shift
    images = images + MAX_NOISE * amount(1, 1, 1) * torch.randn(images.shape, generator=generator, device=images.device)
    return images.clamp(-1, 1)


def resampling_artefacts(images: Tensor, generator: torch.Generator) -> Tensor:
    """Coarsens, regrades and stains, each on a random half of the images and of random size.

    Other faults than those of `diffusion_artefacts`, so that networks trained with the one and the other do not share
    their mistakes.

    Args:
        images: (batch, 3, height, width) in [-1, 1].
        generator: Source of randomness, on the device of the images.

    Returns:
        Images in [-1, 1]: mixed with a copy that went through two thirds of the resolution, a contrast of 1 ± .2 and
        a saturation of 1 ± .25, and smooth stains of a standard deviation up to .12.
    """
    n, _, height, width = images.shape

    def amount() -> Tensor:
        chosen = (torch.rand(n, 1, 1, 1, generator=generator, device=images.device) < 0.5).float()
        return chosen * torch.rand(n, 1, 1, 1, generator=generator, device=images.device)

    def around_one(spread: float) -> Tensor:
        return 1 + spread * amount() * (2 * torch.rand(n, 1, 1, 1, generator=generator, device=images.device) - 1)

    coarse = F.interpolate(images, size=(2 * height // 3, 2 * width // 3), mode="bilinear", antialias=True)
    coarse = F.interpolate(coarse, size=(height, width), mode="bilinear")
    images = torch.lerp(images, coarse, amount())
    grey = images.mean(1, keepdim=True)
    images = (grey + (images - grey) * around_one(MAX_SATURATION)) * around_one(MAX_CONTRAST)
    stains = torch.randn(n, 3, height // 8, width // 8, generator=generator, device=images.device)
    images = images + MAX_STAIN * amount() * F.interpolate(stains, size=(height, width), mode="bilinear")
    return images.clamp(-1, 1)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur with a standard deviation per image, in pixels; 0 leaves an image as it is."""
    n, channels, height, width = images.shape
    offset = torch.arange(-2.0, 3.0, device=images.device)
    kernel = torch.exp(-0.5 * (offset / sigma.view(n, 1).clamp(min=1e-3)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(images, (2, 2, 2, 2), mode="replicate").reshape(1, n * channels, height + 4, width + 4)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return F.conv2d(flat, kernel[:, None, None, :], groups=n * channels).reshape(images.shape)


ARTEFACTS = {"diffusion": diffusion_artefacts, "resampling": resampling_artefacts}
