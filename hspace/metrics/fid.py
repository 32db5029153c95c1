"""Fréchet distance between the features of real and of edited images."""

import logging

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from hspace.types import Embedder, InputError

logger: logging.Logger = logging.getLogger(__name__)


class FID(FrechetInceptionDistance):
    """Fréchet distance d² = |mu_r - mu_f|² + tr(S_r + S_f - 2 (S_r S_f)^½) in an embedder's feature space.

    torchmetrics accumulates the sums in float64 and reduces them over processes; the features and the distance are
    ours. With any embedder but the Inception network of `inception_fid` the values compare only among themselves.

    Args:
        embedder: Embedder of images in [-1, 1], giving features (batch, dim).
        min_samples: Number of images on a side under which a warning is logged: the distance is biased upwards for few.

    Source: Heusel et al. 2017 (arXiv 1706.08500), eq. 6.
    """

    orig_dtype: torch.dtype = torch.float64

    def __init__(self, embedder: Embedder, min_samples: int = 2048) -> None:
        super().__init__(feature=FeatureModule(embedder))
        self.min_samples = min_samples

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add images in [-1, 1], (batch, C, H, W), to the real or to the edited side."""
        super().update(imgs, real)

    def compute(self) -> Tensor:
        """The distance, a float64 scalar >= 0 up to rounding, in squared feature units.

        Raises:
            InputError: With fewer than two images on either side.
        """
        num_real, num_fake = int(self.real_features_num_samples), int(self.fake_features_num_samples)
        fewest = min(num_real, num_fake)
        if fewest < 2:
            raise InputError(f"FID needs at least two images on each side, got {num_real} real and {num_fake} edited")
        if fewest < self.min_samples:
            logger.warning("FID of %d images is biased upwards: use at least %d", fewest, self.min_samples)
        real = _gaussian(self.real_features_sum, self.real_features_cov_sum, num_real)
        fake = _gaussian(self.fake_features_sum, self.fake_features_cov_sum, num_fake)
        return frechet_distance(*real, *fake)


def inception_fid(min_samples: int = 2048) -> FID:
    """The FID of the literature: Inception v3 pool features, resized as in pytorch-fid.

    Raises:
        InputError: If torch-fidelity, which brings the network, is not installed.
    """
    return FID(_Inception(), min_samples)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """Squared Fréchet distance of two Gaussians, means (dim,) and covariances (dim, dim).

    The trace of (S_a S_b)^½ is the nuclear norm of S_a^½ S_b^½: only symmetric roots and singular values, which stay
    real and exact for the singular covariances of few samples, and are faster than eigenvalues of a product.

    Examples:
        >>> eye = torch.eye(3, dtype=torch.float64)
        >>> float(frechet_distance(torch.zeros(3), eye, torch.ones(3), 4 * eye).round(decimals=6))
        6.0
    """
    trace_of_root = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    return (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root


def _root(cov: Tensor) -> Tensor:
    """Symmetric square root; eigenvalues that rounding made negative are zero."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _gaussian(total: Tensor, total_outer: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and n - 1 covariance from the sums of features and of their outer products."""
    mean = total / count
    return mean, (total_outer - count * torch.outer(mean, mean)) / (count - 1)


class FeatureModule(nn.Module):
    """An embedder as the feature module that torchmetrics expects."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        self.num_features: int = embedder.dim

    def forward(self, images: Tensor) -> Tensor:
        """Features in float64, (batch, dim)."""
        with torch.no_grad():
            return self.embedder(images).double()


class _Inception(nn.Module):
    """torchmetrics' Inception v3 as an embedder of images in [-1, 1]."""

    id = "inception-v3-compat"
    dim = 2048

    def __init__(self) -> None:
        super().__init__()
        try:
            # Without antialiasing: the resize that published values were computed with.
            self.network = FrechetInceptionDistance(feature=self.dim, antialias=False).inception
        except ModuleNotFoundError as error:
            raise InputError("inception_fid needs torch-fidelity: pip install torch-fidelity") from error

    def forward(self, images: Tensor) -> Tensor:
        return self.network(((images + 1) * 127.5).round().clamp(0, 255).byte())
