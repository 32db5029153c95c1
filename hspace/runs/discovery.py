"""The stage that finds directions by any method; the cache keeps them by the hash of all that they depend on."""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.recording import Recorded, collect, collect_around
from hspace.diffusion.sampler import SEEDS_PER_ROLE, Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.masks import Mask, make_mask
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.method import Method, Source, get_method
from hspace.directions.operators import Found, load_found
from hspace.edits.sums import apply_offsets
from hspace.evaluation.readings import Readings, Sweep, score
from hspace.metrics.effect import EffectMatrix
from hspace.runs.config import Config
from hspace.runs.keys import edit_key, files_key, keep, keep_part, keep_rows, network_key, sampler_key, tensor_sha256
from hspace.runs.readers import refusal
from hspace.runs.unedited import unit_of_effects
from hspace.scorers.factory import load_regions
from hspace.system import distributed
from hspace.system.cache import key_sha256
from hspace.system.registry import source_sha256
from hspace.system.shards import SHARD
from hspace.types import InputError, Scorer

log: logging.Logger = logging.getLogger(__name__)

MOST_KEPT = 2**31
"""Bytes of h and images that are kept of all samples when they are annotated, to spare drawing examples again."""


def warn_of_injection(meta: DirectionsMeta, cfg: Config, what: str = "") -> None:
    """Warns where what was trained or measured for edits of one injection is used under the other.

    Args:
        meta: Facts about the directions or the operator.
        cfg: Parsed configuration of the use.
        what: Name of what is used, where that is not all of them.
    """
    made, here = meta.provenance.injection, cfg.diffusion.injection
    if made not in (None, here):
        what = what or ", ".join(meta.names)
        log.warning("%s: trained or measured with diffusion.injection=%s; effects differ with %s", what, made, here)


def discover(cfg: Config, model: DiffusionModel, annotator: Scorer) -> Found:
    """The directions, or the operator, of a configuration: found now, or kept from an earlier run.

    Args:
        cfg: Parsed configuration.
        model: Its model.
        annotator: Scorer that chooses the examples of supervised directions.

    Raises:
        InputError: If the directions do not fit the model, or the method cannot do what is asked.
    """
    method = get_method(cfg.method.name)
    sources = RunSources(cfg, model, annotator, method)
    directions = _kept(method, sources) if method.kept else method(model, sources, cfg.method)
    directions = directions.fit(model, eta=cfg.diffusion.eta, allow=cfg.allow)
    warn_of_injection(directions.meta, cfg)
    return directions if cfg.edit.components is None else directions.select(cfg.edit.components)


def _kept(method: Method, sources: "RunSources") -> Found:
    """Found by the method, or read from the cache."""
    cfg, model = sources.cfg, sources.model
    key = {"method": cfg.method.model_dump(mode="json"), "code": source_sha256(method.find), **sources.key()}
    # Files that the settings name count by content, as for a whole run.
    key |= {"files": files} if (files := files_key(cfg.method)) else {}
    # The discovery samples are those of the seed's block.
    key |= {"run_seed": cfg.seed} if method.samples else {}
    key |= {"injection": cfg.diffusion.injection, **sampler_key(cfg, model)}

    def build(folder: Path) -> None:
        directions = method(model, sources, cfg.method)
        meta = replace(directions.meta, config_sha256=key_sha256(key))
        if "effects" in method.reads:
            meta = replace(meta, provenance=replace(meta.provenance, injection=cfg.diffusion.injection))
        replace(directions, meta=meta).save(folder / "directions.safetensors")

    return load_found(keep(cfg, "discover", key, build) / "directions.safetensors")


@dataclass(frozen=True)
class RunSources:
    """The sources that a run gives its method; fulfils `hspace.directions.method.Sources`.

    Attributes:
        cfg: The run's configuration.
        model: Its model.
        scorer: The annotator, for methods that learn from examples.
        method: The method, which gets the sources that it declares.
    """

    cfg: Config
    model: DiffusionModel
    scorer: Scorer
    method: Method

    def key(self) -> dict[str, Any]:
        """Further facts that the directions depend on, besides settings and samples."""
        read: dict[str, Any] = {}
        if "seed" in self.method.reads:
            read["seed"] = self.seed()
        if "annotations" in self.method.reads:
            read["annotator"] = network_key(self.scorer)
        if "effects" in self.method.reads:
            evaluation, scorer = self.cfg.evaluation, network_key(self.scorer)
            samples = [evaluation.calibration_samples, evaluation.reference_samples]
            read["effects"] = {"samples": samples, "scorer": scorer, **edit_key(self.cfg, self.model)}
        region = getattr(self.cfg.method, "mask", None)
        if "mask" in self.method.reads and region is not None:
            # The mask itself, not its name: a PNG can change, and a named region differs from sample to sample.
            read["mask"] = self.mask(region, getattr(self.cfg.method, "sample", 0)).int().tolist()
        return read

    @property
    def sampler(self) -> Sampler:
        """Settings of the run's sampling: of all steps, since those that are left out are those of its edits."""
        return replace(self.cfg.sampler, start=0, stop=None)

    @property
    def memory(self) -> int | None:
        """Most bytes that may be used; None sets no limit."""
        return None if self.cfg.memory_gib is None else int(self.cfg.memory_gib * 2**30)

    def seed(self) -> int:
        """The run's seed."""
        self._check("seed")
        return self.cfg.seed

    def seeds(self, num_samples: int) -> tuple[int, ...]:
        """Seeds of the discovery samples."""
        self._check_samples()
        return seed_range("discovery", num_samples, first_sample(self.cfg, num_samples))

    def recorded(self, num_samples: int) -> Recorded:
        """Recorded h of the discovery samples, shared by all methods; each of several processes has its share."""
        self._check_samples()
        return recorded(self.cfg, self.model, num_samples)

    def recorded_around(self, sample: int, num_samples: int) -> Recorded:
        """Recorded h of neighbours of the sample of a seed."""
        self._check_samples()
        first = first_sample(self.cfg, num_samples)

        def build(folder: Path, rows: range) -> None:
            collect_around(
                self.model, self.model.latents([sample]), len(rows), folder / "h.npy", first=first + rows.start,
                sampler=self.sampler, shards=folder / "shards",
            )  # fmt: skip

        key = {"sample": sample, "num_samples": num_samples, "first": first, **sampler_key(self.cfg, self.model)}
        return Recorded.load(keep_part(self.cfg, "collect", key, num_samples, build) / "h.npy")

    def annotations(self, num_samples: int) -> Annotations:
        """The annotator's scores of the discovery samples."""
        self._check("annotations")
        self._check_samples()
        return annotations(self.cfg, self.model, self.scorer, num_samples)

    def annotated(self, num_samples: int) -> tuple[Recorded, Annotations]:
        """Recorded h and the annotator's scores of the discovery samples, which are drawn once for both."""
        self._check("annotations")
        self._check_samples()
        return annotated(self.cfg, self.model, self.scorer, num_samples)

    def index(self, num_samples: int) -> tuple[Annotations, Recorded | None]:
        """The annotator's scores of the discovery samples, and h of all of them where it takes little of the disk.

        Each of several processes would have a share of h alone.
        """
        steps, h, image = len(self.model.process.timesteps), self.model.h_shape, self.model.image_shape
        size = 4 * num_samples * (steps * math.prod(h) + math.prod(image))
        if size > MOST_KEPT or distributed.world() > 1:
            return self.annotations(num_samples), None
        found, scores = self.annotated(num_samples)
        return scores, found

    def annotator(self) -> Scorer:
        """The annotator itself."""
        self._check("annotations")
        return self.scorer

    def mask(self, region: str | tuple[float, ...], seed: int) -> Mask:
        """A region on the grid of x_t; a named one is read off the sample's own image.

        Raises:
            InputError: If the region is unknown, or the method did not declare that it reads masks.
        """
        self._check("mask")
        size, regions = self.model.sample_shape[1:], self.cfg.evaluation.regions
        if not isinstance(region, str) or region.lower().endswith(".png"):
            return make_mask(region, size)
        if why := refusal(self.cfg, "regions"):
            raise InputError(f"method.mask={region}: {why}")
        image = sample(self.model, self.model.latents([seed]), sampler=self.sampler).x_0.float().cpu()
        return make_mask(region, size, image=image, network=load_regions(regions))

    def effects(self, vectors: Tensor) -> EffectMatrix:
        """What the annotator sees offsets of h do on calibration samples; the scores of each are kept in the cache."""
        self._check("effects")
        cfg, model, scorer = self.cfg, self.model, self.scorer
        seeds = seed_range("calibration", cfg.evaluation.calibration_samples)

        def scores(edits: Tensor) -> Tensor:
            """Scores of every sample under every edit, (n, edits, attributes)."""

            def make(rows: range) -> Tensor:
                latents = model.latents(seeds[rows.start : rows.stop])
                images = apply_offsets(model, latents, edits, sampler=cfg.sampler).float()
                return score(scorer, images.flatten(0, 1)).unflatten(0, images.shape[:2])

            key = {"edits": tensor_sha256(edits), "scorer": network_key(scorer), "seeds": seeds} | edit_key(cfg, model)
            return keep_rows(cfg, model, "effects", len(seeds), make, size=max(1, SHARD // len(edits)), **key)

        # Each by itself: mixtures for several attributes share the directions that they mix.
        unedited = scores(torch.zeros_like(vectors[:1]))[:, 0]
        edited = torch.cat([scores(torch.stack([vector, -vector])) for vector in vectors], dim=1)
        unit = unit_of_effects(cfg, model, scorer, seed_range("calibration", cfg.evaluation.reference_samples))
        names = tuple(f"vector {j}" for j in range(len(vectors)))
        nothing = torch.empty(len(seeds), 1 + edited.shape[1], 0)
        readings = Readings(scorer, names, seeds, unedited, edited.transpose(0, 1), nothing, nothing, unit)
        return Sweep(names, (1.0, -1.0), readings).odd_effects()

    def _check(self, source: Source) -> None:
        """Refuses a source that the method did not declare: its key would lack it, and a stale result would be used."""
        if source not in self.method.reads:
            raise InputError(f"method {self.method.name!r} reads {source}: say so, as @method(..., reads=[{source!r}])")

    def _check_samples(self) -> None:
        if not self.method.samples:
            raise InputError(f"method {self.method.name!r} reads discovery samples: leave out samples=False")


def seeds_of(cfg: Config) -> tuple[int, ...]:
    """Seeds of the samples that the configured method reads, beside those that its directions name."""
    method, n = get_method(cfg.method.name), getattr(cfg.method, "num_samples", 0)
    discovery = seed_range("discovery", n, first_sample(cfg, n)) if method.samples and n else ()
    if "effects" not in method.reads:
        return discovery
    return discovery + seed_range(
        "calibration", max(cfg.evaluation.calibration_samples, cfg.evaluation.reference_samples)
    )


def first_sample(cfg: Config, num_samples: int) -> int:
    """Number of the first discovery sample: the samples of each `seed` are a block of their own.

    Raises:
        InputError: If the seed's block reaches beyond the seeds of discovery.
    """
    most = SEEDS_PER_ROLE // num_samples - 1
    if cfg.seed > most:
        raise InputError(f"seed must be at most {most} for {num_samples} discovery samples each, got {cfg.seed}")
    return cfg.seed * num_samples


def annotations(
    cfg: Config, model: DiffusionModel, annotator: Scorer, num_samples: int, images: Tensor | None = None
) -> Annotations:
    """The annotator's scores of the discovery samples, or of their images; kept for all attributes."""
    first = first_sample(cfg, num_samples)

    def build(folder: Path) -> None:
        seeds = seed_range("discovery", num_samples, first)
        scores = annotate(model, seeds, annotator, sampler=cfg.sampler, shards=folder / "shards", images=images)
        scores.save(folder / "annotations.safetensors")

    key = {"num_samples": num_samples, "first": first, "annotator": network_key(annotator), **sampler_key(cfg, model)}
    return Annotations.load(keep(cfg, "annotate", key, build) / "annotations.safetensors")


def annotated(cfg: Config, model: DiffusionModel, annotator: Scorer, num_samples: int) -> tuple[Recorded, Annotations]:
    """Recorded h and the annotator's scores of the discovery samples, which are drawn once for both."""
    found = recorded(cfg, model, num_samples, images=True)
    # Each of several processes has recorded samples of its own; one that was kept before may be without images.
    images = found.images(model.image_shape) if len(found.seeds) == num_samples else None
    return found, annotations(cfg, model, annotator, num_samples, images)


def recorded(cfg: Config, model: DiffusionModel, num_samples: int, *, images: bool = False) -> Recorded:
    """Recorded h of the discovery samples, shared by all methods; each of several processes has its share of them.

    Images are kept beside h where they are asked for, unless h was recorded before without them.
    """
    first = first_sample(cfg, num_samples)

    def build(folder: Path, rows: range) -> None:
        seeds = seed_range("discovery", len(rows), first + rows.start)
        collect(model, seeds, folder / "h.npy", sampler=cfg.sampler, shards=folder / "shards", images=images)

    key = {"num_samples": num_samples, "first": first, **sampler_key(cfg, model)}
    return Recorded.load(keep_part(cfg, "collect", key, num_samples, build) / "h.npy")
