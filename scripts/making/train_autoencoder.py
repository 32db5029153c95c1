"""Trains the autoencoder of the 128 x 128 portraits, whose latents a second U-Net learns; resumable.

    python scripts/making/train_autoencoder.py [key=value ...]      # keys: conf/train/autoencoder.yaml

The loss counts pixels, edges, and the downsampled image, on which colours depend: sharp edges come early, true colours
late where nothing asks for them. Latents are drawn, so that the decoder smooths over what the diffusion model errs by.
"""

import logging
import math
import sys
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from configuration import training_configuration
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from omegaconf import DictConfig, OmegaConf
from pace import Pace, choices, fastest
from torch import Tensor
from training import Training, learning_rate, run_spec

from hspace.runs.errors import guarded
from hspace.runs.tracking import Run, open_run
from hspace.types import Images
from hspace.worlds.rendered import Rendered, rendered, step_generator, step_noise
from hspace.worlds.world import WORLDS

log = logging.getLogger("train_autoencoder")

COARSER = 8


def reconstruction_loss(found: Images, true: Images, cfg: DictConfig) -> Tensor:
    """Absolute error, that of differences of neighbours, and squared error of the downsampled image.

    Args:
        found: (batch, 3, height, width), about [-1, 1].
        true: What it should be.
        cfg: Has the weights of the parts, edge_weight and coarse_weight.
    """
    edges = sum((found.diff(dim=side) - true.diff(dim=side)).abs().mean() for side in (2, 3))
    coarse = (F.avg_pool2d(found, COARSER) - F.avg_pool2d(true, COARSER)).square().mean()
    return (found - true).abs().mean() + cfg.edge_weight * edges + cfg.coarse_weight * coarse


def loss_of_step(network: Any, data: Rendered, step: int, cfg: DictConfig, pace: Pace) -> Tensor:
    """Loss of the batch of one step: seed and step choose its rows and, on one kind of device, its noise."""
    generator = step_generator(cfg.seed, step)
    index = torch.randint(len(data.images), (cfg.batch_size,), generator=generator)
    images = data.batch(index)
    with pace.autocast(network.device.type):
        posterior = network.encode(images).latent_dist
        noise = step_noise(posterior.mean.shape, cfg.seed, step, network.device)
        found = network.decode(posterior.mean + posterior.std * noise).sample
    return reconstruction_loss(found.float(), images, cfg) + cfg.kl_weight * posterior.kl().mean()


@torch.no_grad()
def figures(network: AutoencoderKL, images: Images) -> dict[str, float]:
    """PSNR of reconstructed images in dB, and the standard deviation of the latents.

    Args:
        network: In evaluation mode.
        images: (n, 3, height, width) in [-1, 1].
    """
    means = [cast(Any, network.encode(chunk)).latent_dist.mode() for chunk in images.split(32)]
    found = torch.cat([cast(Any, network.decode(mean)).sample for mean in means]).clamp(-1, 1)
    errors = (found - images).square().mean(dim=(1, 2, 3))
    return {"psnr": (10 * torch.log10(4 / errors)).mean().item(), "spread": torch.cat(means).std().item()}


def export(training: Training, held_out: Images, cfg: DictConfig, run: Run) -> None:
    """Writes the averaged weights in half precision, with the factor that gives their latents unit variance."""
    averaged = training.averaged()
    measured = figures(averaged, held_out)
    averaged.register_to_config(scaling_factor=1 / measured["spread"])
    averaged.half().save_pretrained(Path(cfg.output) / "vqvae")
    log.info("held-out renders: PSNR %.2f dB, spread of latents %.3f", measured["psnr"], measured["spread"])
    run.log_metrics(measured, step=training.step)


def new_network(cfg: DictConfig) -> AutoencoderKL:
    """Random weights, which depend on seed and sizes."""
    torch.manual_seed(cfg.seed)
    return AutoencoderKL(sample_size=cfg.size, **cast(dict[str, Any], OmegaConf.to_container(cfg.autoencoder)))


def train(training: Training, data: Rendered, held_out: Images, cfg: DictConfig, run: Run) -> None:
    """Trains until the planned number of images has been drawn."""
    stop = math.ceil(cfg.images / cfg.batch_size)

    def timed(pace: Pace) -> None:
        loss_of_step(training.network, data, 0, cfg, pace).backward()
        training.optimizer.zero_grad()

    pace = fastest(timed, choices(cfg.precision, cfg.threads))

    def step(number: int) -> tuple[Tensor, float]:
        loss = loss_of_step(training.network, data, number, cfg, pace)
        return loss, learning_rate(cfg.learning_rate, number, stop, cfg)

    training.run(stop, step, lambda _: export(training, held_out, cfg, run), cfg, run)


def main(arguments: list[str]) -> int:
    """Trains from the last checkpoint to the end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cfg = training_configuration("autoencoder", arguments)
    choices(cfg.precision, cfg.threads)
    training = Training.start(new_network(cfg), cfg)
    training.resume(Path(cfg.output) / "checkpoint.pt")
    Path(cfg.output).mkdir(parents=True, exist_ok=True)
    world = WORLDS.get(cfg.world)
    data = rendered(world, cfg.train_images, cfg.size, cfg.seed, Path(cfg.data))
    held_out = rendered(world, cfg.held_out.images, cfg.size, cfg.held_out.seed, Path(cfg.data))
    data = data.to(training.network.device)
    with open_run(run_spec("autoencoder", cfg)) as run:
        train(training, data, held_out.batch(torch.arange(cfg.held_out.images)), cfg, run)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:]), __doc__))
