"""Unedited samples of a run: their images, and the spread of their scores, in which effects are counted."""

from collections.abc import Sequence

from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampling import sample
from hspace.evaluation.readings import score
from hspace.metrics.effect import score_unit
from hspace.runs.config import Config
from hspace.runs.keys import keep_rows, network_key
from hspace.system.shards import SHARD, in_batches
from hspace.types import Scorer


def unedited(cfg: Config, model: DiffusionModel, latents: Latents) -> Tensor:
    """Images, (n, C, H, W), on the CPU."""

    def make(rows: range) -> Tensor:
        return sample(model, latents.select(rows), sampler=cfg.sampler).x_0.float().cpu()

    return in_batches(range(len(latents.seeds)), cfg.sampler.batch_size, make)


def unit_of_effects(cfg: Config, model: DiffusionModel, scorer: Scorer, seeds: Sequence[int]) -> Tensor:
    """The sd of each score over the samples of the seeds, (A,), from the cache."""

    def make(rows: range) -> Tensor:
        return score(scorer, unedited(cfg, model, model.latents(seeds[rows.start : rows.stop])))

    scores = keep_rows(cfg, model, "unit", len(seeds), make, size=SHARD, seeds=seeds, scorer=network_key(scorer))
    return score_unit(scores, scorer.visible(scores))
