"""Training a U-Net to leave more to h: what the skip connections carry past it no edit of h can change."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hspace.types import Images


@contextmanager
def changed_skips(unet: Any, kept: Tensor, exchanged: Tensor) -> Iterator[None]:
    """Has the decoder of a `UNet2DModel` do without skip connections, or with those of another image.

    A decoder that has to draw some images from h alone leaves more to h. It can tell having skips from having none,
    though, and may go on trusting them where it has them; skips that belong to another image teach it to follow h where
    the two disagree, as they do in an edit.

    Args:
        unet: The network.
        kept: (batch,), False where an image has no skips.
        exchanged: (batch,), True where an image of one half of the batch has those of the same row in the other half.

    Source: ours.
    """
    kept, exchanged = (rows.to(unet.device)[:, None, None, None] for rows in (kept, exchanged))

    def change(block: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, skips, *rest = arguments
        changed = (torch.where(exchanged, other_half(skip), skip) * kept.to(skip.dtype) for skip in skips)
        return hidden, tuple(changed), *rest

    # A transformer has no such blocks.
    hooks = [block.register_forward_pre_hook(change) for block in getattr(unet, "up_blocks", ())]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def other_half(batch: Tensor) -> Tensor:
    """The halves of a batch in each other's place."""
    return batch.roll(len(batch) // 2, dims=0)


def targets(scheduler: Any, x_0: Images, x_t: Images, t: Tensor, exchanged: Tensor) -> Images:
    """What the network should return.

    Where skips are exchanged, the noisy image that the decoder is to clean is that of the other half: with the output,
    it should give the clean image that h belongs to.

    Args:
        scheduler: Has the noise levels and the prediction type.
        x_0: Clean images, (batch, 3, size, size).
        x_t: Noisy images.
        t: Model times, (batch,), the same in both halves.
        exchanged: (batch,), as in `changed_skips`.

    Source: ours.
    """
    alpha_bar = scheduler.alphas_cumprod.to(t.device)[t, None, None, None]
    decoded = torch.where(exchanged.to(t.device)[:, None, None, None], other_half(x_t), x_t)
    noise = (decoded - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
    target = {"epsilon": noise, "sample": x_0}.get(scheduler.config.prediction_type)
    return scheduler.get_velocity(x_0, noise, t) if target is None else target
