"""One place of a network, with its directions: mean differences of attributes, and principal components."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, Examples, extremes
from hspace.directions.solvers import gram_pca
from hspace.evaluation.readings import Readings
from hspace.experiments.doses import Dose, read_doses
from hspace.runs.lab import Lab
from hspace.system.shards import Batches
from hspace.types import InputError, Scorer


@dataclass(frozen=True)
class Place:
    """One place of one model.

    Attributes:
        model: Name of the model, in tables.
        tap: Name of the tap.
        lab: The run, with the model tapped here.
        annotations: The annotator's scores of the discovery samples.
        units: Standard deviation of each score over unedited samples of the model, by the scorer's id.
    """

    model: str
    tap: str
    lab: Lab
    annotations: Annotations
    units: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """Such as "transformer block:3"."""
        return f"{self.model} {self.tap}"

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes that have a direction."""
        return self.lab.cfg.study.attributes


def find(place: Place) -> Tensor:
    """Directions: a mean difference of examples for each attribute, then the components of h of all steps together.

    Returns:
        (attributes + k, steps, *h_shape). Of a mean difference strength 1 is as long as the samples' spread, the root
        of the total variance of h; of a component it is a standard deviation.

    Raises:
        InputError: If there are fewer annotated samples than components need.

    Source: Haas et al. 2024, eq. 11 and sec. IV-A.
    """
    lab, study = place.lab, place.lab.cfg.study
    k, n = lab.pca.k, lab.pca.num_samples
    if not k < n <= study.index:
        raise InputError(
            f"method.num_samples must be above method.k={k} and at most study.index={study.index}, got {n}"
        )
    examples = [extremes(place.annotations, name, study.examples) for name in place.attributes]
    key = {"examples": [[each.plus, each.minus] for each in examples], "components": [k, n]}
    # One row, since all come of one pass over the samples: processes share these, and not the directions.
    found = lab.kept("find", 1, lambda _: _directions(place, examples, k, n)[None], size=1, **key)[0]
    return found.unflatten(1, (-1, *lab.model.h_shape))


def _directions(place: Place, examples: Sequence[Examples], k: int, n: int) -> Tensor:
    """(attributes + k, steps · d), from one pass over all samples that take part."""
    model, sampler = place.lab.model, place.lab.sampler
    chosen = (seed for each in examples for seed in (*each.plus, *each.minus))
    seeds = tuple(dict.fromkeys((*place.annotations.seeds[:n], *chosen)))
    # Metal has no float64.
    where = "cpu" if model.device.type == "mps" else model.device
    weights = torch.stack([_weights(each, seeds) for each in examples]).to(where)

    def make(rows: range) -> Tensor:
        h = sample(model, model.latents(seeds[rows.start : rows.stop]), sampler=sampler, record_h=True).h
        assert h is not None
        return h.flatten(1).to(where)

    differences, kept = 0.0, []
    for rows, h in Batches(sampler.batch_size)(range(len(seeds)), make):
        differences = differences + weights[:, rows.start : rows.stop] @ h.double()
        kept.append(h[: max(n - rows.start, 0)])
    assert isinstance(differences, Tensor)
    components, spread = joint_components(torch.cat(kept), k)
    scaled = spread * differences / differences.norm(dim=1, keepdim=True)
    return torch.cat([scaled.float().cpu(), components])


def _weights(examples: Examples, seeds: Sequence[int]) -> Tensor:
    """Weight of each sample in a mean difference, (n,) float64."""
    plus, minus = set(examples.plus), set(examples.minus)
    signs = [(seed in plus) - (seed in minus) for seed in seeds]
    return torch.tensor(signs, dtype=torch.float64) / len(plus)


def joint_components(h: Tensor, k: int) -> tuple[Tensor, float]:
    """Principal components of many vectors, each as long as its standard deviation, and the root of the total variance.

    Args:
        h: Vectors, (n, d).
        k: Number of components, under n.

    Returns:
        (k, d), on the CPU, and the spread.

    Raises:
        InputError: If fewer than k components have variance.
    """
    vectors = h.float().cpu()
    found = gram_pca(vectors[None].numpy(), k)
    spread = float(vectors.var(dim=0).sum(dtype=torch.float64).sqrt())
    return found.components * found.explained_variance.sqrt()[:, None].float(), spread


def readings(
    place: Place, vectors: Tensor, doses: Mapping[str, Dose], seeds: Sequence[int], scorer: Scorer
) -> Readings:
    """Readings of edits by name; the judge's come with those of the encoders of a person."""
    lab = place.lab
    judging = scorer is lab.judge
    encoders = [each for each in (lab.identity, lab.likeness) if each is not None and judging]
    values = read_doses(lab, vectors, list(doses.values()), seeds, [scorer, *encoders])
    scores, *people = values.split([len(scorer.attributes), *(each.dim for each in encoders)], dim=2)
    nothing = torch.empty(len(seeds), 1 + len(doses), 0)
    return Readings(
        scorer, tuple(doses), tuple(seeds), scores[:, 0], scores[:, 1:].transpose(0, 1),
        people[0] if people else nothing, nothing, place.units[scorer.id], people[1] if len(people) > 1 else None,
    )  # fmt: skip
