"""The lab of an experiment: one configuration, its model and scorers, and the work that all experiments share.

The cache keeps the results of long work by all that they depend on, in shards while they are made. So a repeated
experiment reuses them, and an interrupted one continues.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents, seed_range
from hspace.diffusion.photographs import find_images, load_images
from hspace.diffusion.recording import Recorded
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import NotFinite
from hspace.directions.annotations import Annotations
from hspace.directions.masks import make_mask
from hspace.directions.operators import Found, Operator
from hspace.directions.pca import PER_STEP, PcaSettings
from hspace.directions.record import Directions
from hspace.edits.changes import Change, apply_changes, kind_of
from hspace.evaluation.calibration import MORE, Calibration, calibrate
from hspace.evaluation.readings import Readings, Sweep, read, score
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.names import Name, name_edits, suggested
from hspace.runs.config import Config
from hspace.runs.discovery import annotations, discover, recorded, seeds_of
from hspace.runs.keys import change_key, edit_key, keep, keep_rows, network_key, sampler_key, tensor_sha256
from hspace.runs.parsing import settings_of
from hspace.runs.stopwatch import Stopwatch
from hspace.runs.unedited import unedited, unit_of_effects
from hspace.scorers.factory import features_of
from hspace.system.files import write_json
from hspace.system.shards import SHARD, in_batches
from hspace.types import Embedder, InputError, RegionNetwork, Scorer

log: logging.Logger = logging.getLogger(__name__)

SHOWN = 4
"""Edited samples whose images are kept for figures."""


@dataclass(frozen=True)
class Lab:
    """One configuration with its model and its scorers, and the few things that every experiment does with them.

    Attributes:
        cfg: The configuration.
        model: The model, at the configured steps.
        annotator: Names directions, and chooses examples, components and strengths, on discovery and calibration seeds.
        judge: Reads evaluation seeds, once.
        identity: Encoder of all that a person owns, with unit-norm embeddings.
        likeness: Encoder of what no judged attribute is, or None.
        regions: Network that finds named regions, or None.
        judge_name: Name of the judge in tables: its id, with a mark where it also annotated.
        watch: Times the stages.
        drawn: Seeds of the samples that were read so far, by this lab and its draws, from the cache or not.
    """

    cfg: Config
    model: DiffusionModel
    annotator: Scorer
    judge: Scorer
    identity: Embedder
    likeness: Embedder | None
    regions: RegionNetwork | None
    judge_name: str
    watch: Stopwatch = field(default_factory=Stopwatch)
    drawn: set[int] = field(default_factory=set[int])

    @property
    def figures(self) -> Path:
        """Folder of the experiment's pictures."""
        return self.cfg.output_dir / "figures"

    @property
    def strengths(self) -> tuple[float, ...]:
        """The configured effects, or else strengths, but 0."""
        edit = self.cfg.edit
        return tuple(strength for strength in edit.effects or edit.strengths if strength != 0)

    @property
    def attributes(self) -> tuple[str, ...]:
        """What directions can be named by: the annotator's attributes that the judge reads too."""
        return tuple(name for name in self.annotator.attributes if name in self.judge.attributes)

    @property
    def sampler(self) -> Sampler:
        """Settings of the sampling and of the edited steps."""
        return self.cfg.sampler

    def seeds(self, role: str = "evaluation", n: int | None = None, start: int = 0) -> tuple[int, ...]:
        """Sample seeds of a role, to be read; as many as are configured where n is None."""
        evaluation = self.cfg.evaluation
        configured = evaluation.calibration_samples if role == "calibration" else evaluation.num_samples
        block = evaluation.block if role == "evaluation" else 0
        seeds = seed_range(role, configured if n is None else n, start, block)
        self.drawn.update(seeds)
        return seeds

    def draw(self, number: int) -> "Lab":
        """The same with discovery samples, and random directions, that no other draw has; draw 0 is the lab itself."""
        return replace(self, cfg=replace(self.cfg, seed=self.cfg.seed + number))

    def reference_seeds(self, role: str) -> tuple[int, ...]:
        """Seeds of a role's unedited samples, whose spread is the unit of effects; a rare score has none over few."""
        return self.seeds(role, self.cfg.evaluation.reference_samples)

    def discover(self, **method: Any) -> Directions:
        """Directions by any method of the command line; without a word, by the configured one.

        Raises:
            InputError: If the method finds an operator.
        """
        cfg = replace(self.cfg, method=settings_of(method)) if method else self.cfg
        found = replace(self, cfg=cfg).found()
        if isinstance(found, Operator):
            raise InputError(
                f"procedure={cfg.procedure} needs directions, and method={cfg.method.name} finds an operator"
            )
        return found

    def found(self) -> Found:
        """What the configured method finds: directions, or an operator."""
        with self.watch.stage("discover"):
            self.drawn.update(seeds_of(self.cfg))
            found = discover(self.cfg, self.model, self.annotator)
        self.drawn.update(found.meta.seeds)
        return found

    def found_again(self) -> Found:
        """What the configured method finds on the discovery samples of the next seed."""
        return self.draw(1).found()

    def components(self) -> Directions:
        """The principal components per step, as the paper has them, as many as `method=pca` is configured to find.

        Raises:
            InputError: If another method is configured.
        """
        return self.discover(**PER_STEP, k=self.pca.k, num_samples=self.pca.num_samples)

    @property
    def pca(self) -> PcaSettings:
        """The settings of `method=pca`, which tell an experiment how many directions of how many samples to find.

        Raises:
            InputError: If another method is configured.
        """
        if not isinstance(self.cfg.method, PcaSettings):
            raise InputError(
                f"procedure={self.cfg.procedure} takes its numbers from method=pca, got {self.cfg.method.name}"
            )
        return self.cfg.method

    def attribute(self, attribute: str, **options: Any) -> Directions:
        """The mean difference, eq. 11, of an attribute; `options` replace the study's own settings."""
        study = self.cfg.study
        settings = {"name": "supervised", "k": study.examples, "num_samples": study.index, "space": "h"}
        return self.discover(attribute=attribute, **settings | options)

    def annotations(self) -> Annotations:
        """The annotator's scores of the index that examples are chosen from."""
        found = annotations(self.cfg, self.model, self.annotator, self.cfg.study.index)
        self.drawn.update(found.seeds)
        return found

    def unit(self, scorer: Scorer) -> Tensor:
        """The sd of each score over unedited samples, (A,): calibration seeds for the annotator, else evaluation."""
        seeds = self.reference_seeds("calibration" if scorer is self.annotator else "evaluation")
        with self.watch.stage("unit"):
            return unit_of_effects(self.cfg, self.model, scorer, seeds)

    def calibrate(self, directions: Directions, component: int, attribute: str, target: float) -> Calibration:
        """The strength at which the annotator sees `target` sd of an attribute on calibration seeds."""
        least = self.cfg.evaluation.strength_samples
        seeds = seed_range("calibration", MORE * least)
        key = {
            "direction": tensor_sha256(directions.directions[component]), "attribute": attribute, "target": target,
            "reference": len(self.reference_seeds("calibration")), "seeds": seeds,
            "least": least, "scorer": network_key(self.annotator), **edit_key(self.cfg, self.model),
            **sampler_key(self.cfg, self.model),
        }  # fmt: skip

        def build(folder: Path) -> None:
            found = calibrate(
                self.model, directions, component, attribute, self.annotator, target=target, seeds=seeds,
                unit=self.unit(self.annotator), sampler=self.sampler, least=least,
            )  # fmt: skip
            write_json(folder / "calibration.json", asdict(found))

        with self.watch.stage("calibrate"):
            folder = keep(self.cfg, "calibrate", key, build)
        found = Calibration.from_dict(json.loads((folder / "calibration.json").read_text(encoding="utf-8")))
        self.drawn.update(found.seeds)
        return found

    @property
    def features(self) -> Embedder:
        """What compares images: the judge's hidden layer, or the identity encoder where that is not to be had."""
        return features_of(self.judge) or self.identity

    @property
    def real(self) -> Tensor | None:
        """Features of the images in `dataset.path`, each cut about its middle, (n, dim); None without a folder."""
        return self._real

    @cached_property
    def _real(self) -> Tensor | None:
        if self.cfg.dataset.path is None:
            return None
        paths, shape = find_images(self.cfg.dataset.path), self.model.image_shape

        def make(rows: range) -> Tensor:
            return score(self.features, load_images(paths[rows.start : rows.stop], (shape[1], shape[2])))

        with self.watch.stage("real"):
            return in_batches(range(len(paths)), SHARD, make)

    def region(self, images: Tensor) -> Tensor:
        """The configured mask, bool (1, height, width), or where it is a named region, that of each image."""
        mask = getattr(self.cfg.method, "mask", None)
        if isinstance(mask, str) and not mask.lower().endswith(".png"):
            assert self.regions is not None
            return self.regions(images)[mask]
        assert mask is not None, "the configuration was checked"
        return make_mask(mask, self.model.image_shape[1:])[None]

    def recorded(self) -> Recorded:
        """H of the discovery samples, as many as the method takes, or as the unit of effects."""
        n = getattr(self.cfg.method, "num_samples", self.cfg.evaluation.reference_samples)
        with self.watch.stage("collect"):
            found = recorded(self.cfg, self.model, n)
        self.drawn.update(found.seeds)
        return found

    def images(self, latents: Latents) -> Tensor:
        """Unedited images, (n, C, H, W), on the CPU."""
        return unedited(self.cfg, self.model, latents)

    def kept(self, stage: str, n: int, make: Callable[[range], Tensor], *, size: int = SHARD, **key: Any) -> Tensor:
        """Rows of what the sampler's settings and `key` determine, from the cache; see `keep_rows`."""
        with self.watch.stage(stage):
            return keep_rows(self.cfg, self.model, stage, n, make, size=size, **key)

    def read(
        self,
        edits: Mapping[str, Change],
        seeds: Sequence[int] | None = None,
        *,
        by: Scorer | None = None,
        shown: int = SHOWN,
    ) -> Readings:
        """Edits every sample, and keeps what a scorer and the encoders of a person read off.

        Args:
            edits: Changes by name: offsets of h, (steps, C, H, W), or of x_T, (C, H, W), or operators.
            seeds: Seeds of the samples; None takes the evaluation seeds.
            by: The scorer; None is the judge.
            shown: Number of samples whose images are kept too.
        """
        seeds, scorer = tuple(self.seeds() if seeds is None else seeds), by or self.judge
        self.drawn.update(seeds)
        shown = min(shown, len(seeds))
        encoders = (self.identity,) if self.likeness is None else (self.identity, self.likeness)
        widths = [len(scorer.attributes), *(each.dim for each in encoders)]
        key = {
            # In their order, which is that of the columns.
            "edits": [(name, change_key(change)) for name, change in edits.items()], "scorer": network_key(scorer),
            "encoders": [network_key(each) for each in encoders], **edit_key(self.cfg, self.model),
        }  # fmt: skip

        def rows_of(seeds: Sequence[int], *, images: bool) -> Tensor:
            """A row for each sample: for it and each edit the scores, the embeddings, and the image where wanted."""

            def make(rows: range) -> Tensor:
                pictures = self._pictures(edits, seeds[rows.start : rows.stop])
                columns = [*read(pictures, scorer, *encoders), *([pictures.flatten(2)] if images else [])]
                return torch.cat(columns, dim=2)

            # A shard is as long as any other, counted in images.
            size = max(1, SHARD // (1 + len(edits)))
            return self.kept("read", len(seeds), make, size=size, seeds=seeds, images=images, **key)

        with self.watch.stage("read"):
            first = rows_of(seeds[:shown], images=True)
            others = [rows_of(seeds[shown:], images=False)] if len(seeds) > shown else []
            values = torch.cat([first[..., : sum(widths)], *others])
            unit = self.unit(scorer)
        scores, people, *features = values.split(widths, dim=2)
        images = first[..., sum(widths) :].unflatten(2, self.model.image_shape)
        return Readings(
            scorer, tuple(edits), seeds, scores[:, 0], scores[:, 1:].transpose(0, 1), people, images, unit, *features,
        )  # fmt: skip

    def sweep(
        self,
        vectors: Mapping[str, Change],
        strengths: Sequence[float] | None = None,
        *,
        seeds: Sequence[int] | None = None,
        by: Scorer | None = None,
        shown: int = SHOWN,
    ) -> Sweep:
        """Reads every change (of strength 1) at every strength; None is the configured ones."""
        strengths = tuple(strength for strength in (strengths or self.strengths) if strength != 0)
        edits = {f"{name} at strength {s:g}": s * vector for name, vector in vectors.items() for s in strengths}
        return Sweep(tuple(vectors), strengths, self.read(edits, seeds, by=by, shown=shown))

    def name(self, vectors: Sequence[Tensor] | Tensor, strength: float) -> list[Name | None]:
        """What the annotator sees each vector move most on calibration seeds, or None.

        By half the difference of the effects at +strength and -strength, in which damage that either sign does to an
        image drops out; of the attributes that the judge reads too, on two halves of the samples: see `name_edits`.
        The second half is edited only along vectors to which the first one suggests a name.
        """
        with self.watch.stage("name"):
            seeds = seed_range("calibration", self.cfg.evaluation.calibration_samples)
            half = len(seeds) // 2
            first = self._odd_effects(dict(enumerate(vectors)), strength, seeds[:half]).select(self.attributes)
            left = {j: vectors[j] for j in suggested(first)}
            if not left:
                return [None] * len(vectors)
            fresh = self._odd_effects(left, strength, seeds[half:]).select(self.attributes)
            names = dict(zip(left, name_edits(first.rows(list(left)), fresh), strict=True))
            return [names.get(j) for j in range(len(vectors))]

    def odd_effects(self, vectors: Sequence[Tensor] | Tensor, strength: float) -> EffectMatrix:
        """Half the difference of the annotator's effects at +strength and -strength, on calibration seeds."""
        return self._odd_effects(dict(enumerate(vectors)), strength, self.seeds("calibration"))

    def _odd_effects(self, vectors: Mapping[int, Tensor], strength: float, seeds: Sequence[int]) -> EffectMatrix:
        """Half the difference of the annotator's effects of numbered vectors at +strength and -strength."""
        named: dict[str, Change] = {f"direction {j}": vector for j, vector in vectors.items()}
        return self.sweep(named, (strength, -strength), seeds=seeds, by=self.annotator).odd_effects()

    def _pictures(self, edits: Mapping[str, Change], seeds: Sequence[int]) -> Tensor:
        """Samples unedited and under every edit, (n, 1 + E, C, H, W)."""
        latents = self.model.latents(seeds)
        columns = []
        # One pass holds changes of one kind.
        for group in _by_kind({"the unedited sample": 0.0 * next(iter(edits.values())), **edits}):
            try:
                images = apply_changes(self.model, latents, list(group.values()), sampler=self.sampler)
            except NotFinite as error:
                raise NotFinite(error.row, f"{list(group)[error.row]}: {error}") from None
            columns.append(images)
        return torch.cat(columns, dim=1).float()


def _by_kind(edits: Mapping[str, Change]) -> list[dict[str, Change]]:
    """Neighbouring edits of one kind, together, in order."""
    groups: list[dict[str, Change]] = []
    for name, change in edits.items():
        if not groups or kind_of(next(iter(groups[-1].values()))) != kind_of(change):
            groups.append({})
        groups[-1][name] = change
    return groups
