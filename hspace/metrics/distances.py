"""FID and KID between originals, their reconstructions and their edits, on disjoint halves, or from real images.

Both distances need independent sets. The same samples before and after an edit are not independent: their features go
together, so that the unbiased KID of an edit that does nothing lies below 0. Therefore one role of each pair is read
from every other sample, and the other role from the samples between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from hspace.metrics.fid import FID
from hspace.metrics.kid import KID, KIDValue
from hspace.types import Embedder, Images, InputError

ROLES = ("original", "reconstruction", "edited")


@dataclass(frozen=True)
class Distance:
    """Distances between two sets of images; lower is better.

    Attributes:
        fid: Squared Fréchet distance, >= 0 up to rounding and biased upwards for few images.
        kid: Kernel distance, mean and sd over subsets; unbiased.
        embedder: Id of the network whose features were compared.
        images: Number of images in the smaller set.
    """

    fid: float
    kid: KIDValue
    embedder: str
    images: int


@torch.no_grad()
def image_distances(
    images: Mapping[str, Images],
    embedder: Embedder,
    *,
    min_samples: int = 2048,
    subset_size: int = 100,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[tuple[str, str], Distance]:
    """FID and KID of each pair of sets: the cost of inverting, the cost of the edit, and both.

    Args:
        images: Images in [-1, 1] by role, "original", "reconstruction" or "edited"; two roles or all three, each of the
            same samples in the same order.
        embedder: Embedder of the features; `inception_fid` has the literature's.
        min_samples: Number of images in a set under which a warning is logged.
        subset_size: Size of KID's subsets; there must be at least twice as many samples.
        batch_size: Number of images per pass of the embedder.
        seed: Seed of KID's subsets.

    Returns:
        One distance by pair of roles.

    Raises:
        InputError: If a role is unknown, there are fewer than two sets, they are not of the same samples, or half of
            these are fewer than a subset.
    """
    if len(images) < 2 or not set(images) <= set(ROLES):
        raise InputError(f"distances need two or three sets of images among {', '.join(ROLES)}, got {list(images)}")
    sizes = [len(each) for each in images.values()]
    if len(set(sizes)) > 1:
        raise InputError(f"distances need sets of the same samples, got {sizes} images")
    features = {role: torch.cat([embedder(batch) for batch in x.split(batch_size)]) for role, x in images.items()}
    return {
        (first, second): distance(
            features[first][0::2], features[second][1::2], embedder, min_samples=min_samples, subset_size=subset_size,
            seed=seed,
        )
        for first, second in combinations([role for role in ROLES if role in features], 2)
    }  # fmt: skip


@torch.no_grad()
def distance(
    real: Tensor, other: Tensor, embedder: Embedder, *, min_samples: int = 2048, subset_size: int = 100, seed: int = 0
) -> Distance:
    """FID and KID of two sets of images that share none.

    Args:
        real: Features of the one set, (n, dim).
        other: Features of the other set, (m, dim).
        embedder: Embedder that gave them.
        min_samples: Number of images in a set under which a warning is logged.
        subset_size: Size of KID's subsets, at most n and m.
        seed: Seed of KID's subsets.

    Raises:
        InputError: If a set is smaller than a subset, or has one image.
    """
    known = _Known(embedder)
    metrics = FID(known, min_samples), KID(known, min_samples, subset_size=subset_size, seed=seed)
    for metric in metrics:
        metric.update(real, real=True)
        metric.update(other, real=False)
    count = min(len(real), len(other))
    return Distance(float(metrics[0].compute()), metrics[1].compute(), embedder.id, count)


class _Known(nn.Module):
    """An embedder that gives back features, so that each image is embedded once."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.id, self.dim = embedder.id, embedder.dim

    def forward(self, features: Tensor) -> Tensor:
        return features
