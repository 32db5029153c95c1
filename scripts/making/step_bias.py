"""What the choice of steps alone does to the shares of attributes: samples of an exact denoiser, without any network.

    python scripts/making/step_bias.py                  # the embedded model's steps
    python scripts/making/step_bias.py --steps 100 sampled_with=[0.6,-1,0]            # keys: conf/train/ddpm.yaml

The denoiser is the mean of 8,192 renders given x_t, so that a process of infinitely many steps would return each of
them equally often. What the shares of their attributes are off by with few steps is no fault of a training.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from configuration import training_configuration
from sklearn.decomposition import PCA
from torch import Tensor
from train_ddpm import check_beta_schedule, scheduler_of

from hspace.diffusion.process import Schedule
from hspace.output.tables import Table, to_markdown
from hspace.runs.errors import guarded
from hspace.worlds.world import WORLDS, World

RENDERS, SAMPLES, BATCH, SEED = 8192, 20_480, 512, 99
DIMENSIONS = 192
"""Of the subspace of renders and noise, which holds nearly all of their variance and is far faster than pixels."""


def lost_shares(
    world: World, schedule: Schedule, size: int, renders: int, samples: int
) -> dict[str, tuple[float, float]]:
    """What the shares of attributes among samples of an exact denoiser are off by, eta = 1.

    Args:
        world: What is rendered.
        schedule: The steps; what a network predicts does not matter.
        size: Height and width of the renders in pixels.
        renders: How many are drawn.
        samples: How many are generated.

    Returns:
        By binary attribute: its share among the renders, in [0, 1], and that among the samples minus it.

    Source: ours; the exact denoiser is eq. 1 of Haas et al. 2024 inverted by Bayes' rule.
    """
    generator = torch.Generator().manual_seed(SEED)
    factors = world.sample_factors(generator, renders)
    images = world.render(factors, size).flatten(1)
    found = PCA(min(DIMENSIONS, renders), svd_solver="randomized", random_state=SEED).fit(images.numpy())
    projected = images @ torch.from_numpy(found.components_).T
    exact = replace(schedule, prediction_type="sample")
    x_T = torch.randn(samples, projected.shape[1], generator=generator).split(BATCH)
    rows = torch.cat([_sample(exact, projected, x_t, generator) for x_t in x_T])
    binary = [attribute.id for attribute in world.judged if attribute.kind == "binary"]
    shares = {name: (float(factors[name].mean()), float(factors[name][rows].mean())) for name in binary}
    return {name: (share, sampled - share) for name, (share, sampled) in shares.items()}


def _sample(schedule: Schedule, renders: Tensor, x_t: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of the renders, (n, d), that the generative process ends at from x_T, (batch, d): (batch,)."""
    # The process is defined on images: every coordinate is a channel of one pixel.
    x_t = x_t[..., None, None]
    alpha_bar: Any = schedule.alpha_bar
    for t, t_prev in schedule.pairs()[:-1]:
        x0_hat = (_posterior(alpha_bar[int(t)], x_t, renders) @ renders)[..., None, None]
        mean, sigma = schedule.posterior(x0_hat, schedule.to_eps(x0_hat, x_t, t), t, t_prev, eta=1.0)
        x_t = mean + sigma * torch.randn(x_t.shape, generator=generator)
    return _posterior(schedule.alpha_bar[schedule.timesteps[-1]], x_t, renders).argmax(1)


def _posterior(alpha_bar: float, x_t: Tensor, renders: Tensor) -> Tensor:
    """Probability of each render, (n, d), given x_t, (batch, d, 1, 1): (batch, n)."""
    logits = alpha_bar**0.5 * (x_t.flatten(1) @ renders.T) - alpha_bar / 2 * renders.square().sum(1)
    return (logits / (1 - alpha_bar)).softmax(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25, help="default: %(default)s")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of conf/train/ddpm.yaml")
    arguments = parser.parse_args(argv)
    cfg = training_configuration("ddpm", arguments.overrides)
    check_beta_schedule("sampled_with", cfg.sampled_with)
    schedule = Schedule.of(scheduler_of(cfg.sampled_with, cfg), arguments.steps)
    shares = lost_shares(WORLDS.get(cfg.world), schedule, cfg.size, RENDERS, SAMPLES)
    rows = tuple((name, *each) for name, each in shares.items())
    caption = (
        f"{SAMPLES:,} samples at {arguments.steps} steps: what they are off by from the shares of {RENDERS:,} renders."
    )
    print(to_markdown(Table(("attribute", "renders", "off by"), rows, caption)))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
