"""A scorer and an encoder that read colours, which every image has."""

import torch


class Brightness:
    """Mean of the red and of the green channel, both continuous and always visible."""

    id = "brightness"
    attributes: tuple[str, ...] = ("red", "green")
    binary: tuple[bool, ...] = (False, False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :2].mean(dim=(2, 3))

    def visible(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


class Colour:
    """Mean colour as a unit vector."""

    id = "colour"
    dim = 3

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean(dim=(2, 3)), dim=1)
