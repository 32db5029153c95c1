"""FID and KID between originals, their reconstructions and their edits, on disjoint halves of the samples.

Both distances are of independent sets. The same samples before and after an edit are not: their features go together,
so that the unbiased KID of an edit that does nothing lies below 0. One role of each pair is read off every other sample
and the other role off the samples between.
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
    """How far two sets of images are apart; lower is better.

    Attributes:
        fid: Squared Fréchet distance, >= 0 up to rounding and biased upwards for few images.
        kid: Mean and sd over subsets; unbiased.
        embedder: Id of the network whose features were compared.
        images: Number of images in each set: half of the samples.
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
    """FID and KID of each pair of sets: what inverting cost, what the edit cost, and both.

    Args:
        images: In [-1, 1], by role: "original", "reconstruction", "edited"; two of them or all three, each of the same
            samples in the same order.
        embedder: Gives the features; `inception_fid` has the literature's.
        min_samples: Fewer images than this in a set are reported.
        subset_size: Of KID; there are at least twice as many samples.
        batch_size: Images per pass of the embedder.
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
    known = _Known(embedder)
    distances = {}
    for pair in combinations([role for role in ROLES if role in features], 2):
        metrics = FID(known, min_samples), KID(known, min_samples, subset_size=subset_size, seed=seed)
        for metric in metrics:
            metric.update(features[pair[0]][0::2], real=True)
            metric.update(features[pair[1]][1::2], real=False)
        count = len(features[pair[1]][1::2])
        distances[pair] = Distance(float(metrics[0].compute()), metrics[1].compute(), embedder.id, count)
    return distances


class _Known(nn.Module):
    """An embedder of what are features already, so that each image is embedded once."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.id, self.dim = embedder.id, embedder.dim

    def forward(self, features: Tensor) -> Tensor:
        return features
