# pyright: strict, reportUnknownMemberType=false
"""Scored samples, and the choice of examples among them; h is not in them, since a seed generates it again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import as_seeds
from hspace.diffusion.provenance import Provenance
from hspace.diffusion.recording import Recorded
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.matching import match_pairs
from hspace.scorers.identity import scorer_identity
from hspace.system import distributed
from hspace.system.progress import bar
from hspace.system.records import (
    Rule,
    are_counts,
    are_labels,
    check_facts,
    check_names,
    is_list,
    is_tuple,
    load_record,
    save_record,
)
from hspace.system.shards import Batches, in_shards
from hspace.types import Images, InputError, LogitScorer, Scorer, Scores, Seeds

THIRD = 1 / 3
"""Share of the samples with most, and with least, of a continuous attribute that are matched."""
RULES: dict[str, Rule] = {
    "seeds": (are_counts, "integers >= 0"),
    "attributes": (are_labels, "names"),
    "binary": (lambda values: is_tuple(values) and all(type(value) is bool for value in values), "booleans"),
    "provenance": (lambda value: isinstance(value, dict), "an object"),
}
"""What each fact in a file of annotations may be, and how to say so."""


@dataclass(frozen=True)
class Annotations:
    """Scores of generated samples, with all that generates these samples again.

    Attributes:
        seeds: Seeds of the samples, n different ones.
        attributes: Ids of the A attributes, one per column.
        binary: Whether each column holds probabilities.
        scores: Scores, (n, A) float32.
        visible: Visibility, (n, A) bool; a score means nothing where it is False.
        provenance: Model, conditioning, process and eta of the samples, and the scorer.
        logits: Scores before the sigmoid, (n, A) float32, which do not saturate; None if the scorer has none.
    """

    seeds: tuple[int, ...]
    attributes: tuple[str, ...]
    binary: tuple[bool, ...]
    scores: Tensor
    visible: Tensor
    provenance: Provenance
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises InputError where lengths do not fit, a seed is there twice, or a score is not finite."""
        shape = (len(self.seeds), len(self.attributes))
        if tuple(self.scores.shape) != shape or tuple(self.visible.shape) != shape or len(self.binary) != shape[1]:
            raise InputError(f"scores and visible must be {shape}, got {[*self.scores.shape]}, {[*self.visible.shape]}")
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds must differ, got {len(self.seeds)} seeds of which {len(set(self.seeds))} differ")
        if self.sort_keys.shape != self.scores.shape:
            raise InputError(f"logits must be {shape}, got {tuple(self.sort_keys.shape)}")
        if not (self.scores.isfinite().all() and self.sort_keys.isfinite().all()):
            raise InputError("scores must be finite, got nan or inf")
        if self.provenance.annotator is None or self.provenance.eta is None:
            raise InputError("the provenance of annotations must name the annotator and eta")

    @property
    def sort_keys(self) -> Tensor:
        """Values that samples are sorted by, (n, A): the logits, or the scores where there are no logits."""
        return self.scores if self.logits is None else self.logits

    @property
    def scorer(self) -> str:
        """Id of the scorer."""
        return (self.provenance.annotator or {})["id"]

    @property
    def eta(self) -> tuple[float, ...]:
        """Stochasticity of each step, in [0, 1]."""
        return self.provenance.eta or ()

    def save(self, path: str | Path) -> None:
        """Write scores and visibility as safetensors, atomically, with the rest as JSON in its metadata."""
        facts = {name: getattr(self, name) for name in ("seeds", "attributes", "binary")}
        tensors = {"scores": self.scores, "visible": self.visible, "logits": self.logits}
        save_record(path, tensors, facts | {"provenance": self.provenance.to_dict()})

    @classmethod
    def load(cls, path: str | Path) -> "Annotations":
        """Inverse of `save`, of a file that anyone may have written.

        Raises:
            InputError: If the file is missing or does not hold annotations.
        """

        def parse(facts: dict[str, Any], tensors: dict[str, Tensor]) -> Annotations:
            given: dict[str, Any] = {name: tuple(value) if is_list(value) else value for name, value in facts.items()}
            check_facts(given, RULES, "annotations")
            check_names(tensors, {"scores", "visible"}, {"logits"})
            if {t.dtype for name, t in tensors.items() if name != "visible"} != {torch.float32}:
                raise InputError("scores and logits must be float32")
            if tensors["visible"].dtype != torch.bool:
                raise InputError("visible must be bool")
            given |= tensors | {"provenance": Provenance.from_dict(given["provenance"])}
            return cls(**given)

        return load_record(path, "annotations", parse)

    def check(self, model: DiffusionModel, allow: Sequence[str] = ()) -> tuple[str, ...]:
        """Check that the seeds generate the scored samples on this model; see `Provenance.check`.

        Raises:
            InputError: If they do not fit, with the annotations' value and the model's.
        """
        return self.provenance.check(model.provenance(tap=False), "annotations", allow)

    def column(self, attribute: str) -> int:
        """Index of an attribute's column.

        Raises:
            InputError: If the attribute was not scored.
        """
        if attribute not in self.attributes:
            raise InputError(f"unknown attribute {attribute!r}, {self.scorer} scores {', '.join(self.attributes)}")
        return self.attributes.index(attribute)


@dataclass(frozen=True)
class Examples:
    """Seeds of the samples with most (`plus`) and least (`minus`) of an attribute, k of each, no seed in both."""

    plus: tuple[int, ...]
    minus: tuple[int, ...]


def scores_and_keys(scorer: Scorer, images: Images) -> tuple[Scores, Tensor]:
    """Scores of images in [-1, 1] and the values that they are sorted by, (batch, attributes) each, from one pass.

    The latter are the logits, where the scorer has them.
    """
    if not isinstance(scorer, LogitScorer):
        scores = scorer(images).float().cpu()
        return scores, scores
    logits = scorer.logits(images).float().cpu()
    return torch.where(torch.tensor(scorer.binary), logits.sigmoid(), logits), logits


@torch.no_grad()
def annotate(
    model: DiffusionModel,
    seeds: Seeds,
    scorer: Scorer,
    *,
    sampler: Sampler = Sampler(),
    shards: Path | None = None,
    images: Tensor | None = None,
) -> Annotations:
    """Generate samples and keep their scores.

    Args:
        model: The model to sample.
        seeds: Different seeds, one per sample; the paper's code takes 10,000.
        scorer: Annotator; it must not be the judge of edits made with the examples that it chooses.
        sampler: Settings whose eta and batch size are taken.
        shards: Folder for finished parts, from which a later process continues; it belongs to this call alone.
        images: Images of these samples, (n, channel, height, width), where they have been generated before.

    Raises:
        InputError: If a seed is there twice, or an argument is out of range.
    """
    seeds, batches = as_seeds(seeds), Batches(sampler.batch_size)

    def drawn(rows: range) -> Tensor:
        if images is not None:
            return images[rows.start : rows.stop]
        return sample(model, model.latents(seeds[rows.start : rows.stop]), sampler=sampler).x_0.float().cpu()

    def score(rows: range) -> Tensor:
        scores, keys = scores_and_keys(scorer, drawn(rows))
        return torch.stack([scores, keys] if isinstance(scorer, LogitScorer) else [scores], dim=1)

    def make(rows: range) -> Tensor:
        return torch.cat([scores for _, scores in batches(rows, score)])

    with bar(stage="annotate", total=len(seeds)) as progress:
        table = in_shards(shards, len(seeds), make, made=progress.update)
    return Annotations(
        seeds=seeds,
        attributes=tuple(scorer.attributes),
        binary=tuple(scorer.binary),
        scores=table[:, 0].contiguous(),
        visible=scorer.visible(table[:, 0]),
        provenance=model.provenance(eta=sampler.eta, tap=False, annotator=scorer_identity(scorer)),
        logits=table[:, 1].contiguous() if table.shape[1] > 1 else None,
    )


def extremes(annotations: Annotations, attribute: str, k: int, *, match: Sequence[str] = ()) -> Examples:
    """The k samples with the highest and the k with the lowest score of an attribute, among those that show it.

    The order is that of the logits, where the scorer has them, since many probabilities are 0 or 1. Equal values are
    put in a random order, which is always the same.

    Args:
        annotations: Scored samples.
        attribute: Attribute in which the examples differ; binary or continuous.
        k: Number of examples on each side.
        match: Attributes in which the two sides are to be alike. Then each of the k samples with most of the attribute
            that has one is taken with a sample without the attribute that is as likely to have it, given the attributes
            to match; see `match_pairs`. With and without are above and below .5, or the upper and the lower third of a
            continuous attribute.

    Raises:
        InputError: If an attribute is unknown, k is less than 1, there are fewer than 2 k samples or k pairs, or the
            two sides would not differ: a binary attribute has fewer than k samples above or below .5, or a continuous
            one is constant.

    Source: Haas et al. 2024, sec. V-A; the matching is ours.
    """
    column = annotations.column(attribute)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    others = [annotations.column(name) for name in match]
    rows = _shuffled(torch.nonzero(annotations.visible[:, [column, *others]].all(dim=1))[:, 0])
    if match:
        plus, minus = _matched(annotations, rows, column, others, k)
    else:
        plus, minus = _ends(annotations, rows, column, k)
    return Examples(*(tuple(annotations.seeds[row] for row in side) for side in (plus, minus)))


def _matched(
    annotations: Annotations, rows: Tensor, column: int, others: Sequence[int], k: int
) -> tuple[list[int], list[int]]:
    """The first k pairs of rows with and without an attribute that are alike in others, those with most of it first."""
    rows = rows[annotations.sort_keys[rows, column].argsort(descending=True, stable=True)]
    values = annotations.scores[rows, column]
    fixed = annotations.binary[column] or len(rows) == 0
    low, high = (0.5 if fixed else float(values.quantile(end)) for end in (THIRD, 1 - THIRD))
    treated, control = rows[values > high], rows[values <= low]
    scores = annotations.scores[:, list(others)].double().numpy()
    both = len(treated) > 0 and len(control) > 0
    pairs = match_pairs(scores[treated.numpy()], scores[control.numpy()]) if both else []
    if len(pairs) < k:
        names = [annotations.attributes[each] for each in (column, *others)]
        raise InputError(
            f"{k} pairs with and without {names[0]} are needed that are alike in {', '.join(names[1:])}, and "
            f"{len(pairs)} are there: lower k, or annotate more samples"
        )
    plus, minus = zip(*pairs[:k], strict=True)
    return list(map(int, treated[list(plus)])), list(map(int, control[list(minus)]))


def _shuffled(rows: Tensor) -> Tensor:
    """The rows in a random order, which is always the same for a given number of rows."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def _ends(annotations: Annotations, rows: Tensor, column: int, k: int) -> tuple[list[int], list[int]]:
    """The k of `rows` that score highest and the k that score lowest."""
    name = annotations.attributes[column]
    if 2 * k > len(rows):
        raise InputError(f"{k} examples on each side need {2 * k} samples, {len(rows)} show {name}")
    scores = annotations.scores[rows, column]
    order = annotations.sort_keys[rows, column].argsort(descending=True, stable=True)
    highest, lowest = order[:k], order[-k:]
    bound = 0.5 if annotations.binary[column] else float(scores[lowest].max())
    if not scores[highest].min() > bound >= scores[lowest].max():
        above = int((scores > bound).sum())
        reason = f"{above} of {len(rows)} samples are above {bound:g}"
        raise InputError(f"{k} examples on each side do not differ in {name}: {reason}")
    return list(map(int, rows[highest])), list(map(int, rows[lowest]))


def steps_of(model: DiffusionModel, recorded: Recorded, annotations: Annotations) -> Iterator[Tensor]:
    """H of the annotated samples at each step, (n, d) float64.

    Raises:
        InputError: If h or scores are of another model, the samples or their eta differ, or several processes run.
    """
    annotations.check(model)
    recorded.provenance.check(model.provenance(), "recorded samples")
    return steps_together(recorded, annotations)


def steps_together(recorded: Recorded, annotations: Annotations) -> Iterator[Tensor]:
    """H of the annotated samples at each step, (n, d) float64, of whichever model both are of.

    Raises:
        InputError: If the models, the samples or their eta differ, or several processes run.
    """
    check_together(recorded, annotations)
    return (torch.from_numpy(h.astype("float64")) for h in recorded.open())


def check_together(recorded: Recorded, annotations: Annotations) -> None:
    """Checks that h and scores are of the same samples, row by row.

    Raises:
        InputError: If the models, the samples or their eta differ, or several processes run.
    """
    recorded.provenance.check(annotations.provenance, "recorded samples")
    if distributed.world() > 1:
        raise InputError(f"h and its scores are read together by one process, got {distributed.world()}")
    if tuple(recorded.seeds) != tuple(annotations.seeds):
        raise InputError("h and scores must be of the same samples, got different seeds")
