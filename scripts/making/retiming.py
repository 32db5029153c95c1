"""Cosine noise schedules of any width, and how a trained network is told of another schedule."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

RETIME_ITERATIONS = 3000
"""Of LBFGS: a quarter of a minute."""


def cosine(num_train_timesteps: int, width: float, shift: float, slope: float = 0.0) -> list[float]:
    """The betas of a cosine schedule that has more of its times where attributes are decided.

    log alpha_bar / (1 - alpha_bar) = shift - 2 width log tan(pi u / 2) + slope (1/2 - u),
    u = (t + 1/2) / num_train_timesteps.

    Args:
        num_train_timesteps: How many model times there are.
        width: Of the range of log SNR, above 0; with 1, and a shift of 0, this is the cosine schedule itself.
        shift: log SNR in the middle of the times.
        slope: How far log SNR falls evenly over all times, 0 or more; it makes the range wide without thinning out its
            middle.

    Returns:
        By model time, each in (0, 1): what `trained_betas` of a diffusers scheduler takes.

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17; the shift is that of Hoogeboom et al. 2023 (arXiv
    2301.11093), sec. 3.1; width and slope are ours.
    """
    u = (np.arange(num_train_timesteps) + 0.5) / num_train_timesteps
    log_snr = shift - 2 * width * np.log(np.tan(np.pi * u / 2)) + slope * (0.5 - u)
    alpha_bar = 1 / (1 + np.exp(-log_snr))
    return (1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])).tolist()


def retime(unet: Any, before: Tensor, after: Tensor) -> float:
    """Fits the time embedding of a network to another noise schedule, so that it need not learn it from images.

    What the network should do depends on the noise in x_t, of which t only tells: at a time of the new schedule it is
    given the embedding that it had at the time of the same alpha_bar in the old one.

    Args:
        unet: A `UNet2DModel`; its time embedding is changed.
        before: alpha_bar by model time, (times,), that it was trained with.
        after: The new one, (new times,).

    Returns:
        What is left of the embedding's standard deviation over times.

    Source: ours.
    """
    old, new = (torch.logit(alpha_bar.double()).numpy() for alpha_bar in (before, after))
    same = torch.from_numpy(np.interp(-new, -old, np.arange(len(old)))).to(unet.device, torch.float32)
    with torch.no_grad():
        target = unet.time_embedding(unet.time_proj(same))
    inputs = unet.time_proj(torch.arange(len(new), device=unet.device))

    def error() -> Tensor:
        fit.zero_grad()
        squares = (unet.time_embedding(inputs) - target).square().mean() / target.var(0).mean()
        squares.backward()
        return squares

    fit = torch.optim.LBFGS(
        unet.time_embedding.parameters(), max_iter=RETIME_ITERATIONS, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=1e-10, tolerance_change=1e-12,
    )  # fmt: skip
    fit.step(error)
    left = error().sqrt().item()
    fit.zero_grad()
    return left
