"""What all trainings share: weights with their average and optimizer, checkpoints, and the loop around the steps."""

import logging
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.training_utils import EMAModel
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from hspace.runs.tracking import Run, RunSpec
from hspace.system.cache import key_sha256
from hspace.system.hashes import path_sha256
from hspace.types import InputError

log = logging.getLogger("training")

WEIGHT_DECAY = 0.01
WITHOUT_WEIGHTS = (
    "output", "data", "device", "precision", "threads", "checkpoint_minutes", "tracking", "sampled_with", "held_out",
)  # fmt: skip
"""Keys of a configuration that say where and how a training computes, and what is made of its weights afterwards."""


@dataclass
class Training:
    """The state of a training, all of which a checkpoint keeps.

    Attributes:
        network: What is trained.
        ema: Average of its weights.
        optimizer: With its own state.
        settings: Values that the weights depend on, by their keys in the configuration.
        step: How many steps are done.
    """

    network: Any
    ema: EMAModel
    optimizer: torch.optim.Optimizer
    settings: dict[str, Any]
    step: int = 0

    @classmethod
    def start(cls, network: nn.Module, cfg: DictConfig) -> "Training":
        """A network with a new optimizer and average, on the device of the configuration."""
        network.to(training_device(cfg))
        return cls(network, *_average_and_optimizer(network, cfg), settings_of_weights(cfg))

    def renew(self, cfg: DictConfig) -> None:
        """Goes on with a new optimizer and average."""
        self.ema, self.optimizer = _average_and_optimizer(self.network, cfg)

    def save(self, path: Path) -> None:
        """Writes a checkpoint; a crash leaves the old one."""
        parts = {name: getattr(self, name).state_dict() for name in ("network", "ema", "optimizer")}
        torch.save({**parts, "step": self.step, "settings": self.settings}, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint, if there is one.

        Raises:
            InputError: If the file is not a checkpoint, or one of another configuration.
        """
        if not path.exists():
            return
        state = _read(path)
        self._check(state["settings"], path)
        for name in ("network", "ema", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.ema.to(next(self.network.parameters()).device)
        self.step = state["step"]
        log.info("resumed at step %d", self.step)

    def _check(self, trained: dict[str, Any], path: Path) -> None:
        others = [key for key in {**trained, **self.settings} if trained.get(key) != self.settings.get(key)]
        if others:
            ours, theirs = (", ".join(f"{key}={each.get(key)}" for key in others) for each in (self.settings, trained))
            raise InputError(f"{path} was trained with {theirs}, and not with {ours}: set another output, or remove it")

    def update(self, loss: Tensor, rate: float) -> None:
        """One step of the optimizer at a learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        self.step += 1

    def averaged(self) -> Any:
        """A network of the same kind with the averaged weights."""
        copy = type(self.network).from_config(self.network.config)
        self.ema.copy_to(copy.parameters())
        return copy.eval()

    def run(
        self,
        stop: int,
        step: Callable[[int], tuple[Tensor, float]],
        export: Callable[[int], None],
        cfg: DictConfig,
        run: Run,
    ) -> None:
        """Trains to a step, with a checkpoint every few minutes and a point of every curve each 100 steps.

        Args:
            stop: The step after the last.
            step: Loss and learning rate of a step.
            export: Writes what comes of the training so far.
            cfg: Has batch_size, output and checkpoint_minutes.
            run: Where the curves go.
        """
        losses, started, saved = [], time.perf_counter(), time.perf_counter()
        while self.step < stop:
            loss, rate = step(self.step)
            self.update(loss, rate)
            losses.append(loss.detach())  # not yet a number: that would wait for the GPU in each step
            if self.step % 100 == 0 or self.step == stop:
                speed = len(losses) * cfg.batch_size / (time.perf_counter() - started)
                curves = {"images": self.step * cfg.batch_size, "loss": torch.stack(losses).mean().item()}
                curves |= {"images_per_second": speed, "learning_rate": rate}
                log.info("step %d %s", self.step, " ".join(f"{name} {value:.4g}" for name, value in curves.items()))
                run.log_metrics(curves, step=self.step)
                losses, started = [], time.perf_counter()
            if self.step == stop or time.perf_counter() - saved > 60 * cfg.checkpoint_minutes:
                self.save(Path(cfg.output) / "checkpoint.pt")
                if self.step < stop:
                    export(self.step)
                saved = time.perf_counter()
        # Also where nothing was left to train: the last export may have been stopped, or be of other settings.
        export(self.step)


def _read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds."""
    try:
        # By way of the CPU, where the optimizer counts its steps: on a GPU it would wait for each count.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        state = None
    if not isinstance(state, dict) or "settings" not in state:
        raise InputError(f"{path} is not a checkpoint that says how it was trained: set another output, or remove it")
    return state


def settings_of_weights(cfg: DictConfig) -> dict[str, Any]:
    """The values of a configuration that the weights depend on, by key; that of a key in another as `unet.channels`.

    An autoencoder counts by content, since it may be trained anew in its place.
    """
    values = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    if isinstance(values.get("autoencoder"), str):
        values["autoencoder"] = path_sha256(Path(values["autoencoder"]))
    return _flat({key: value for key, value in values.items() if key not in WITHOUT_WEIGHTS})


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def run_spec(name: str, cfg: DictConfig) -> RunSpec:
    """The W&B run of a training in an output folder: a resumed training continues it.

    Args:
        name: Of the training, such as latent.
        cfg: Its configuration.
    """
    output, settings = Path(cfg.output), cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    identity = key_sha256({"config": settings_of_weights(cfg), "output": str(output.resolve())})[:16]
    return RunSpec(identity, f"train-{name}", "train", settings, output, cfg.tracking, tags=(cfg.world,))


def training_device(cfg: DictConfig) -> torch.device:
    """That of the configuration; `auto` is a GPU if there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if cfg.device == "auto" else cfg.device)


def _average_and_optimizer(network: nn.Module, cfg: DictConfig) -> tuple[EMAModel, torch.optim.Optimizer]:
    average = EMAModel(network.parameters(), decay=cfg.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    average.to(next(network.parameters()).device)
    return average, torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)


def learning_rate(highest: float, step: int, stop: int, cfg: DictConfig) -> float:
    """Linear warm-up, constant, then linear decay to zero: the constant part does not depend on the length.

    Args:
        highest: In the constant part.
        step: From the beginning of the rise.
        stop: The step at which it is zero.
        cfg: Has warmup_steps and decay_share, the part of all steps over which the rate falls.
    """
    decay = (stop - step) / (cfg.decay_share * stop)
    return highest * min(1.0, (step + 1) / cfg.warmup_steps, max(0.0, decay))
