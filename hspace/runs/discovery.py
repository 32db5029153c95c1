"""The stage that finds directions, by any method, cached by the hash of all that it depends on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampling import Recorded, collect, collect_around, sample
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.disentangle import disentangle
from hspace.directions.jacobian import jacobian
from hspace.directions.masks import Mask, make_mask
from hspace.directions.pca import pca
from hspace.directions.random import random
from hspace.directions.record import Directions
from hspace.directions.supervised import boundary, supervised
from hspace.runs.config import Config, to_dict
from hspace.runs.keys import keep, keep_part, network_key, sampler_key
from hspace.scorers.factory import load_regions
from hspace.system.cache import key_sha256
from hspace.types import InputError, Scorer


def discover(cfg: Config, model: DiffusionModel, annotator: Scorer) -> Directions:
    """The directions that a configuration asks for: read from a file, or found, or kept from an earlier run.

    Args:
        cfg: A parsed configuration.
        model: Its model.
        annotator: Chooses the examples of supervised directions.

    Raises:
        InputError: If a file does not fit the model, or the method cannot do what is asked.
    """
    directions = Directions.load(cfg.method.path) if cfg.method.path else _found(cfg, model, annotator)
    directions = directions.fit(model, eta=cfg.diffusion.eta, allow=cfg.allow)
    return directions if cfg.edit.components is None else directions.select(cfg.edit.components)


def _found(cfg: Config, model: DiffusionModel, annotator: Scorer) -> Directions:
    """Found by the configured method, or read from the cache."""
    mask = _mask(cfg, model)
    find, drawn = METHODS[cfg.method.name]
    # The mask itself, not its name: a PNG can change, and a named region differs from sample to sample.
    key = {"method": to_dict(cfg)["method"], "mask": None if mask is None else mask.int().tolist()}
    key |= {"injection": cfg.diffusion.injection, **sampler_key(cfg, model)}
    key |= {"seed": cfg.seed} if drawn else {}
    key |= {} if cfg.method.attribute is None else {"annotator": network_key(annotator)}

    def build(folder: Path) -> None:
        directions = find(cfg, model, annotator, mask)
        provenance = replace(directions.meta.provenance, injection=cfg.diffusion.injection)
        meta = replace(directions.meta, config_sha256=key_sha256(key), provenance=provenance)
        replace(directions, meta=meta).save(folder / "directions.safetensors")

    return Directions.load(keep(cfg, "discover", key, build) / "directions.safetensors")


def _find_pca(cfg: Config, model: DiffusionModel, annotator: Scorer, mask: Mask | None) -> Directions:
    return pca(recorded(cfg, model), model, k=_k(cfg), joint=bool(cfg.method.joint), memory=_memory(cfg))


def _find_local_pca(cfg: Config, model: DiffusionModel, annotator: Scorer, mask: Mask | None) -> Directions:
    def build(folder: Path, rows: range) -> None:
        center = model.latents([_sample(cfg)])
        collect_around(
            model, center, len(rows), folder / "h.npy", first=rows.start, eta=cfg.diffusion.eta,
            batch_size=cfg.batch_size, shards=folder / "shards",
        )  # fmt: skip

    key = {"sample": cfg.method.sample, "num_samples": cfg.method.num_samples, **sampler_key(cfg, model)}
    around = Recorded.load(keep_part(cfg, "collect", key, _num_samples(cfg), build) / "h.npy")
    return pca(around, model, k=_k(cfg), memory=_memory(cfg))


def _find_random(cfg: Config, model: DiffusionModel, annotator: Scorer, mask: Mask | None) -> Directions:
    return random(_find_pca(cfg, model, annotator, mask), seed=cfg.seed)


def _find_jacobian(cfg: Config, model: DiffusionModel, annotator: Scorer, mask: Mask | None) -> Directions:
    method = cfg.method
    return jacobian(
        model, model.latents([_sample(cfg)]), k=_k(cfg), eta=cfg.diffusion.eta, steps=method.steps, mask=mask,
        outside=method.outside, block_size=method.block_size,
    )  # fmt: skip


def _find_supervised(cfg: Config, model: DiffusionModel, annotator: Scorer, mask: Mask | None) -> Directions:
    scores = annotations(cfg, model, annotator)
    options: dict[str, Any] = {"k": _k(cfg), "space": cfg.method.space, "batch_size": cfg.batch_size}

    def find(attribute: str | None, **more: Any) -> Directions:
        assert attribute is not None, "the configuration was checked"
        if cfg.method.classifier is None:
            return supervised(model, scores, attribute, **options, **more)
        return boundary(model, scores, attribute, classifier=cfg.method.classifier, **options, **more)

    found = find(cfg.method.attribute, balance=cfg.method.balance)
    conditions = [find(condition) for condition in cfg.method.conditions or ()]
    return disentangle(found, conditions) if conditions else found


METHODS: dict[str, tuple[Callable[[Config, DiffusionModel, Scorer, Mask | None], Directions], bool]] = {
    "pca": (_find_pca, False),
    "local_pca": (_find_local_pca, False),
    "random": (_find_random, True),
    "jacobian": (_find_jacobian, False),
    "supervised": (_find_supervised, False),
}
"""Each method, and whether it draws from `seed`."""


def annotations(cfg: Config, model: DiffusionModel, annotator: Scorer) -> Annotations:
    """The annotator's scores of the discovery samples; kept for all attributes."""

    def build(folder: Path) -> None:
        seeds = seed_range("discovery", _num_samples(cfg))
        scores = annotate(
            model, seeds, annotator, eta=cfg.diffusion.eta, batch_size=cfg.batch_size, shards=folder / "shards"
        )
        scores.save(folder / "annotations.safetensors")

    key = {"num_samples": cfg.method.num_samples, "annotator": network_key(annotator), **sampler_key(cfg, model)}
    return Annotations.load(keep(cfg, "annotate", key, build) / "annotations.safetensors")


def recorded(cfg: Config, model: DiffusionModel) -> Recorded:
    """Recorded h of the discovery samples, shared by all methods; each of several processes has its share of them."""

    def build(folder: Path, rows: range) -> None:
        seeds = seed_range("discovery", len(rows), rows.start)
        collect(
            model, seeds, folder / "h.npy", eta=cfg.diffusion.eta, batch_size=cfg.batch_size, shards=folder / "shards"
        )

    key = {"num_samples": cfg.method.num_samples, **sampler_key(cfg, model)}
    return Recorded.load(keep_part(cfg, "collect", key, _num_samples(cfg), build) / "h.npy")


def _mask(cfg: Config, model: DiffusionModel) -> Mask | None:
    """The configured region on the grid of x_t; a named one is read off the sample's own image."""
    region = cfg.method.mask
    if region is None:
        return None
    size = model.sample_shape[1:]
    if not isinstance(region, str) or region.lower().endswith(".png"):
        return make_mask(region, size)
    if cfg.evaluation.regions == "portraits-regions" and model.image_shape[1] > 64:
        raise InputError(
            f"method.mask={region}: the embedded network knows regions of portraits, not those of {model.model_id}: "
            "set evaluation.regions=hub:MODEL to a face parser"
        )
    image = sample(model, model.latents([_sample(cfg)]), eta=cfg.diffusion.eta).x_0
    return make_mask(region, size, image=image, network=load_regions(cfg.evaluation.regions))


def _memory(cfg: Config) -> int | None:
    return None if cfg.memory_gib is None else int(cfg.memory_gib * 2**30)


def _k(cfg: Config) -> int:
    return _given(cfg.method.k)


def _num_samples(cfg: Config) -> int:
    return _given(cfg.method.num_samples)


def _sample(cfg: Config) -> int:
    return _given(cfg.method.sample)


def _given(value: int | None) -> int:
    assert value is not None, "the configuration was checked"
    return value
