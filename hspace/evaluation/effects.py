"""Edits of samples, read by scorers: what each direction does, how surely, and whether the person stays the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.edits.sums import edit
from hspace.metrics.accuracy import edit_accuracy
from hspace.metrics.effect import EffectMatrix, effect_matrix, score_unit
from hspace.metrics.identity import identity_preservation
from hspace.metrics.interval import Interval
from hspace.system.files import write_atomic, write_json
from hspace.system.shards import SHARD, in_shards
from hspace.types import Embedder, Images, InputError, Scorer


@dataclass(frozen=True)
class Edits:
    """Samples, edited along each direction at each strength.

    Attributes:
        seeds: Of the samples, n of them.
        names: Of the directions, k of them.
        strengths: S of them, without 0.
        original: Unedited images, (n, C, H, W) in [-1, 1].
        edited: (k, S, n, C, H, W).
        reference: Unedited images, m >= n of them, whose spread is the unit of effects; the first n are `original`.
    """

    seeds: tuple[int, ...]
    names: tuple[str, ...]
    strengths: tuple[float, ...]
    original: Tensor
    edited: Tensor
    reference: Tensor

    def save(self, path: Path) -> None:
        """Write the images as safetensors, atomically, with the rest as JSON in its metadata."""
        facts = {"seeds": self.seeds, "names": self.names, "strengths": self.strengths}
        images = {"edited": self.edited.contiguous(), "reference": self.reference.contiguous()}
        with write_atomic(path) as temporary:
            save_file(images, temporary, metadata={"hspace": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> "Edits":
        """Inverse of `save`.

        Raises:
            InputError: If the file is missing or holds no edits.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = {name: tuple(values) for name, values in json.loads(file.metadata()["hspace"]).items()}
                edited, reference = (file.get_tensor(name) for name in ("edited", "reference"))
            return cls(**facts, original=reference[: len(facts["seeds"])], edited=edited, reference=reference)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} holds no edits: {error}") from error


@dataclass(frozen=True)
class Evaluation:
    """What one scorer and one identity encoder read off edits; arrays are (k, S) over directions and strengths.

    Attributes:
        scorer: Id of the scorer that judged.
        targets: Attribute and sign of each direction, or None where it has no name.
        strengths: S of them.
        effects: One matrix per strength, directions by attributes.
        accuracy: Share of edits that end on the asked side of the target; None without a target.
        identity: Mean cosine of the identity embeddings to the unedited sample.
    """

    scorer: str
    targets: tuple[tuple[str, int] | None, ...]
    strengths: tuple[float, ...]
    effects: tuple[EffectMatrix, ...]
    accuracy: tuple[tuple[Interval | None, ...], ...]
    identity: tuple[tuple[Interval, ...], ...]

    def save(self, path: Path) -> None:
        """Write everything as JSON, atomically; null stands for a number that does not exist."""
        write_json(path, {**vars(self), "effects": [matrix.to_dict() for matrix in self.effects]})

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Inverse of `save`.

        Raises:
            InputError: If the file is missing or holds no evaluation.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                scorer=values["scorer"],
                targets=tuple(target and (target[0], target[1]) for target in values["targets"]),
                strengths=tuple(values["strengths"]),
                effects=tuple(map(EffectMatrix.from_dict, values["effects"])),
                accuracy=tuple(tuple(cell and Interval(*cell) for cell in row) for row in values["accuracy"]),
                identity=tuple(tuple(Interval(*cell) for cell in row) for row in values["identity"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} holds no evaluation: {error}") from error


def edit_samples(
    model: DiffusionModel,
    directions: Directions,
    seeds: Sequence[int],
    *,
    strengths: Sequence[float],
    reference_seeds: Sequence[int] = (),
    eta: float | Sequence[float] = 1.0,
    injection: str = "symmetric",
    start: int = 0,
    stop: int | None = None,
    batch_size: int = 16,
    shards: Path | None = None,
) -> Edits:
    """Edits every sample along every direction at every strength.

    Args:
        model: The model that the directions belong to.
        directions: k directions.
        seeds: Of the samples.
        strengths: In the directions' unit; 0 is the unedited sample, which is always made, once.
        reference_seeds: Of further samples, left unedited, that add to the spread in which effects are counted.
        eta: Stochasticity, in [0, 1], one number or one per step.
        injection: `symmetric` or `asyrp`.
        start: First edited step, 0 is the noisiest.
        stop: Step before which the edit ends; None is the last.
        batch_size: Rows of one U-Net pass.
        shards: Folder that keeps what is finished for a later process to continue; none but these edits'.
    """
    nonzero = tuple(float(strength) for strength in strengths if strength != 0)
    all_seeds = list(dict.fromkeys([*seeds, *reference_seeds]))
    settings = {"eta": eta, "injection": injection, "start": start, "stop": stop, "batch_size": batch_size}

    def edited(name: str, n: int, component: int, strengths: Sequence[float]) -> Tensor:
        """(n, strengths, C, H, W) of the first n samples."""

        def make(rows: range) -> Tensor:
            latents = model.latents(all_seeds[rows.start : rows.stop])
            return edit(model, latents, directions, component=component, strengths=strengths, **settings)

        return in_shards(shards and shards / name, n, make, size=max(1, SHARD // len(strengths)))

    reference = edited("unedited", len(all_seeds), 0, [0.0])[:, 0]
    components = tqdm(range(len(directions.directions)), desc="edit", disable=None)
    images = [edited(f"direction-{j}", len(seeds), j, nonzero).transpose(0, 1) for j in components]
    original = reference[: len(seeds)]
    return Edits(tuple(seeds), directions.meta.names, nonzero, original, torch.stack(images), reference)


def odd_effects(edits: Edits, scorer: Scorer, *, seed: int, bootstrap: int = 1000) -> EffectMatrix:
    """Half the difference of the effects at +s and -s, s the largest strength given with both signs.

    What does not depend on the sign, such as damage to the image, drops out of it: a direction is named by this.

    Args:
        edits: Edits with at least one pair of strengths s and -s.
        scorer: Reads the attributes.
        seed: Of the bootstrap.
        bootstrap: Number of resamples.

    Raises:
        InputError: If no strength was given with both signs.
    """
    pairs = [s for s in edits.strengths if s > 0 and -s in edits.strengths]
    if not pairs:
        raise InputError(f"naming a direction needs strengths of both signs, such as [-2, 2], got {edits.strengths}")
    original = score(scorer, edits.original)
    plus, minus = (
        torch.stack([score(scorer, images[edits.strengths.index(sign * max(pairs))]) for images in edits.edited])
        for sign in (1.0, -1.0)
    )
    visible = scorer.visible(original) & _visible(scorer, plus) & _visible(scorer, minus)
    return effect_matrix(
        original, original + (plus - minus) / 2, attributes=scorer.attributes, edits=edits.names, visible=visible,
        unit=_unit(scorer, edits), seed=seed, bootstrap=bootstrap,
    )  # fmt: skip


def evaluate(
    edits: Edits,
    scorer: Scorer,
    identity: Embedder,
    targets: Sequence[tuple[str, int] | None],
    *,
    seed: int,
    bootstrap: int = 1000,
) -> Evaluation:
    """Judges edits.

    Args:
        edits: From `edit_samples`.
        scorer: The judge; never the scorer that chose the targets.
        identity: Identity encoder with unit-norm embeddings.
        targets: Attribute that each direction moves and the sign of its move at positive strength, or None.
        seed: Of the bootstrap.
        bootstrap: Number of resamples.
    """
    original, person, unit = score(scorer, edits.original), score(identity, edits.original), _unit(scorer, edits)
    effects, accuracy, same = [], [], []
    for i, strength in enumerate(edits.strengths):
        edited = torch.stack([score(scorer, images[i]) for images in edits.edited])
        visible = scorer.visible(original) & _visible(scorer, edited)
        effects.append(
            effect_matrix(
                original, edited, attributes=scorer.attributes, edits=edits.names, visible=visible, unit=unit,
                seed=seed, bootstrap=bootstrap,
            )
        )  # fmt: skip
        accuracy.append(
            tuple(
                target and _accuracy(scorer, original, edited[j], visible[j], target, strength)
                for j, target in enumerate(targets)
            )
        )
        same.append(tuple(identity_preservation(person, score(identity, images[i])) for images in edits.edited))
    return Evaluation(
        scorer=scorer.id,
        targets=tuple(targets),
        strengths=edits.strengths,
        effects=tuple(effects),
        accuracy=tuple(zip(*accuracy, strict=True)),
        identity=tuple(zip(*same, strict=True)),
    )


@torch.no_grad()
def score(network: Scorer | Embedder, images: Images, batch_size: int = 256) -> Tensor:
    """Scores or embeddings of many images, in batches."""
    return torch.cat([network(batch) for batch in images.split(batch_size)])


def _unit(scorer: Scorer, edits: Edits) -> Tensor:
    """Spread of each score over the reference samples, (attributes,)."""
    scores = score(scorer, edits.reference)
    return score_unit(scores, scorer.visible(scores))


def _visible(scorer: Scorer, scores: Tensor) -> Tensor:
    """Visibility for stacked scores, (k, n, attributes)."""
    return torch.stack([scorer.visible(rows) for rows in scores])


def _accuracy(
    scorer: Scorer, original: Tensor, edited: Tensor, visible: Tensor, target: tuple[str, int], strength: float
) -> Interval | None:
    """Share of the visible edits that end on the asked side; None where the target is nowhere visible."""
    column = scorer.attributes.index(target[0])
    seen = visible[:, column]
    if not bool(seen.any()):
        return None
    return edit_accuracy(
        original[seen, column], edited[seen, column], binary=scorer.binary[column], strength=strength * target[1]
    )
