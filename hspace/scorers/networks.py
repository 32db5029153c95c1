"""The networks of the embedded scorers: small, for 64 x 64 portraits, and of two different architectures.

None of them normalises over the batch, so that a score never depends on the images beside it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainNet(nn.Module):
    """Plain strided convolutions: the annotator and the identity encoder.

    Args:
        outputs: Length of the output vector.
        width: Channels of the first stage.
    """

    def __init__(self, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.stem: nn.Sequential = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2), nn.GroupNorm(8, width), nn.SiLU()
        )
        stages = [(width, width), (width, 2 * width), (2 * width, 3 * width)]
        self.trunk: nn.Sequential = nn.Sequential(*(self._stage(inner, outer) for inner, outer in stages), nn.Flatten())
        self.hidden: nn.Sequential = nn.Sequential(nn.Linear(3 * width * 16, 256), nn.SiLU())
        self.head: nn.Linear = nn.Linear(256, outputs)

    @staticmethod
    def _stage(inner: int, outer: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inner, outer, 3, padding=1), nn.GroupNorm(8, outer), nn.SiLU(),
            nn.Conv2d(outer, outer, 3, stride=2, padding=1), nn.GroupNorm(8, outer), nn.SiLU(),
        )  # fmt: skip

    def features(self, images: Tensor) -> Tensor:
        """(batch, 3, 64, 64) to (batch, 256)."""
        return self.hidden(self.trunk(self.stem(images)))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, 64, 64) to (batch, outputs)."""
        return self.head(self.features(images))


class ResidualBlock(nn.Module):
    """Two convolutions with the activations before them, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body: nn.Sequential = nn.Sequential(
            nn.GroupNorm(4, width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, height, width) to the same shape."""
        return x + self.body(x)


class ResidualNet(nn.Module):
    """Residual blocks between poolings, on blocks of 2 x 2 pixels: the judge.

    Args:
        outputs: Length of the output vector.
        width: Channels of the first stage.
    """

    def __init__(self, outputs: int, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1)]
        for stage in (1, 2, 3):
            layers += [ResidualBlock(stage * width), nn.AvgPool2d(2), nn.Conv2d(stage * width, (stage + 1) * width, 1)]
        layers += [ResidualBlock(4 * width), nn.GroupNorm(4, 4 * width), nn.Conv2d(4 * width, 24, 1), nn.Flatten()]
        self.trunk: nn.Sequential = nn.Sequential(*layers)
        self.hidden: nn.Sequential = nn.Sequential(nn.Linear(24 * 16, 192), nn.GELU())
        self.head: nn.Linear = nn.Linear(192, outputs)

    def features(self, images: Tensor) -> Tensor:
        """(batch, 3, 64, 64) to (batch, 192)."""
        return self.hidden(self.trunk(images))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, 64, 64) to (batch, outputs)."""
        return self.head(self.features(images))


class RegionNet(nn.Module):
    """A U-Net of plain convolutions on blocks of 2 x 2 pixels: the segmentation network.

    Args:
        outputs: Number of regions.
        width: Channels at half the resolution.
    """

    def __init__(self, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.fine: nn.Sequential = self._pair(12, width)
        self.middle: nn.Sequential = self._pair(width, 2 * width)
        self.coarse: nn.Sequential = self._pair(2 * width, 4 * width)
        self.middle_up: nn.Sequential = self._pair(6 * width, 2 * width)
        self.fine_up: nn.Sequential = self._pair(3 * width, width)
        self.head: nn.Conv2d = nn.Conv2d(width, 4 * outputs, 1)

    @staticmethod
    def _pair(inner: int, outer: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inner, outer, 3, padding=1), nn.GroupNorm(8, outer), nn.SiLU(),
            nn.Conv2d(outer, outer, 3, padding=1), nn.GroupNorm(8, outer), nn.SiLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, 64, 64) to logits (batch, outputs, 64, 64)."""
        fine = self.fine(F.pixel_unshuffle(images, 2))
        middle = self.middle(F.avg_pool2d(fine, 2))
        coarse = self.coarse(F.avg_pool2d(middle, 2))
        middle = self.middle_up(torch.cat([middle, F.interpolate(coarse, scale_factor=2.0)], dim=1))
        fine = self.fine_up(torch.cat([fine, F.interpolate(middle, scale_factor=2.0)], dim=1))
        return F.pixel_shuffle(self.head(fine), 2)


ARCHITECTURES: dict[str, type[PlainNet | ResidualNet | RegionNet]] = {
    "plain": PlainNet,
    "residual": ResidualNet,
    "regions": RegionNet,
}


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds of each class against all the others, of the logits of exclusive classes, (batch, classes).

    A class without any other is certain, within the range of a float.
    """
    # Only for the most likely class can 1 - p round to 0: its odds are those against the sum of the others.
    top = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    # The top class's value is replaced below; in the formula it could give a gradient of 0 / 0.
    log_p = logits.log_softmax(dim=1).scatter(1, top, -1.0)
    odds = log_p - torch.log1p(-log_p.exp())
    return odds.scatter(1, top, logits.gather(1, top) - others).clamp(max=torch.finfo(logits.dtype).max)


def to_input_size(images: Tensor, size: int) -> Tensor:
    """Images resized to what a network reads, and grey ones with three channels; unchanged where they already fit."""
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def unit_norm(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1."""
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12)
