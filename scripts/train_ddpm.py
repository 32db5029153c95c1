"""Trains the embedded portraits DDPM; resumable, on a CPU or a GPU with the same configuration.

    python scripts/train_ddpm.py [key=value ...]        # keys: conf/train/ddpm.yaml

Checkpoints are written atomically to `output`; the exponential moving average of the weights is exported beside them
as a diffusers pipeline (fp16 safetensors) that `DDPMPipeline.from_pretrained` and `model.path=` load.
"""

import logging
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from omegaconf import DictConfig, OmegaConf

from hspace.data.rendered import Rendered, rendered, step_generator

log = logging.getLogger("train_ddpm")


def learning_rate(step: int, total_steps: int, cfg: DictConfig) -> float:
    """Linear warm-up, constant, then linear decay to zero: the constant part does not depend on the length."""
    decay_steps = cfg.decay_share * total_steps
    return cfg.learning_rate * min(1.0, (step + 1) / cfg.warmup_steps, max(0.0, (total_steps - step) / decay_steps))


def loss_of_step(
    unet: UNet2DModel, scheduler: DDPMScheduler, data: Rendered, step: int, cfg: DictConfig
) -> torch.Tensor:
    """Mean squared error of the prediction for the batch of one step, which depends on (seed, step) alone.

    Model times are stratified over the batch, which lowers the variance of the gradient.
    """
    generator = step_generator(cfg.seed, step)
    index = torch.randint(len(data.images), (cfg.batch_size,), generator=generator)
    strata = (torch.arange(cfg.batch_size) + torch.rand(cfg.batch_size, generator=generator)) / cfg.batch_size
    x_0 = data.batch(index)
    noise = torch.randn(x_0.shape, generator=generator)
    x_0, noise, t = (a.to(unet.device) for a in (x_0, noise, (strata * scheduler.config.num_train_timesteps).long()))
    with torch.autocast(unet.device.type, torch.bfloat16, enabled=cfg.bf16):
        output = unet(scheduler.add_noise(x_0, noise, t), t).sample
    target = {"epsilon": noise, "sample": x_0}.get(scheduler.config.prediction_type)
    return F.mse_loss(output.float(), scheduler.get_velocity(x_0, noise, t) if target is None else target)


def save(path: Path, unet: UNet2DModel, ema: EMAModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes a checkpoint; a crash leaves the old one."""
    state = {"unet": unet.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def export(folder: Path, unet: UNet2DModel, ema: EMAModel, scheduler: DDPMScheduler) -> None:
    """Writes the averaged weights as a diffusers pipeline in half precision."""
    averaged = UNet2DModel(**unet.config)
    ema.copy_to(averaged.parameters())
    DDPMPipeline(unet=averaged.half(), scheduler=scheduler).save_pretrained(folder)


def main(arguments: list[str]) -> None:
    """Trains from the last checkpoint to `total_images`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    conf = Path(__file__).parents[1] / "conf" / "train" / "ddpm.yaml"
    cfg = OmegaConf.merge(OmegaConf.load(conf), OmegaConf.from_dotlist(arguments))
    device = (
        "cuda" if cfg.device == "auto" and torch.cuda.is_available() else "cpu" if cfg.device == "auto" else cfg.device
    )
    data = rendered(cfg.train_images, cfg.size, cfg.seed, Path(cfg.data))
    torch.manual_seed(cfg.seed)
    unet = UNet2DModel(sample_size=cfg.size, **OmegaConf.to_container(cfg.unet)).to(device)
    scheduler = DDPMScheduler(**cfg.scheduler)
    optimizer = torch.optim.AdamW(unet.parameters(), cfg.learning_rate, weight_decay=0.01)
    ema = EMAModel(unet.parameters(), decay=cfg.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    output, step = Path(cfg.output), 0
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        unet.load_state_dict(state["unet"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        log.info("resumed at step %d", step)
    ema.to(device)
    total_steps = cfg.total_images // cfg.batch_size
    losses, started, saved = [], time.perf_counter(), time.perf_counter()
    while step < total_steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps, cfg)
        loss = loss_of_step(unet, scheduler, data, step, cfg)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())
        step += 1
        losses.append(loss.item())
        if step % 100 == 0:
            speed = len(losses) * cfg.batch_size / (time.perf_counter() - started)
            log.info(
                "step %d images %d loss %.4f speed %.1f/s",
                step,
                step * cfg.batch_size,
                sum(losses) / len(losses),
                speed,
            )
            losses, started = [], time.perf_counter()
        if step == total_steps or time.perf_counter() - saved > 60 * cfg.checkpoint_minutes:
            save(checkpoint, unet, ema, optimizer, step)
            export(output / "pipeline", unet, ema, scheduler)
            saved = time.perf_counter()


if __name__ == "__main__":
    main(sys.argv[1:])
