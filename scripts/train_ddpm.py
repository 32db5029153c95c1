"""Trains the embedded portraits DDPM; resumable, on a CPU or a GPU with the same configuration.

    python scripts/train_ddpm.py [key=value ...]        # keys: conf/train/ddpm.yaml

Checkpoints are written atomically to `output`; the exponential moving average of the weights is exported beside them
as a diffusers pipeline (fp16 safetensors) that `DDPMPipeline.from_pretrained` and `model.path=` load. Loss, speed and
learning rate go to Weights & Biases, offline unless `tracking=online`.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from omegaconf import DictConfig, OmegaConf

from hspace.cache import key_sha256
from hspace.data.rendered import Rendered, rendered, step_generator
from hspace.mistakes import guarded
from hspace.retiming import narrow_cosine, retime
from hspace.rules import unknown
from hspace.tracking import Run, RunSpec, open_run
from hspace.training import training_configuration
from hspace.types import InputError

log = logging.getLogger("train_ddpm")

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "narrow_cosine")
CYCLE_KEYS = {"images", "learning_rate", "skip_dropout", "beta_schedule"}


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of the learning rate.

    Attributes:
        first: Its first step.
        stop: The step after its last.
        learning_rate: The highest.
        skip_dropout: How often skip connections are dropped, see `dropped_skips`; in [0, 1].
        beta_schedule: How noise grows with t; where it changes, the network is retimed, see `retime`.
    """

    first: int
    stop: int
    learning_rate: float
    skip_dropout: float
    beta_schedule: str

    def scheduler(self, cfg: DictConfig) -> DDPMScheduler:
        """The noise schedule of this cycle."""
        if self.beta_schedule == "narrow_cosine":
            return DDPMScheduler(trained_betas=narrow_cosine(cfg.scheduler.num_train_timesteps), **cfg.scheduler)
        return DDPMScheduler(beta_schedule=cast(Any, self.beta_schedule), **cfg.scheduler)

    def rate(self, step: int, cfg: DictConfig) -> float:
        """Linear warm-up, constant, then linear decay to zero: the constant part does not depend on the length."""
        decay = (self.stop - step) / (cfg.decay_share * (self.stop - self.first))
        return self.learning_rate * min(1.0, (step - self.first + 1) / cfg.warmup_steps, max(0.0, decay))


def cycles(cfg: DictConfig) -> list[Cycle]:
    """The cycles of a configuration, one after the other."""
    found, first = [], 0
    for each in cfg.cycles:
        if set(each) != CYCLE_KEYS:
            raise InputError(f"cycles: each has {', '.join(sorted(CYCLE_KEYS))}, got {each}")
        if each.beta_schedule not in BETA_SCHEDULES:
            raise InputError(unknown("beta_schedule", each.beta_schedule, BETA_SCHEDULES))
        stop = first + each.images // cfg.batch_size
        found.append(Cycle(first, stop, each.learning_rate, each.skip_dropout, each.beta_schedule))
        first = stop
    return found


@contextmanager
def dropped_skips(unet: Any, kept: torch.Tensor) -> Iterator[None]:
    """Has the decoder of a `UNet2DModel` do without skip connections for some samples of a batch.

    What the skips carry past the bottleneck no edit of h can change. A decoder that has to draw some images from h
    alone leaves more to h also where it has the skips.

    Args:
        unet: The network.
        kept: (batch,), 1 where a sample keeps its skips and 0 where it has none.
    """
    kept = kept.to(unet.device)[:, None, None, None]

    def drop(block: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, skips, *rest = arguments
        return hidden, tuple(skip * kept.to(skip.dtype) for skip in skips), *rest

    hooks = [block.register_forward_pre_hook(drop) for block in unet.up_blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def loss_of_step(
    unet: Any, scheduler: Any, data: Rendered, step: int, skip_dropout: float, cfg: DictConfig
) -> torch.Tensor:
    """Mean squared error of the prediction for the batch of one step, which depends on (seed, step) alone.

    Model times are stratified over the batch, which lowers the variance of the gradient. A sample loses its skips with
    probability skip_dropout · (1 - alpha_bar_t): hardly ever where the prediction is mostly the noise in x_t.
    """
    generator = step_generator(cfg.seed, step)
    index = torch.randint(len(data.images), (cfg.batch_size,), generator=generator)
    strata = (torch.arange(cfg.batch_size) + torch.rand(cfg.batch_size, generator=generator)) / cfg.batch_size
    x_0 = data.batch(index)
    noise = torch.randn(x_0.shape, generator=generator)
    t = (strata * scheduler.config.num_train_timesteps).long()
    kept = torch.rand(cfg.batch_size, generator=generator) >= skip_dropout * (1 - scheduler.alphas_cumprod[t])
    x_0, noise, t = (a.to(unet.device) for a in (x_0, noise, t))
    with torch.autocast(unet.device.type, torch.bfloat16, enabled=cfg.bf16), dropped_skips(unet, kept):
        output = unet(scheduler.add_noise(x_0, noise, t), t).sample
    target = {"epsilon": noise, "sample": x_0}.get(scheduler.config.prediction_type)
    return F.mse_loss(output.float(), scheduler.get_velocity(x_0, noise, t) if target is None else target)


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
            left = retime(self.unet, *(each.scheduler(cfg).alphas_cumprod for each in (before, cycle)))
            log.info("retimed from %s to %s: %.3f left", before.beta_schedule, cycle.beta_schedule, left)
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

    def export(self, folder: Path, scheduler: DDPMScheduler) -> None:
        """Writes the averaged weights as a diffusers pipeline in half precision."""
        averaged = UNet2DModel(**cast(dict[str, Any], self.unet.config))
        self.ema.copy_to(averaged.parameters())
        DDPMPipeline(unet=averaged.half(), scheduler=scheduler).save_pretrained(folder)


def _optimizer_and_average(unet: UNet2DModel, cfg: DictConfig) -> tuple[EMAModel, torch.optim.Optimizer]:
    average = EMAModel(unet.parameters(), decay=cfg.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    average.to(unet.device)
    return average, torch.optim.AdamW(unet.parameters(), weight_decay=0.01)


def train(training: Training, data: Rendered, cfg: DictConfig, run: Run) -> None:
    """Trains through all cycles, with a checkpoint every few minutes and a point of every curve each 100 steps."""
    output, planned = Path(cfg.output), cycles(cfg)
    schedulers = [cycle.scheduler(cfg) for cycle in planned]
    losses, started, saved = [], time.perf_counter(), time.perf_counter()
    while training.step < planned[-1].stop:
        index = next(i for i, cycle in enumerate(planned) if training.step < cycle.stop)
        cycle, scheduler = planned[index], schedulers[index]
        if training.step == cycle.first > 0:
            training.begin_cycle(planned[index - 1], cycle, cfg)
        rate = cycle.rate(training.step, cfg)
        loss = loss_of_step(training.unet, scheduler, data, training.step, cycle.skip_dropout, cfg)
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
            training.export(output / "pipeline", scheduler)
            saved = time.perf_counter()


def run_spec(cfg: DictConfig) -> RunSpec:
    """The W&B run of a configuration in an output folder: a resumed training continues it."""
    output, settings = Path(cfg.output), cast(dict[str, Any], OmegaConf.to_container(cfg))
    identity = key_sha256({"config": settings, "output": str(output.resolve())})[:16]
    return RunSpec(identity, "train-ddpm", "train", settings, output, cfg.tracking)


def main(arguments: list[str]) -> int:
    """Trains from the last checkpoint to the end of the last cycle."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cfg = training_configuration("ddpm", arguments)
    cycles(cfg)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = Path(cfg.output) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    data = rendered(cfg.train_images, cfg.size, cfg.seed, Path(cfg.data))
    training = Training.start(cfg, automatic if cfg.device == "auto" else cfg.device)
    if checkpoint.exists():
        training.resume(checkpoint)
    with open_run(run_spec(cfg)) as run:
        train(training, data, cfg, run)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
