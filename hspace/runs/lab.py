"""What every experiment works with: the laboratory, and the record of what came out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents, seed_range
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations
from hspace.directions.record import Directions
from hspace.edits.sums import apply_offsets
from hspace.evaluation.calibration import Calibration, calibrate
from hspace.evaluation.effects import score
from hspace.evaluation.readings import Readings, Sweep
from hspace.metrics.effect import EffectMatrix, effect_matrix, name_components, score_unit
from hspace.output.tables import Table
from hspace.runs.config import Config, MethodConfig
from hspace.runs.discovery import annotations, discover
from hspace.runs.keys import keep, network_key, sampler_key
from hspace.system.files import write_json
from hspace.system.shards import row_batches
from hspace.types import Embedder, RegionNetwork, Scorer

REFERENCE_SAMPLES = 192
"""Unedited evaluation samples whose spread is the unit of the judge's effects; a rare attribute has none over few."""
TOLERANCE = 0.1
"""How near to its target an effect is near enough, in fractions of it: few samples know a share no better."""
CALIBRATION_SAMPLES = 24
"""Calibration samples on which strengths, signs and components are chosen."""
SHOWN = 4
"""Edited samples whose images are kept for figures."""


@dataclass(frozen=True)
class Lab:
    """One configuration with its model and its scorers, and the few things that every experiment does with them.

    Attributes:
        cfg: The configuration.
        model: The model, at the configured steps.
        annotator: Chooses examples, components and strengths, on discovery and calibration seeds.
        judge: Reads evaluation seeds, once.
        identity: Identity encoder with unit-norm embeddings.
        regions: What knows named regions, or None.
    """

    cfg: Config
    model: DiffusionModel
    annotator: Scorer
    judge: Scorer
    identity: Embedder
    regions: RegionNetwork | None

    @property
    def figures(self) -> Path:
        """Folder of the experiment's pictures."""
        return self.cfg.output_dir / "figures"

    @property
    def strengths(self) -> tuple[float, ...]:
        """The configured strengths but 0."""
        return tuple(strength for strength in self.cfg.edit.strengths if strength != 0)

    def seeds(self, role: str = "evaluation", n: int | None = None, start: int = 0) -> tuple[int, ...]:
        """Sample seeds of a role; as many evaluation seeds as are configured where n is None."""
        return seed_range(role, self.cfg.evaluation.num_samples if n is None else n, start)

    def discover(self, **method: Any) -> Directions:
        """Directions by any method of the command line, kept in the cache that it uses."""
        return discover(replace(self.cfg, method=MethodConfig(**method)), self.model, self.annotator)

    def attribute(self, name: str, **options: Any) -> Directions:
        """The mean difference, eq. 11, of an attribute; `options` replace the study's own settings."""
        study = self.cfg.study
        settings = {"k": study.examples, "num_samples": study.index, "space": "h"} | options
        return self.discover(name="supervised", attribute=name, **settings)

    def annotations(self) -> Annotations:
        """The annotator's scores of the index that examples are chosen from."""
        method = MethodConfig(name="supervised", num_samples=self.cfg.study.index)
        return annotations(replace(self.cfg, method=method), self.model, self.annotator)

    def unit(self, scorer: Scorer) -> Tensor:
        """The sd of each score over unedited samples, (A,): the annotator's over the index, the judge's over others."""
        if scorer is self.annotator:
            index = self.annotations()
            return score_unit(index.scores, index.visible)
        seeds = self.seeds("evaluation", REFERENCE_SAMPLES)
        key = {"seeds": list(seeds), "scorer": network_key(scorer), **sampler_key(self.cfg, self.model)}

        def build(folder: Path) -> None:
            scores = score(scorer, self.images(self.model.latents(seeds)))
            save_file({"unit": score_unit(scores, scorer.visible(scores))}, folder / "unit.safetensors")

        return load_file(keep(self.cfg, "unit", key, build) / "unit.safetensors")["unit"]

    def calibrate(self, directions: Directions, component: int, attribute: str, target: float) -> Calibration:
        """The strength at which the annotator sees `target` sd of an attribute on calibration seeds."""
        diffusion, seeds = self.cfg.diffusion, self.seeds("calibration", CALIBRATION_SAMPLES)
        key = {
            "direction": _sha256(directions.directions[component]), "attribute": attribute, "target": target,
            "index": self.cfg.study.index, "seeds": list(seeds), "scorer": network_key(self.annotator),
            "injection": diffusion.injection, **sampler_key(self.cfg, self.model),
        }  # fmt: skip

        def build(folder: Path) -> None:
            found = calibrate(
                self.model, directions, component, attribute, self.annotator, target=target, seeds=seeds,
                unit=self.unit(self.annotator), eta=diffusion.eta, injection=diffusion.injection,
                batch_size=self.cfg.batch_size, tolerance=TOLERANCE,
            )  # fmt: skip
            write_json(folder / "calibration.json", asdict(found))

        folder = keep(self.cfg, "calibrate", key, build)
        return Calibration.from_dict(json.loads((folder / "calibration.json").read_text(encoding="utf-8")))

    def images(self, latents: Latents) -> Tensor:
        """Unedited images, (n, C, H, W), on the CPU."""
        batches = row_batches(len(latents.seeds), self.cfg.batch_size)
        eta = self.cfg.diffusion.eta
        return torch.cat([sample(self.model, latents.select(rows), eta=eta).x_0.cpu() for rows in batches])

    def read(
        self, edits: Mapping[str, Tensor], seeds: Sequence[int] | None = None, *, by: Scorer | None = None
    ) -> "Readings":
        """Edits every sample, and keeps what a scorer and the identity encoder read off; kept in the cache.

        Args:
            edits: Offsets by name: of h, (steps, C, H, W), or of x_T, (C, H, W).
            seeds: Of the samples; None is the evaluation seeds.
            by: The scorer; None is the judge.
        """
        seeds, scorer = tuple(self.seeds() if seeds is None else seeds), by or self.judge
        key = {
            "seeds": list(seeds), "edits": {name: _sha256(vector) for name, vector in edits.items()},
            "scorer": network_key(scorer), "identity": network_key(self.identity),
            "injection": self.cfg.diffusion.injection, **sampler_key(self.cfg, self.model),
        }  # fmt: skip

        def build(folder: Path) -> None:
            save_file(self._read(edits, seeds, scorer), folder / "readings.safetensors")

        folder = keep(self.cfg, "readings", key, build)
        tensors = load_file(folder / "readings.safetensors")
        return Readings(scorer, tuple(edits), seeds, unit=self.unit(scorer), **tensors)

    def sweep(
        self, vectors: Mapping[str, Tensor], strengths: Sequence[float] | None = None, *,
        seeds: Sequence[int] | None = None, by: Scorer | None = None,
    ) -> "Sweep":  # fmt: skip
        """Reads every vector (an offset at strength 1) at every strength; None is the configured ones."""
        strengths = tuple(strength for strength in (strengths or self.strengths) if strength != 0)
        edits = {f"{name} at {s:g}": s * vector for name, vector in vectors.items() for s in strengths}
        return Sweep(tuple(vectors), strengths, self.read(edits, seeds, by=by))

    def name(self, directions: Directions, strength: float) -> list[tuple[str, int] | None]:
        """Attribute and sign that the annotator sees each direction move most on calibration seeds, or None.

        By half the difference of the effects at +strength and -strength, in which damage that either sign does to an
        image drops out.
        """
        return name_components(self.odd_effects(directions, strength))

    def odd_effects(self, directions: Directions, strength: float) -> EffectMatrix:
        """Half the difference of the annotator's effects at +strength and -strength, on calibration seeds."""
        vectors = {str(j): vector for j, vector in enumerate(directions.directions)}
        seeds = self.seeds("calibration", CALIBRATION_SAMPLES)
        sweep = self.sweep(vectors, (strength, -strength), seeds=seeds, by=self.annotator)
        readings = sweep.readings
        plus, minus = (readings.edited[sweep.at(sign * strength)] for sign in (1, -1))
        visible = readings.visible[sweep.at(strength)] & readings.visible[sweep.at(-strength)]
        return effect_matrix(
            readings.original, readings.original + (plus - minus) / 2, attributes=readings.scorer.attributes,
            edits=sweep.labels, visible=visible, unit=self.unit(self.annotator), seed=self.cfg.seed,
            bootstrap=self.cfg.evaluation.bootstrap,
        )  # fmt: skip

    def _read(self, edits: Mapping[str, Tensor], seeds: tuple[int, ...], scorer: Scorer) -> dict[str, Tensor]:
        """The tensors of `Readings`; as many samples at a time, with all their edits, as make a batch."""
        parts = []
        for start in range(0, len(seeds), self.cfg.batch_size):
            images = self._images(edits, seeds[start : start + self.cfg.batch_size])
            rows = images.flatten(0, 1)
            scores, people = (
                score(network, rows).unflatten(0, images.shape[:2]) for network in (scorer, self.identity)
            )
            cosine = (people[:, 1:] * people[:, :1]).sum(-1)
            parts.append({"scores": scores, "cosine": cosine, "images": images[: max(SHOWN - start, 0)]})
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        scores = joined["scores"].transpose(0, 1).contiguous()
        return {
            "original": scores[0].clone(), "edited": scores[1:].clone(), "cosine": joined["cosine"].T.contiguous(),
            "images": joined["images"],
        }  # fmt: skip

    def _images(self, edits: Mapping[str, Tensor], seeds: tuple[int, ...]) -> Tensor:
        """The unedited samples and all edits, (n, 1 + E, C, H, W)."""
        latents, diffusion = self.model.latents(seeds), self.cfg.diffusion
        columns = [self.images(latents)[:, None]]
        # One pass holds offsets of one space.
        for group in _by_space(edits):
            space = "x_T" if tuple(group[0].shape) == self.model.sample_shape else "h"
            images = apply_offsets(
                self.model, latents, torch.stack(group), space=space, eta=diffusion.eta, injection=diffusion.injection,
                batch_size=self.cfg.batch_size,
            )  # fmt: skip
            columns.append(images)
        return torch.cat(columns, dim=1)


@dataclass(frozen=True)
class Result:
    """What came out of an experiment; everything that a report draws from.

    Attributes:
        conclusion: What came out, in one or two sentences with numbers.
        findings: The numbers, as JSON types.
        figures: Pictures by caption.
        tables: By file name.
        samples: Further files of scores by sample, by file name: columns and rows.
    """

    conclusion: str
    findings: dict[str, Any]
    figures: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    samples: dict[str, Table] = field(default_factory=dict)


def _by_space(edits: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Neighbouring edits of one space, together, in order."""
    groups: list[list[Tensor]] = []
    for offset in edits.values():
        if groups and groups[-1][0].shape == offset.shape:
            groups[-1].append(offset)
        else:
            groups.append([offset])
    return groups


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + tensor.float().contiguous().numpy().tobytes()).hexdigest()
