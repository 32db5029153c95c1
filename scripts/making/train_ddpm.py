"""Trains a DDPM of a drawn world; resumable, on a CPU or a GPU with the same configuration.

    python scripts/making/train_ddpm.py [key=value ...]        # keys: conf/train/ddpm.yaml

Checkpoints are written atomically to `output`; the exponential moving average of the weights is exported beside them
as a diffusers pipeline (fp16 safetensors) that `DDPMPipeline.from_pretrained` and `model.path=` load. Loss, speed and
learning rate go to Weights & Biases, offline unless `tracking=online`.
"""

import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from configuration import training_configuration
from diffusers import LDMPipeline  # pyright: ignore[reportPrivateImportUsage]
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from dit import check_cycles, condition, is_transformer, new_transformer, save_pipeline
from encoded import Encoded, encoded, load_autoencoder, reduction
from omegaconf import DictConfig, OmegaConf
from pace import Pace, choices, fastest
from retiming import cosine, retime
from skips import changed_skips, targets
from training import Training, learning_rate, run_spec

from hspace.runs.errors import guarded
from hspace.runs.tracking import Run, open_run
from hspace.system.registry import unknown
from hspace.types import InputError
from hspace.worlds.rendered import Rendered, rendered, step_generator, step_noise
from hspace.worlds.world import WORLDS

log = logging.getLogger("train_ddpm")

Pair = tuple[Rendered | Encoded, Rendered | Encoded]

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
CYCLE_RANGES = {
    "images": (1, math.inf),
    "learning_rate": (0, math.inf),
    "skip_dropout": (0, 1),
    "skip_exchange": (0, 1),
}
CYCLE_KEYS = {*CYCLE_RANGES, "beta_schedule"}
EXCHANGED_BELOW = 0.95
"""alpha_bar: where there is less noise, the loss counts an error of the clean image more than twenty times over."""


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of the learning rate.

    Attributes:
        first: Its first step.
        stop: The step after its last.
        learning_rate: The highest.
        skip_dropout: How often an image loses its skip connections, see `loss_of_step`; in [0, 1].
        skip_exchange: How often it has those of another view of the same picture, see `World.vary`; in [0, 1].
        beta_schedule: How noise grows with t: a name of diffusers, or [width, shift, slope] of `cosine`. Where it
            changes, the network is retimed, see `retime`.
    """

    first: int
    stop: int
    learning_rate: float
    skip_dropout: float
    skip_exchange: float
    beta_schedule: Any

    def rate(self, step: int, cfg: DictConfig) -> float:
        """Of a step of the cycle; see `learning_rate`."""
        return learning_rate(self.learning_rate, step - self.first, self.stop - self.first, cfg)


def cycles(cfg: DictConfig) -> list[Cycle]:
    """The cycles of a configuration, one after the other.

    Raises:
        InputError: If a setting of theirs, the batch size, or the schedule that is sampled with is wrong.
    """
    if not isinstance(cfg.batch_size, int) or cfg.batch_size < 2 or cfg.batch_size % 2:
        raise InputError(f"batch_size must be even, its halves exchange skip connections; got {cfg.batch_size}")
    check_beta_schedule("sampled_with", cfg.sampled_with)
    choices(cfg.precision, cfg.threads)
    found, first = [], 0
    for each in cfg.cycles:
        if set(each) != CYCLE_KEYS:
            raise InputError(f"cycles: each has {', '.join(sorted(CYCLE_KEYS))}, got {each}")
        for name, (low, high) in CYCLE_RANGES.items():
            if not _is_number(each[name]) or not low <= each[name] <= high:
                raise InputError(f"cycles: {name} must be a number in [{low}, {high}], got {each[name]}")
        check_beta_schedule("beta_schedule", each.beta_schedule)
        stop = first + each.images // cfg.batch_size
        settings = {name: each[name] for name in CYCLE_KEYS - {"images"}}
        found.append(Cycle(first, stop, **settings))
        first = stop
    if is_transformer(cfg):
        check_cycles(found, cfg.sampled_with)
    return found


def scheduler_of(beta_schedule: Any, cfg: DictConfig) -> DDPMScheduler:
    """The scheduler of a cycle, or of the exported pipeline.

    Args:
        beta_schedule: A name of diffusers, or [width, shift, slope] of `cosine`.
        cfg: The configuration.
    """
    if isinstance(beta_schedule, str):
        return DDPMScheduler(beta_schedule=cast(Any, beta_schedule), **cfg.scheduler)
    betas = cosine(cfg.scheduler.num_train_timesteps, *beta_schedule)
    return DDPMScheduler(trained_betas=betas, **cfg.scheduler)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_beta_schedule(key: str, schedule: Any) -> None:
    """Raises InputError if the value of a key is no noise schedule."""
    if isinstance(schedule, str):
        if schedule not in BETA_SCHEDULES:
            raise InputError(unknown(key, schedule, BETA_SCHEDULES))
        return
    numbers = OmegaConf.is_list(schedule) and len(schedule) == 3 and all(map(_is_number, schedule))
    if not numbers or not schedule[0] > 0 or schedule[2] < 0:
        raise InputError(
            f"{key} is a name, or [width, shift, slope] with a width above 0 and a slope of 0 or more, got {schedule}"
        )


def loss_of_step(
    unet: Any, scheduler: Any, data: Pair, step: int, cycle: Cycle, cfg: DictConfig, pace: Pace
) -> torch.Tensor:
    """Mean squared error of the prediction for the batch of one step, whose rows and times depend on seed and step.

    The noise depends on the kind of device too, see `step_noise`.

    Model times are stratified over the batch, which lowers the variance of the gradient. An image loses
    its skips with probability skip_dropout · (1 - alpha_bar_t): hardly ever where the prediction is mostly the noise in
    x_t. In a cycle that exchanges skips the halves show two views of the same pictures, and share their model times.

    Args:
        unet: The network.
        scheduler: Has the noise levels and the prediction type.
        data: Pictures, and other views of the same ones, which only cycles that exchange skips read; on the network's
            device.
        step: Of the training.
        cycle: That it belongs to.
        cfg: The configuration.
        pace: Precision.
    """
    generator, half = step_generator(cfg.seed, step), cfg.batch_size // 2
    pictures, others = data
    index = torch.randint(len(pictures.images), (cfg.batch_size,), generator=generator)
    different = half if cycle.skip_exchange else cfg.batch_size
    u = (torch.arange(different) + torch.rand(different, generator=generator)) / different
    t = (u * scheduler.config.num_train_timesteps).long().repeat(cfg.batch_size // different)
    x_0 = pictures.batch(index)
    if cycle.skip_exchange:
        x_0[half:] = others.batch(index[:half])
    noise = step_noise(x_0.shape, cfg.seed, step, x_0.device)
    u_kept, u_exchanged = (torch.rand(n, generator=generator).to(x_0.device) for n in (cfg.batch_size, half))
    t = t.to(x_0.device)
    # The scheduler keeps its noise levels where it has added noise before.
    alpha_bar = scheduler.alphas_cumprod.to(t.device)[t]
    kept = u_kept >= cycle.skip_dropout * (1 - alpha_bar)
    exchanged = (u_exchanged < cycle.skip_exchange).repeat(2) & kept & (alpha_bar < EXCHANGED_BELOW)
    x_t = scheduler.add_noise(x_0, noise, t)
    with pace.autocast(unet.device.type), changed_skips(unet, kept, exchanged):
        output = unet(x_t, t, **condition(unet, t)).sample
    return F.mse_loss(output.float(), targets(scheduler, x_0, x_t, t, exchanged))


def training_set(cfg: DictConfig, device: torch.device, *, varied: bool = False) -> Rendered | Encoded:
    """What the network learns, on a device: pictures, or latents where the configuration names an autoencoder."""
    factor = 1 if cfg.autoencoder is None else reduction(cfg.autoencoder)
    world, folder = WORLDS.get(cfg.world), Path(cfg.data)
    pictures = rendered(world, cfg.train_images, factor * cfg.size, cfg.seed, folder, varied=varied).to(device)
    return pictures if cfg.autoencoder is None else encoded(pictures, cfg.autoencoder)


def new_network(cfg: DictConfig) -> Any:
    """A U-Net, or a transformer where the configuration has one, whose random weights depend on seed and sizes."""
    torch.manual_seed(cfg.seed)
    if is_transformer(cfg):
        return new_transformer(cfg)
    return UNet2DModel(sample_size=cfg.size, **cast(dict[str, Any], OmegaConf.to_container(cfg.unet)))


def begin_cycle(training: Training, before: Cycle, cycle: Cycle, cfg: DictConfig) -> None:
    """Goes on from the averaged weights, in the schedule of the next cycle."""
    training.ema.copy_to(training.network.parameters())
    if cycle.beta_schedule != before.beta_schedule:
        _retime(training.network, before.beta_schedule, cycle.beta_schedule, cfg)
    training.renew(cfg)


def export(training: Training, folder: Path, cycle: Cycle, cfg: DictConfig) -> None:
    """Writes the averaged weights as a diffusers pipeline in half precision, retimed to `sampled_with`."""
    averaged = training.averaged()
    if cycle.beta_schedule != cfg.sampled_with:
        _retime(averaged, cycle.beta_schedule, cfg.sampled_with, cfg)
    unet, scheduler = averaged.half(), scheduler_of(cfg.sampled_with, cfg)
    if cfg.autoencoder is None:
        DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(folder)
    else:
        vqvae = cast(Any, load_autoencoder(cfg.autoencoder)).half()
        if is_transformer(cfg):
            return save_pipeline(unet, vqvae, scheduler, folder)
        LDMPipeline(vqvae=vqvae, unet=unet, scheduler=cast(Any, scheduler)).save_pretrained(folder)


def _retime(unet: UNet2DModel, before: Any, after: Any, cfg: DictConfig) -> None:
    left = retime(unet, *(scheduler_of(each, cfg).alphas_cumprod for each in (before, after)))
    log.info("retimed from %s to %s: %.3f left", before, after, left)


def train(training: Training, data: Pair, cfg: DictConfig, run: Run) -> None:
    """Trains through all cycles."""
    planned = cycles(cfg)
    schedulers = [scheduler_of(cycle.beta_schedule, cfg) for cycle in planned]
    pace = _pace(training, schedulers[0], data, cfg)

    def cycle_of(step: int) -> int:
        return next(i for i, cycle in enumerate(planned) if step < cycle.stop)

    def step(number: int) -> tuple[torch.Tensor, float]:
        index = cycle_of(number)
        if number == planned[index].first > 0:
            begin_cycle(training, planned[index - 1], planned[index], cfg)
        loss = loss_of_step(training.network, schedulers[index], data, number, planned[index], cfg, pace)
        return loss, planned[index].rate(number, cfg)

    def write(done: int) -> None:
        export(training, Path(cfg.output) / "pipeline", planned[cycle_of(done - 1)], cfg)

    training.run(planned[-1].stop, step, write, cfg, run)


def _pace(training: Training, scheduler: DDPMScheduler, data: Pair, cfg: DictConfig) -> Pace:
    """The fastest precision and number of threads that the configuration leaves open."""

    def step(pace: Pace) -> None:
        loss_of_step(training.network, scheduler, data, 0, cycles(cfg)[0], cfg, pace).backward()
        training.optimizer.zero_grad()

    return fastest(step, choices(cfg.precision, cfg.threads))


def main(arguments: list[str], name: str = "ddpm") -> int:
    """Trains from the last checkpoint to the end of the last cycle.

    Args:
        arguments: Of the command line.
        name: Of the configuration.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cfg = training_configuration(name, arguments)
    with_pairs = any(cycle.skip_exchange for cycle in cycles(cfg))
    training = Training.start(new_network(cfg), cfg)
    training.resume(Path(cfg.output) / "checkpoint.pt")
    device = training.network.device
    pictures = others = training_set(cfg, device)
    if with_pairs:
        others = training_set(cfg, device, varied=True)
    Path(cfg.output).mkdir(parents=True, exist_ok=True)
    with open_run(run_spec(name, cfg)) as run:
        train(training, (pictures, others), cfg, run)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:]), __doc__))
