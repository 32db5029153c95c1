"""What the choice of steps alone does to the shares of attributes: samples of an exact denoiser, without any network.

    python scripts/step_bias.py                  # the embedded model's steps
    python scripts/step_bias.py --steps 100 sampled_with=[0.6,-1,0]            # keys: conf/train/ddpm.yaml

The denoiser is the mean of 8,192 renders given x_t, so that a process of infinitely many steps would return each of
them equally often. What the shares of their attributes are off by with few steps is no fault of a training.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from train_ddpm import check_beta_schedule, scheduler_of

from hspace.data.portraits import JUDGED, render, sample_factors
from hspace.mistakes import guarded
from hspace.schedule import Schedule
from hspace.tables import Table, to_markdown
from hspace.training import training_configuration

RENDERS, SAMPLES, BATCH, SEED = 8192, 20_480, 512, 99
DIMENSIONS = 192
"""Of the renders' principal subspace, which holds 97% of their variance. Noise outside it would decide nothing."""


def lost_shares(schedule: Schedule, renders: int, samples: int) -> dict[str, tuple[float, float]]:
    """Share of each binary attribute among renders, and what it is too high or too low by among samples, eta = 1.

    Args:
        schedule: The steps; nothing is predicted, so its prediction type does not matter.
        renders: How many are drawn.
        samples: How many are generated.
    """
    generator = torch.Generator().manual_seed(SEED)
    factors = sample_factors(generator, renders)
    images = render(factors, 32).flatten(1)
    basis = torch.pca_lowrank(images, min(DIMENSIONS, renders), niter=4)[2]
    rows = _sample(schedule, images @ basis, samples, generator)
    binary = [attribute.id for attribute in JUDGED if attribute.kind == "binary"]
    shares = {name: (float(factors[name].mean()), float(factors[name][rows].mean())) for name in binary}
    return {name: (share, sampled - share) for name, (share, sampled) in shares.items()}


def _sample(schedule: Schedule, renders: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Rows of the renders that samples of the generative process end at, (samples,)."""
    x_t = torch.randn(samples, renders.shape[1], generator=generator)
    for t, t_prev in schedule.pairs():
        weights = [_posterior(schedule.alpha_bar[t], batch, renders) for batch in x_t.split(BATCH)]
        if t_prev < 0:
            return torch.cat([each.argmax(1) for each in weights])
        x0_hat = torch.cat([each @ renders for each in weights])
        alpha_bar = schedule.alpha_bar[t]
        eps = (x_t - alpha_bar**0.5 * x0_hat) / (1 - alpha_bar) ** 0.5
        # The process is defined on images: every coordinate is a channel of one pixel.
        mean, sigma = schedule.posterior(x0_hat[..., None, None], eps[..., None, None], t, t_prev, eta=1.0)
        x_t = mean.flatten(1) + sigma * torch.randn(x_t.shape, generator=generator)
    raise AssertionError("a schedule ends at t_prev = -1")


def _posterior(alpha_bar: float, x_t: Tensor, renders: Tensor) -> Tensor:
    """Probability of each render given x_t, (samples, renders): Bayes' rule on eq. 1."""
    squares = alpha_bar**0.5 * (x_t @ renders.T) - alpha_bar / 2 * renders.square().sum(1)
    return (squares / (1 - alpha_bar)).softmax(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25, help="default: %(default)s")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of conf/train/ddpm.yaml")
    arguments = parser.parse_args(argv)
    cfg = training_configuration("ddpm", arguments.overrides)
    check_beta_schedule("sampled_with", cfg.sampled_with)
    schedule = Schedule.from_scheduler(scheduler_of(cfg.sampled_with, cfg), arguments.steps)
    rows = tuple((name, *shares) for name, shares in lost_shares(schedule, RENDERS, SAMPLES).items())
    caption = (
        f"{SAMPLES:,} samples at {arguments.steps} steps: what they are off by from the shares of {RENDERS:,} renders."
    )
    print(to_markdown(Table(("attribute", "renders", "off by"), rows, caption)))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
