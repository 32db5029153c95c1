"""FID and KID between originals, their reconstructions and their edits."""

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
    """FID and KID of each pair of sets: what inverting cost, what the edit cost, and both.

    Args:
        images: In [-1, 1], by role: "original", "reconstruction", "edited"; two of them or all three.
        embedder: Gives the features; `inception_fid` has the literature's.
        min_samples: Fewer images than this in a set are reported.
        subset_size: Of KID; each set has at least as many images.
        batch_size: Images per pass of the embedder.
        seed: Of KID's subsets.

    Returns:
        One distance by pair of roles.

    Raises:
        InputError: If a role is unknown, there are fewer than two sets, or a set is smaller than a subset.
    """
    if len(images) < 2 or not set(images) <= set(ROLES):
        raise InputError(f"distances need two or three sets of images among {', '.join(ROLES)}, got {list(images)}")
    features = {role: torch.cat([embedder(batch) for batch in x.split(batch_size)]) for role, x in images.items()}
    known = _Known(embedder)
    distances = {}
    for pair in combinations([role for role in ROLES if role in features], 2):
        metrics = FID(known, min_samples), KID(known, min_samples, subset_size=subset_size, seed=seed)
        for metric in metrics:
            metric.update(features[pair[0]], real=True)
            metric.update(features[pair[1]], real=False)
        count = min(len(features[role]) for role in pair)
        distances[pair] = Distance(float(metrics[0].compute()), metrics[1].compute(), embedder.id, count)
    return distances


class _Known(nn.Module):
    """An embedder of what are features already, so that each image is embedded once."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.id, self.dim = embedder.id, embedder.dim

    def forward(self, features: Tensor) -> Tensor:
        return features
