"""How much of an attribute reaches the predicted image through h, and how much through the skip connections.

No edit of h can change what the skips carry. The renderer gives pairs of pictures that differ in one attribute alone;
decoding one of a pair with the h of the other tells the two ways apart.
"""

from bisect import bisect_left

import torch
from torch import Tensor

from card.subject import Subject
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.process import Schedule
from hspace.types import Scorer
from hspace.worlds.attributes import Attribute

ENDS = (0.1, 0.9)
"""Of the range of a continuous attribute: where the two pictures of a pair lie."""
HALF = 0.5


def carried_by_h(
    model: DiffusionModel, judge: Scorer, subject: Subject, n: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """By judged attribute: the noise level at which half of it is decided, and how much of it h carries there.

    Decided is the change of the judge's score between the predicted images P_t of a pair, as a share of the change
    between the renders themselves; both pictures get the same noise. It falls as noise grows, so the level is found by
    bisection.

    Args:
        model: Of the world.
        judge: Reads predicted images and renders.
        subject: The world.
        n: Number of pairs.
        seed: Of the pairs and of the noise.

    Returns:
        `log_snr`, log alpha_bar / (1 - alpha_bar) at the noisiest model time with half decided, and `by_h`, the share
        of that which h carries: 1 if all, 0 if the skips do. None where less than half is decided at every time.

    Source: ours.
    """
    figures = {}
    assert isinstance(model.process, Schedule), "of diffusion"
    alpha_bar = torch.tensor(model.process.alpha_bar, dtype=torch.float64)
    for attribute in subject.world.judged:
        pairs = counterfactuals(subject, attribute, n, model.image_shape[-1], seed)
        column = judge.attributes.index(attribute.id)
        noise = torch.randn((n, *model.sample_shape), generator=torch.Generator().manual_seed(seed))
        clean, whole = encoded(model, pairs), _change(judge, pairs, column)
        undecided = bisect_left(
            range(len(alpha_bar)), True,
            key=lambda t: _change(judge, predictions(model, clean, noise, t), column) < HALF * whole,
        )  # fmt: skip
        if undecided == 0:
            figures[attribute.id] = {"log_snr": None, "by_h": None}
            continue
        own, swapped = (
            _change(judge, predictions(model, clean, noise, undecided - 1, swap=swap), column) for swap in (False, True)
        )
        log_snr = float(torch.logit(alpha_bar[undecided - 1]))
        figures[attribute.id] = {"log_snr": log_snr, "by_h": (own - swapped) / (2 * own)}
    return figures


def counterfactuals(subject: Subject, attribute: Attribute, n: int, size: int, seed: int) -> Tensor:
    """Pairs of pictures that differ in one attribute alone, and hide none.

    Returns:
        (2, n, 3, size, size) in [-1, 1]: with the low and with the high end of the attribute.
    """
    world, generator = subject.world, torch.Generator().manual_seed(seed)
    factors = subject.shown(world.sample_factors(generator, n, correlated=False))
    ends = (0.0, 1.0) if attribute.kind == "binary" else ENDS
    values = [attribute.low + end * (attribute.high - attribute.low) for end in ends]
    return torch.stack([world.render(factors | {attribute.id: torch.full((n,), value)}, size) for value in values])


@torch.no_grad()
def encoded(model: DiffusionModel, pairs: Tensor) -> Tensor:
    """Pairs of images, (2, n, 3, H, W) in [-1, 1], as the model's clean samples, (2, n, *sample_shape), on the CPU."""
    return model.codec.encode(pairs.flatten(0, 1).to(model.device)).cpu().unflatten(0, (2, -1))


@torch.no_grad()
def predictions(model: DiffusionModel, clean: Tensor, noise: Tensor, t: int, *, swap: bool = False) -> Tensor:
    """P_t of both pictures of each pair as images, (2, n, 3, H, W).

    Args:
        model: The model.
        clean: Both pictures in the model's space, (2, n, *sample_shape); see `encoded`.
        noise: (n, *sample_shape), the same for both.
        t: Model time.
        swap: Whether each is decoded with the h of the other.
    """
    schedule = model.process
    x_t = schedule.add_noise(clean.flatten(0, 1), noise.repeat(2, 1, 1, 1), t).to(model.device, model.dtype)
    encoded = model.denoiser.encode(x_t, t, model.cond)
    h = encoded.h.roll(len(noise), dims=0) if swap else encoded.h
    eps = schedule.to_eps(model.denoiser.decode(h, encoded), x_t, t)
    return model.codec.decode(schedule.predict_x0(x_t, eps, t)).unflatten(0, (2, -1)).cpu()


def _change(judge: Scorer, pairs: Tensor, column: int) -> float:
    """Mean change of a score from the first pictures of pairs to the second."""
    low, high = (judge(images)[:, column].mean() for images in pairs)
    return float(high - low)
