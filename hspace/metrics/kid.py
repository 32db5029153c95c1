"""Kernel distance between the features of real and of edited images, which is unbiased and so needs fewer images."""

import logging
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from hspace.metrics.fid import FeatureModule
from hspace.types import Embedder, InputError

logger: logging.Logger = logging.getLogger(__name__)


class KIDValue(NamedTuple):
    """Mean of the distance over subsets and its standard deviation over them (not over n - 1)."""

    mean: float
    sd: float


class KID(KernelInceptionDistance):
    """Unbiased squared MMD with the kernel k(a, b) = (a b / dim + 1)³ in an embedder's feature space.

    Over random subsets of m images from each side, mean and sd of sum_{i != j} [k(r_i, r_j) + k(f_i, f_j)] / (m (m -
    1)) - 2 sum_{i, j} k(r_i, f_j) / m². The mean is 0 for equal distributions, whatever m; a single value may be
    negative. Lower is better. The unit is that of the kernel, and values compare only under one embedder. A generator
    of its own draws the subsets from the images sorted by their features, so that the order in which images come does
    not matter. All features are kept in memory, 8 dim bytes per image.

    Args:
        embedder: Embedder of images in [-1, 1], giving features (batch, dim).
        min_samples: Number of images on a side under which a warning is logged: the subsets then hardly differ.
        subsets: Number of subsets.
        subset_size: m; each side must have at least m images.
        seed: Seed of the subsets.

    Source: Binkowski et al. 2018 (arXiv 1801.01401), sec. 4; torchmetrics computes it.
    """

    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(
        self, embedder: Embedder, min_samples: int = 1000, subsets: int = 100, subset_size: int = 100, seed: int = 0
    ) -> None:
        with warnings.catch_warnings():
            # That it keeps all features in memory, which the docstring says.
            warnings.simplefilter("ignore", UserWarning)
            super().__init__(feature=FeatureModule(embedder), subsets=subsets, subset_size=subset_size)
        self.min_samples = min_samples
        self.seed = seed

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add images in [-1, 1], (batch, C, H, W), to the real or to the edited side."""
        super().update(imgs, real)

    def compute(self) -> KIDValue:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The distance over subsets.

        Raises:
            InputError: With fewer images than a subset has on either side.
        """
        real, fake = (sum(map(len, features)) for features in (self.real_features, self.fake_features))
        if min(real, fake) < self.subset_size:
            raise InputError(
                f"KID needs at least subset_size={self.subset_size} images on each side, got {real} real and "
                f"{fake} edited"
            )
        if min(real, fake) < self.min_samples:
            logger.warning("KID of %d images is uncertain: use at least %d", min(real, fake), self.min_samples)
        self.real_features, self.fake_features = _ordered(self.real_features), _ordered(self.fake_features)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            mean, sd = super().compute()
        return KIDValue(float(mean), float(sd))


def _ordered(features: list[Tensor]) -> list[Tensor]:
    """All features as one tensor, in lexicographic order."""
    rows = torch.cat(features)
    return [rows[torch.from_numpy(np.lexsort(rows.cpu().numpy().T)).to(rows.device)]]
