"""Locality: the change of an image outside the region of an edit."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchmetrics.utilities import dim_zero_cat

from hspace.metrics.interval import Interval, mean_interval
from hspace.types import Embedder, Images, InputError

DATA_RANGE = 2.0
"""Images lie in [-1, 1]."""

Distance = Callable[[Images, Images], Tensor]
"""Two batches of images to one distance for each pair, (batch,)."""


class LocalityValues(NamedTuple):
    """Likeness outside a region, each number with its 95% interval over images.

    Attributes:
        ssim: Mean structural similarity, in [-1, 1]; 1 is unchanged.
        psnr: Peak signal-to-noise ratio of the mean squared error of all images, in dB; inf is unchanged.
        perceptual: Mean perceptual distance, >= 0; 0 is unchanged.
    """

    ssim: Interval
    psnr: Interval
    perceptual: Interval


class Locality(Metric):
    """SSIM, PSNR and a perceptual distance between originals and edits, outside a region.

    Inside the region the original is put in the edit's place first, so that nothing which happens there counts, not
    even through the window of SSIM or the receptive field of a network. SSIM (Gaussian window of sd 1.5) and the
    squared error are averaged over the pixels outside; the perceptual distance is that of the whole images.

    Args:
        distance: Perceptual distance, such as `feature_distance(WorldFeatures(judge))` or `lpips_distance()`.

    Source: Wang et al. 2004 (IEEE TIP 13, 600-612) for SSIM, which torchmetrics computes.
    """

    full_state_update: bool | None = False
    values: list[Tensor]

    def __init__(self, distance: Distance) -> None:
        super().__init__()
        self.distance = distance
        # SSIM, squared error and perceptual distance of each image, (n, 3).
        self.add_state("values", [], dist_reduce_fx="cat")

    @torch.no_grad()
    def update(self, original: Images, edited: Images, region: Tensor) -> None:
        """Add a batch of pairs.

        Args:
            original: Unedited images in [-1, 1], (batch, C, H, W), at least 11 x 11 pixels.
            edited: The same samples edited.
            region: Mask that is True where the edit may change the image, bool (batch, H, W), or (1, H, W) for all.

        Raises:
            InputError: If the shapes do not agree, or a region covers the whole image.
        """
        if original.shape != edited.shape or region.shape[1:] != original.shape[-2:]:
            shapes = f"{[*original.shape]}, {[*edited.shape]} and {[*region.shape]}"
            raise InputError(f"locality needs two sets of images of one shape and a region as large, got {shapes}")
        outside = ~region.expand(len(original), *region.shape[1:])
        pixels = outside.sum(dim=(1, 2))
        if not bool((pixels > 0).all()):
            raise InputError("a region must leave a part of the image outside, got one that covers it")
        edited = torch.where(outside[:, None], edited, original)
        similarity = structural_similarity_index_measure(
            edited.double(), original.double(), data_range=DATA_RANGE, return_full_image=True
        )[1]
        error = (edited.double() - original.double()).square()
        ssim, squared = (
            (values.mean(dim=1) * outside).sum(dim=(1, 2)) / pixels for values in (similarity, error)
        )  # fmt: skip
        self.values.append(torch.stack([ssim, squared, self.distance(original, edited).double()], dim=1))

    def compute(self) -> LocalityValues:
        """The three figures; nan with fewer than ten pairs."""
        ssim, squared, perceptual = dim_zero_cat(self.values).cpu().numpy().T
        error = mean_interval(squared, low=0.0)
        psnr = Interval(_psnr(error.value), _psnr(error.high), _psnr(error.low), error.n)
        return LocalityValues(mean_interval(ssim, -1.0, 1.0), psnr, mean_interval(perceptual, low=0.0))


def feature_distance(embedder: Embedder) -> Distance:
    """1 - cosine of an embedder's features, in [0, 2]; of `WorldFeatures(judge)` those of its last hidden layer."""

    def distance(original: Images, edited: Images) -> Tensor:
        return 1 - torch.nn.functional.cosine_similarity(embedder(original).double(), embedder(edited).double())

    return distance


def lpips_distance(network: str = "alex") -> Distance:
    """LPIPS, with pretrained weights that torchvision downloads.

    Args:
        network: `alex` (the authors' choice for comparing images), `vgg` or `squeeze`.

    Raises:
        InputError: If torchvision is not installed.

    Source: Zhang et al. 2018 (arXiv 1801.03924).
    """
    try:
        net = LearnedPerceptualImagePatchSimilarity(net_type=network).net  # pyright: ignore[reportArgumentType]
    except ModuleNotFoundError as error:
        raise InputError("lpips_distance needs torchvision: pip install torchvision") from error
    return lambda original, edited: net(original.clamp(-1, 1), edited.clamp(-1, 1)).flatten()


def _psnr(squared: float) -> float:
    """Signal-to-noise ratio in dB; inf where nothing differs, nan where nothing is known."""
    return float("inf") if squared == 0 else 10 * math.log10(DATA_RANGE**2 / squared)
