# pyright: strict, reportUnknownMemberType=false
"""What edits of h are trained for: losses on the predicted image, by a scorer or by prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.annotations import Annotations
from hspace.metrics.effect import score_unit
from hspace.types import InputError, LogitScorer, Scorer, TextScorer

SHORT = 0.05
"""A shorter change of a unit vector has no direction yet: its cosine is taken as if it were so long."""


@runtime_checkable
class Objective(Protocol):
    """What an edit is trained for."""

    def loss(self, model: DiffusionModel, edited: Tensor, plain: Tensor) -> Tensor:
        """The loss of each sample, (batch,), of predicted images after and before the edit, in the model's space."""
        ...


@dataclass(frozen=True)
class Aim:
    """A rise of one score while others stay; scores are those that the annotator sorts by, in standard deviations.

    Attributes:
        scorer: The annotator, through which gradients must pass.
        column: Index of the attribute that is to rise.
        held: Indices of the attributes that are to stay.
        sd: Standard deviation of each score over the annotated samples, (attributes,).
        target: Wanted rise, in standard deviations.
        hold: Weight of the held attributes.
        likeness: Weight of the change of the image.
    """

    scorer: Scorer
    column: int
    held: tuple[int, ...]
    sd: Tensor
    target: float
    hold: float
    likeness: float

    def loss(self, model: DiffusionModel, edited: Tensor, plain: Tensor) -> Tensor:
        """(rise - target)² + hold · mean of (change of a held score)² + likeness · mean of |P' - P|."""
        after, before = (scores_of(self.scorer, self.sd, model.codec.decode(each)) for each in (edited, plain))
        change = after - before
        missing = (change[:, self.column] - self.target).square()
        held = change[:, list(self.held)].square().mean(dim=1) if self.held else torch.zeros_like(missing)
        return missing + self.hold * held + self.likeness * _distance(edited, plain).to(missing)


@dataclass(frozen=True)
class TextAim:
    """A change of the image in the direction from one prompt to another, in the space of both.

    Attributes:
        scorer: The annotator, whose embeddings of images and texts compare.
        direction: Direction between the prompts, a unit vector, (dim,).
        held: Directions of what is to stay, unit vectors, (m, dim), each without its part along `direction`.
        hold: Weight of what is held.
        likeness: Weight of the change of the image.
    """

    scorer: TextScorer
    direction: Tensor
    held: Tensor
    hold: float
    likeness: float

    def loss(self, model: DiffusionModel, edited: Tensor, plain: Tensor) -> Tensor:
        """1 - cos(change, direction) + hold · mean of cos(change, held)² + likeness · mean of |P' - P|.

        Source: Kwon et al. 2023 (arXiv 2210.10960), eq. 9, after Gal et al. 2021 (arXiv 2108.00946). Ours: what is
        held, and a change shorter than `SHORT` counts as so long, since the cosine of no change does not exist.
        """
        after, before = (self.scorer.embed(model.codec.decode(each).float().cpu()) for each in (edited, plain))
        change = after - before
        change = change / change.square().sum(dim=1, keepdim=True).clamp(min=SHORT**2).sqrt()
        missing = 1 - change @ self.direction
        held = (change @ self.held.T).square().mean(dim=1) if len(self.held) else torch.zeros_like(missing)
        return missing + self.hold * held + self.likeness * _distance(edited, plain).to(missing)


def score_aim(
    scorer: Scorer,
    annotations: Annotations,
    attribute: str,
    *,
    target: float = 1.0,
    conditions: Sequence[str] | None = None,
    hold: float = 1.0,
    likeness: float = 1.0,
) -> Aim:
    """The aim that a score rises by `target` standard deviations while others stay; None holds all others.

    Raises:
        InputError: If an attribute is unknown, or the one that is to rise does not vary.
    """
    column = annotations.column(attribute)
    held = tuple(annotations.column(name) for name in _others(annotations.attributes, attribute, conditions))
    if not score_unit(annotations.sort_keys, annotations.visible)[column] > 0:
        raise InputError(f"{attribute} must vary over the samples, got the same score for all of them")
    return Aim(scorer, column, held, unit_of(annotations), target, hold, likeness)


def text_aim(
    scorer: Scorer,
    attribute: str,
    *,
    prompts: tuple[str, str] | None = None,
    conditions: Sequence[str] | None = None,
    hold: float = 1.0,
    likeness: float = 1.0,
) -> TextAim:
    """The aim that images move as two prompts differ: those given, or the scorer's own of the attribute.

    Raises:
        InputError: If the scorer reads no texts, an attribute is not among those that it has prompts for, or two
            prompts mean the same to it.
    """
    if not isinstance(scorer, TextScorer):
        raise InputError(f"method.loss=direction needs an annotator of texts, clip:MODEL, and {scorer.id} reads none")
    names = scorer.attributes
    others = _others(names, attribute, conditions)
    for name in (*others, *([] if prompts else [attribute])):
        if name not in names:
            raise InputError(f"{scorer.id} has no prompts for {name}, only for {', '.join(names)}; see method.prompts")
    pair = scorer.encode(prompts) if prompts else scorer.prompts[names.index(attribute)]
    own = _between(pair[None], f"the prompts of {attribute}")[0]
    held = [scorer.prompts[names.index(name)] for name in others]
    if not held:
        return TextAim(scorer, own, own.new_empty(0, len(own)), hold, likeness)
    directions = _between(torch.stack(held), "the prompts of what is held")
    directions = F.normalize(directions - (directions @ own)[:, None] * own, dim=1)
    return TextAim(scorer, own, directions, hold, likeness)


def _between(pairs: Tensor, what: str) -> Tensor:
    """Unit vectors from the second to the first of pairs, (m, 2, dim) to (m, dim)."""
    difference = pairs[:, 0] - pairs[:, 1]
    if not (difference.norm(dim=1) > 1e-6).all():
        raise InputError(f"{what} must differ to the annotator, and two of them mean the same to it")
    return F.normalize(difference, dim=1).cpu()


def _others(attributes: Sequence[str], attribute: str, conditions: Sequence[str] | None) -> list[str]:
    return [name for name in attributes if name != attribute] if conditions is None else list(conditions)


def _distance(edited: Tensor, plain: Tensor) -> Tensor:
    """The mean absolute change of each sample, (batch,)."""
    return (edited - plain).abs().flatten(1).mean(dim=1)


def scores_of(scorer: Scorer, sd: Tensor, images: Tensor) -> Tensor:
    """Scores that the scorer sorts images by, in standard deviations, (batch, attributes)."""
    images = images.float().cpu()
    read = scorer.logits if isinstance(scorer, LogitScorer) else scorer
    return read(images) / sd


def unit_of(annotations: Annotations) -> Tensor:
    """Standard deviation of each score that samples are sorted by, (attributes,); 1 of one that does not vary."""
    sd = score_unit(annotations.sort_keys, annotations.visible).float()
    return torch.where(sd > 0, sd, torch.ones_like(sd))
