"""How good generated pictures are, beside renders."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from card.base import share
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampling import sample
from hspace.diffusion.unet import SemanticUNet
from hspace.evaluation.readings import score
from hspace.metrics.fid import FID
from hspace.scorers.networks import to_input_size
from hspace.system.shards import in_batches
from hspace.types import Embedder, Images, Scorer
from hspace.worlds.rendered import Rendered, from_bytes, to_bytes

UNDECIDED = (0.1, 0.9)
"""Probabilities between which a scorer has not decided."""
COMPARED = 64
"""Largest side in pixels at which pictures are compared one by one."""


def generate(model: DiffusionModel, seeds: Sequence[int], *, batch_size: int) -> Tensor:
    """Samples at eta = 1, in [-1, 1], (n, 3, height, width)."""
    return in_batches(
        range(len(seeds)), batch_size,
        lambda rows: sample(model, model.latents([seeds[row] for row in rows])).x_0.cpu().clamp(-1, 1),
    )  # fmt: skip


def displayed(images: Images) -> Tensor:
    """Images in [-1, 1] as they are displayed, uint8."""
    return to_bytes(images)


def untrained(model: DiffusionModel) -> DiffusionModel:
    """The same architecture and schedule with the random weights that training starts from."""
    unet = model.denoiser.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh: Any = type(unet).from_config(unet.config)
    semantic = SemanticUNet(fresh, model.denoiser.tap).to(model.device, model.dtype).eval().requires_grad_(False)
    return replace(model, denoiser=semantic, model_id="untrained")


def attribute_figures(
    judge: Scorer, annotator: Scorer, generated: Images, renders: Rendered
) -> dict[str, dict[str, float]]:
    """What the judge reads off generated pictures, beside the exact labels of renders.

    Args:
        judge: Reads everything.
        annotator: Reads the binary attributes a second time.
        generated: In [-1, 1].
        renders: Fresh ones.

    Returns:
        By attribute: `judge`, accuracy or R² on the renders; `error_correlation` of the two scorers on them; `error`,
        the difference of the share or mean from the renders' labels, a mean in sd; and for binary attributes
        `agreement` of the two scorers on generated pictures and `decided`, how often the judge decides, as a multiple
        of how often on renders, which is nan if it never does. Where an attribute is not visible it is left out.
    """
    read, again = score(judge, generated), score(annotator, generated)
    visible = judge.visible(read)
    real = renders.batch(torch.arange(len(renders.images)))
    on_renders, again_on_renders = score(judge, real), score(annotator, real)
    figures = {}
    for j, attribute in enumerate(judge.attributes):
        shown, known = visible[:, j], renders.visible[:, j]
        scores, predicted, labels = read[shown, j], on_renders[known, j], renders.labels[known, j]
        if judge.binary[j]:
            figures[attribute] = _binary_figures(scores, again[shown, j], predicted, labels)
        else:
            figures[attribute] = _continuous_figures(scores, predicted, labels)
        errors = torch.stack([predicted - labels, again_on_renders[known, j] - labels])
        figures[attribute]["error_correlation"] = float(torch.corrcoef(errors)[0, 1])
    return figures


def _binary_figures(scores: Tensor, again: Tensor, predicted: Tensor, labels: Tensor) -> dict[str, float]:
    usual = decided_share(predicted)
    return {
        "judge": share((predicted > 0.5) == (labels > 0.5)),
        "error": abs(share(scores > 0.5) - share(labels > 0.5)),
        "agreement": share((scores > 0.5) == (again > 0.5)),
        "decided": decided_share(scores) / usual if usual else math.nan,
    }


def _continuous_figures(scores: Tensor, predicted: Tensor, labels: Tensor) -> dict[str, float]:
    r2 = 1 - (predicted - labels).square().mean() / labels.var()
    return {"judge": float(r2), "error": float((scores.mean() - labels.mean()).abs() / labels.std())}


def decided_share(probabilities: Tensor) -> float:
    """Share of probabilities, (n,), under .1 or above .9."""
    low, high = UNDECIDED
    return share((probabilities < low) | (probabilities > high))


def distances(features: Embedder, real: Images, sets: Mapping[str, Images]) -> dict[str, float]:
    """Fréchet distance of each set of images to the real ones, all in [-1, 1], by the name of the set."""
    metric, found = FID(features), {}
    metric.reset_real_features = False
    for batch in real.split(256):
        metric.update(batch, real=True)
    for name, images in sets.items():
        metric.reset()
        for batch in images.split(256):
            metric.update(batch, real=False)
        found[name] = float(metric.compute())
    return found


def nearest(images: Images, renders: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest render of each image, where both are reduced to 64 pixels if they are larger.

    Args:
        images: n images, in [-1, 1].
        renders: m renders of the same size, uint8.

    Returns:
        Rows of the nearest renders, (n,), and root mean square distances of pixels, (n,), in units of [-1, 1].
    """
    size = min(images.shape[-1], COMPARED)
    flat = to_input_size(images, size).flatten(1)
    chunks = (to_input_size(from_bytes(chunk), size).flatten(1) for chunk in renders.split(1024))
    distances = torch.cat([torch.cdist(flat, chunk) for chunk in chunks], dim=1)
    smallest = distances.min(dim=1)
    return smallest.indices, smallest.values / flat.shape[1] ** 0.5
