"""What a swap of h carries from one sample to another: attributes, which it should, and the background, which not."""

import torch
from torch import Tensor

from card.base import evaluation_seeds
from card.generated import generate
from card.subject import Subject
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.edits.mixing import swap
from hspace.evaluation.readings import score
from hspace.types import Scorer


def swapped_shares(
    model: DiffusionModel, judge: Scorer, subject: Subject, n: int, *, batch_size: int
) -> dict[str, dict[str, float]]:
    """How much of the difference of two samples the h of the other brings along, in the mean over samples.

    Args:
        model: At the steps of the edits.
        judge: Reads attributes; the background is read without it.
        subject: The world.
        n: Samples, each with a donor of its own; evaluation seeds.
        batch_size: Rows of one pass.

    Returns:
        `share` and its standard error `se`, see `carried_share`: by judged attribute, of the samples that show it with
        their own h, in the donor and after the swap, and `background` where images show it. A share is 0 if the swapped
        sample has its own, 1 if it has that of the donor.

    Source: ours; the paper swaps h in fig. 2a.
    """
    seeds = evaluation_seeds(2 * n)
    own, donors = (model.latents(half) for half in (seeds[:n], seeds[n:]))
    drawn = generate(model, seeds, batch_size=batch_size)
    images = [*drawn.split(n), swap(model, own, donors, sampler=Sampler(batch_size=batch_size)).clamp(-1, 1)]
    scores = [score(judge, each) for each in images]
    shown = torch.stack([judge.visible(each) for each in scores]).all(0)
    read = {name: [each[shown[:, j], j] for each in scores] for j, name in enumerate(judge.attributes)}
    if (background := subject.world.background) is not None:
        read["background"] = [background(each) for each in images]
    return {name: dict(zip(("share", "se"), carried_share(*each), strict=True)) for name, each in read.items()}


def carried_share(own: Tensor, donor: Tensor, swapped: Tensor) -> tuple[float, float]:
    """Slope of the change by the swap against the difference of donor and sample.

    Args:
        own: Of the samples, (n,) or (n, d).
        donor: Of their donors.
        swapped: Of the samples with the h of the donors.

    Returns:
        The slope through the origin, over all samples and dimensions, and its standard error over samples, whatever
        their variances; nan where donors and samples do not differ, and without samples.

    Source: of the error, White 1980 (Econometrica 48, 817), for a regression with one slope.
    """
    difference, change = ((each - own).double()[:, None].flatten(1) for each in (donor, swapped))
    total = difference.square().sum()
    slope = (change * difference).sum() / total
    scores = ((change - slope * difference) * difference).sum(1)
    return float(slope), float(scores.square().sum().sqrt() / total)
