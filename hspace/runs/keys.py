"""What a stage's result depends on, as the key it is kept under."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.runs.config import Config
from hspace.system import distributed
from hspace.system.cache import SHARDS, cached, key_sha256, place, unfinished_place
from hspace.system.hashes import weights_sha256
from hspace.types import Embedder, Scorer

VERSIONS = {
    "collect": 2, "annotate": 2, "discover": 3, "calibrate": 2, "read": 1, "unit": 2, "swap": 1, "invert": 1,
}  # fmt: skip
"""Of each stage; a higher one leaves older results of it unused."""


def keep(cfg: Config, stage: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of a stage's result, from the run's cache; see `cached`.

    Of several processes all build, since they exchange what they make, and the first one's result is kept.
    """
    key = {"version": VERSIONS[stage], **key}
    folder = place(cfg.cache_dir, stage, key)
    if distributed.rank() > 0:
        if distributed.from_first(False):
            scratch = unfinished_place(folder) / SHARDS / f"rank-{distributed.rank()}"
            scratch.mkdir(parents=True, exist_ok=True)
            build(scratch)
            distributed.together()
        distributed.together()
        return folder
    built = False

    def build_together(folder: Path) -> None:
        nonlocal built
        built = distributed.from_first(True)
        build(folder)
        distributed.together()

    cached(cfg.cache_dir, stage, key, build_together)
    if not built:
        distributed.from_first(False)
    distributed.together()
    return folder


def keep_part(cfg: Config, stage: str, key: dict[str, Any], n: int, build: Callable[[Path, range], None]) -> Path:
    """Like `keep` for what each process makes and keeps by itself: its share of n rows."""
    rows = distributed.share(n)
    part = {"rows": [rows.start, rows.stop]} if distributed.world() > 1 else {}
    key = {"version": VERSIONS[stage], **key, **part}
    return cached(cfg.cache_dir, stage, key, lambda folder: build(folder, rows))


def sampler_key(cfg: Config, model: DiffusionModel) -> dict[str, Any]:
    """All of the model and the sampler that generated samples depend on."""
    schedule = model.process
    return {
        "model": model.identity.sha256,
        "tap": cfg.model.tap,
        "prompt": [cfg.model.prompt, cfg.model.guidance],
        "dtype": cfg.dtype,
        "timesteps": list(schedule.timesteps),
        "levels": key_sha256({"levels": schedule.levels()}),
        "prediction_type": schedule.prediction_type,
        "eta": list(schedule.etas(cfg.diffusion.eta)),
    }


def network_key(network: Scorer | Embedder) -> dict[str, Any]:
    """What scores depend on: the network's id, and its weights where it is one of torch."""
    return {"id": network.id, "weights": _weights_sha256(network) if isinstance(network, torch.nn.Module) else None}


@cache
def _weights_sha256(network: torch.nn.Module) -> str:
    """Once for each network: those that score are loaded once and never trained."""
    return weights_sha256(network)
