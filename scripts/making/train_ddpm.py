"""Trains the embedded portraits DDPM; resumable, on a CPU or a GPU with the same configuration.

    python scripts/making/train_ddpm.py [key=value ...]        # keys: conf/train/ddpm.yaml

Checkpoints are written atomically to `output`; the exponential moving average of the weights is exported beside them
as a diffusers pipeline (fp16 safetensors) that `DDPMPipeline.from_pretrained` and `model.path=` load. Loss, speed and
learning rate go to Weights & Biases, offline unless `tracking=online`.
"""

import logging
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from configuration import training_configuration
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from omegaconf import DictConfig, OmegaConf
from pace import Pace, choices, fastest
from retiming import cosine, retime
from skips import changed_skips, targets

from hspace.portraits.rendered import Rendered, rendered, step_generator
from hspace.runs.errors import guarded
from hspace.runs.tracking import Run, RunSpec, open_run
from hspace.system.cache import key_sha256
from hspace.system.registry import unknown
from hspace.types import InputError

log = logging.getLogger("train_ddpm")

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
        skip_exchange: How often it has those of the same portrait with another expression; in [0, 1].
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
        """Linear warm-up, constant, then linear decay to zero: the constant part does not depend on the length."""
        decay = (self.stop - step) / (cfg.decay_share * (self.stop - self.first))
        return self.learning_rate * min(1.0, (step - self.first + 1) / cfg.warmup_steps, max(0.0, decay))


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
    unet: Any, scheduler: Any, data: tuple[Rendered, Rendered], step: int, cycle: Cycle, cfg: DictConfig, pace: Pace
) -> torch.Tensor:
    """Mean squared error of the prediction for the batch of one step, which depends on (seed, step) alone.

    Model times are stratified over the batch, which lowers the variance of the gradient. An image loses
    its skips with probability skip_dropout · (1 - alpha_bar_t): hardly ever where the prediction is mostly the noise in
    x_t. In a cycle that exchanges skips the halves show the same portraits with different expressions, and share their
    model times.

    Args:
        unet: The network.
        scheduler: Has the noise levels and the prediction type.
        data: Portraits, and the same ones with other expressions, which only cycles that exchange skips read.
        step: Of the training.
        cycle: That it belongs to.
        cfg: The configuration.
        pace: Precision.
    """
    generator, half = step_generator(cfg.seed, step), cfg.batch_size // 2
    portraits, others = data
    index = torch.randint(len(portraits.images), (cfg.batch_size,), generator=generator)
    different = half if cycle.skip_exchange else cfg.batch_size
    u = (torch.arange(different) + torch.rand(different, generator=generator)) / different
    t = (u * scheduler.config.num_train_timesteps).long().repeat(cfg.batch_size // different)
    x_0 = portraits.batch(index)
    if cycle.skip_exchange:
        x_0[half:] = others.batch(index[:half])
    noise = torch.randn(x_0.shape, generator=generator)
    alpha_bar = scheduler.alphas_cumprod[t]
    kept = torch.rand(cfg.batch_size, generator=generator) >= cycle.skip_dropout * (1 - alpha_bar)
    exchanged = (torch.rand(half, generator=generator) < cycle.skip_exchange).repeat(2)
    exchanged &= kept & (alpha_bar < EXCHANGED_BELOW)
    x_0, noise, t = (a.to(unet.device) for a in (x_0, noise, t))
    x_t = scheduler.add_noise(x_0, noise, t)
    with pace.autocast(unet.device.type), changed_skips(unet, kept, exchanged):
        output = unet(x_t, t).sample
    return F.mse_loss(output.float(), targets(scheduler, x_0, x_t, t, exchanged))


@dataclass
class Training:
    """The state of a training, all of which a checkpoint keeps."""

    unet: UNet2DModel
    ema: EMAModel
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, cfg: DictConfig, device: str) -> "Training":
        """Random weights, which depend on the seed alone."""
        torch.manual_seed(cfg.seed)
        architecture = cast(dict[str, Any], OmegaConf.to_container(cfg.unet))
        unet: Any = UNet2DModel(sample_size=cfg.size, **architecture)
        unet.to(device)
        return cls(unet, *_optimizer_and_average(unet, cfg))

    def begin_cycle(self, before: Cycle, cycle: Cycle, cfg: DictConfig) -> None:
        """Goes on from the averaged weights, with a new optimizer and average."""
        self.ema.copy_to(self.unet.parameters())
        if cycle.beta_schedule != before.beta_schedule:
            _retime(self.unet, before.beta_schedule, cycle.beta_schedule, cfg)
        self.ema, self.optimizer = _optimizer_and_average(self.unet, cfg)

    def save(self, path: Path) -> None:
        """Writes a checkpoint; a crash leaves the old one."""
        parts = {name: getattr(self, name).state_dict() for name in ("unet", "ema", "optimizer")}
        torch.save({**parts, "step": self.step}, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint."""
        state = torch.load(path, map_location=self.unet.device, weights_only=True)
        for name in ("unet", "ema", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.ema.to(self.unet.device)
        self.step = state["step"]
        log.info("resumed at step %d", self.step)

    def update(self, loss: torch.Tensor, rate: float) -> None:
        """One step of the optimizer at a learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())
        self.step += 1

    def export(self, folder: Path, cycle: Cycle, cfg: DictConfig) -> None:
        """Writes the averaged weights as a diffusers pipeline in half precision, retimed to `sampled_with`."""
        averaged = UNet2DModel(**cast(dict[str, Any], self.unet.config))
        self.ema.copy_to(averaged.parameters())
        if cycle.beta_schedule != cfg.sampled_with:
            _retime(averaged, cycle.beta_schedule, cfg.sampled_with, cfg)
        DDPMPipeline(unet=averaged.half(), scheduler=scheduler_of(cfg.sampled_with, cfg)).save_pretrained(folder)


def _retime(unet: UNet2DModel, before: Any, after: Any, cfg: DictConfig) -> None:
    left = retime(unet, *(scheduler_of(each, cfg).alphas_cumprod for each in (before, after)))
    log.info("retimed from %s to %s: %.3f left", before, after, left)


def _optimizer_and_average(unet: UNet2DModel, cfg: DictConfig) -> tuple[EMAModel, torch.optim.Optimizer]:
    average = EMAModel(unet.parameters(), decay=cfg.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    average.to(unet.device)
    return average, torch.optim.AdamW(unet.parameters(), weight_decay=0.01)


def train(training: Training, data: tuple[Rendered, Rendered], cfg: DictConfig, run: Run) -> None:
    """Trains through all cycles, with a checkpoint every few minutes and a point of every curve each 100 steps."""
    output, planned = Path(cfg.output), cycles(cfg)
    schedulers = [scheduler_of(cycle.beta_schedule, cfg) for cycle in planned]
    pace = _pace(training, schedulers[0], data, cfg)
    losses, started, saved = [], time.perf_counter(), time.perf_counter()
    while training.step < planned[-1].stop:
        index = next(i for i, cycle in enumerate(planned) if training.step < cycle.stop)
        cycle, scheduler = planned[index], schedulers[index]
        if training.step == cycle.first > 0:
            training.begin_cycle(planned[index - 1], cycle, cfg)
        rate = cycle.rate(training.step, cfg)
        loss = loss_of_step(training.unet, scheduler, data, training.step, cycle, cfg, pace)
        training.update(loss, rate)
        losses.append(loss.item())
        step, finished = training.step, training.step == planned[-1].stop
        if step % 100 == 0 or finished:
            speed = len(losses) * cfg.batch_size / (time.perf_counter() - started)
            curves = {"images": step * cfg.batch_size, "loss": sum(losses) / len(losses), "images_per_second": speed}
            log.info("step %d %s", step, " ".join(f"{name} {value:.4g}" for name, value in curves.items()))
            run.log_metrics({**curves, "learning_rate": rate}, step=step)
            losses, started = [], time.perf_counter()
        if finished or time.perf_counter() - saved > 60 * cfg.checkpoint_minutes:
            training.save(output / "checkpoint.pt")
            training.export(output / "pipeline", cycle, cfg)
            saved = time.perf_counter()


def _pace(training: Training, scheduler: DDPMScheduler, data: tuple[Rendered, Rendered], cfg: DictConfig) -> Pace:
    """The fastest precision and number of threads that the configuration leaves open."""

    def step(pace: Pace) -> None:
        loss_of_step(training.unet, scheduler, data, 0, cycles(cfg)[0], cfg, pace).backward()
        training.optimizer.zero_grad()

    return fastest(step, choices(cfg.precision, cfg.threads))


def run_spec(cfg: DictConfig) -> RunSpec:
    """The W&B run of a configuration in an output folder: a resumed training continues it."""
    output, settings = Path(cfg.output), cast(dict[str, Any], OmegaConf.to_container(cfg))
    identity = key_sha256({"config": settings, "output": str(output.resolve())})[:16]
    return RunSpec(identity, "train-ddpm", "train", settings, output, cfg.tracking)


def main(arguments: list[str]) -> int:
    """Trains from the last checkpoint to the end of the last cycle."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cfg = training_configuration("ddpm", arguments)
    planned = cycles(cfg)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = Path(cfg.output) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    portraits = others = rendered(cfg.train_images, cfg.size, cfg.seed, Path(cfg.data))
    if any(cycle.skip_exchange for cycle in planned):
        others = rendered(cfg.train_images, cfg.size, cfg.seed, Path(cfg.data), other_expression=True)
    training = Training.start(cfg, automatic if cfg.device == "auto" else cfg.device)
    if checkpoint.exists():
        training.resume(checkpoint)
    with open_run(run_spec(cfg)) as run:
        train(training, (portraits, others), cfg, run)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
