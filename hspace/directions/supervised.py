"""Directions from examples: mean differences (eq. 11), linear boundaries, and differences of explicit pairs."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, extremes
from hspace.directions.record import Directions, DirectionsMeta
from hspace.system.shards import Batches
from hspace.types import InputError

CLASSIFIERS = {
    "logistic": lambda: LogisticRegression(max_iter=1000),
    "svm": lambda: LinearSVC(max_iter=10_000, random_state=0),
}
"""Linear classifiers of scikit-learn that `boundary` knows, with its default penalty."""


def supervised(
    model: DiffusionModel,
    annotations: Annotations,
    attribute: str,
    *,
    k: int,
    space: str = "h",
    balance: str | None = None,
    batch_size: int = 16,
) -> Directions:
    """Mean difference v = mean_i (q_i^+ - q_i^-), eq. 11, of the samples with most and least of an attribute.

    Args:
        model: The model of the annotations.
        annotations: Scored samples; the h of the chosen ones is generated again.
        attribute: What the direction is to change; binary or continuous, such as a pose.
        k: Examples on each side; h-space needs a few, x_T hundreds.
        space: What q is: `h`, h_{T:1}, or `x_T`.
        balance: An attribute in which the two sides are not to differ, see `extremes`.
        batch_size: Samples per pass.

    Returns:
        One direction of unit "difference": strength 1 goes from the mean of one side to that of the other.

    Raises:
        InputError: If the annotations are of another model, or the examples cannot be chosen, see `extremes`.

    Source: Haas et al. 2024, eq. 11.
    """
    annotations.check(model)
    examples = extremes(annotations, attribute, k, balance=balance)
    plus, minus = (
        torch.stack([codes.double().sum(0) for codes in _codes(model, seeds, annotations.eta, space, batch_size)])
        for seeds in (examples.plus, examples.minus)
    )
    difference = (plus.sum(0) - minus.sum(0)) / k
    method = f"supervised{_examples(annotations, balance)}"
    meta = _meta(model, space, annotations.eta, method, attribute, annotations.seeds, annotations.provenance.annotator)
    return Directions(difference.float()[None], meta)


def boundary(
    model: DiffusionModel,
    annotations: Annotations,
    attribute: str,
    *,
    k: int,
    space: str = "h",
    classifier: str = "logistic",
    joint: bool = False,
    balance: str | None = None,
    batch_size: int = 16,
) -> Directions:
    """The normal of the plane that separates the samples with most of an attribute from those with least.

    Its length is the distance of the two sides' means along it, so that strength 1 goes from the one to the other.
    Memory: 8 k · steps · d bytes, twice.

    Args:
        model: The model of the annotations.
        annotations: Scored samples; the h of the chosen ones is generated again.
        attribute: What the direction is to change; binary or continuous.
        k: Examples on each side.
        space: `h` or `x_T`.
        classifier: `logistic` or `svm`.
        joint: Whether one plane separates the whole trajectories; else each step has its own.
        balance: An attribute in which the two sides are not to differ, see `extremes`.
        batch_size: Samples per pass.

    Returns:
        One direction of unit "difference".

    Raises:
        InputError: If the classifier is unknown, the annotations are of another model, or the examples cannot be
            chosen, see `extremes`.

    Source: Shen et al. 2020 (arXiv 1907.10786), sec. 3.2, in another space.
    """
    annotations.check(model)
    if classifier not in CLASSIFIERS:
        raise InputError(f"classifier must be one of {', '.join(CLASSIFIERS)}, got {classifier}")
    examples = extremes(annotations, attribute, k, balance=balance)
    codes = torch.cat(list(_codes(model, examples.plus + examples.minus, annotations.eta, space, batch_size)))
    shape = codes.shape[1:]
    groups = codes.flatten(2) if space == "h" and not joint else codes.flatten(1)[:, None]
    normal = torch.stack([_normal(points[:k], points[k:], classifier) for points in groups.unbind(1)])
    method = f"boundary {classifier}{' joint' if joint else ''}{_examples(annotations, balance)}"
    meta = _meta(model, space, annotations.eta, method, attribute, annotations.seeds, annotations.provenance.annotator)
    return Directions(normal.reshape(1, *shape), meta)


def from_pairs(
    model: DiffusionModel,
    plus: Mapping[str, Tensor],
    minus: Mapping[str, Tensor],
    *,
    name: str,
    eta: float | Sequence[float],
    seeds: Sequence[int] = (),
) -> Directions:
    """Mean difference v = mean_i (h_i^+ - h_i^-), eq. 11, of explicit pairs, such as two photographs of each person.

    Args:
        model: The model whose h it is.
        plus: By the pair's id: h of the one with more of what the direction is to change, (steps, C, H, W).
        minus: By the pair's id: h of the other.
        name: What the direction changes.
        eta: Of the trajectories, one value or one per step; 0 where h was recorded during a DDIM inversion.
        seeds: Sample seeds of the pairs, if they are generated.

    Returns:
        One direction of unit "difference".

    Raises:
        InputError: If there is no pair, one lacks its partner (it is named), or h is of another shape.

    Source: Haas et al. 2024, eq. 11 and fig. 17.
    """
    alone = sorted(set(plus) ^ set(minus))
    if alone or not plus:
        raise InputError(f"every id must have an h in plus and in minus, missing one: {', '.join(alone[:5]) or 'all'}")
    wanted = (len(model.process.timesteps), *model.h_shape)
    for pair, h in (*plus.items(), *minus.items()):
        if tuple(h.shape) != wanted:
            raise InputError(f"h of pair {pair!r} must be {wanted} for this model, got {tuple(h.shape)}")
    total = torch.zeros(wanted, dtype=torch.float64)
    for pair in plus:
        total += plus[pair].cpu().double() - minus[pair].cpu().double()
    meta = _meta(model, "h", model.process.etas(eta), "pairs", name, tuple(seeds))
    return Directions((total / len(plus)).float()[None], meta)


def _codes(
    model: DiffusionModel, seeds: Sequence[int], eta: Sequence[float], space: str, batch_size: int
) -> Iterator[Tensor]:
    """Codes q of the samples in batches, on the CPU: h (batch, steps, C, H, W), or x_T (batch, C, H, W)."""
    if space not in ("h", "x_T"):
        raise InputError(f"space must be h or x_T, got {space}")

    def make(rows: range) -> Tensor:
        latents = model.latents([seeds[row] for row in rows])
        codes = latents.x_T if space == "x_T" else sample(model, latents, eta=eta, record_h=True).h
        assert codes is not None
        return codes.float().cpu()

    for _, codes in Batches(batch_size)(range(len(seeds)), make):
        yield codes


def _normal(plus: Tensor, minus: Tensor, classifier: str) -> Tensor:
    """Normal (d,) of the plane between two groups (k, d), as long as their means are apart along it."""
    # The mean is taken off, since an intercept that must reach far is penalised by LinearSVC.
    points = torch.cat([plus, minus])
    points = points - points.mean(0)
    labels = [1] * len(plus) + [0] * len(minus)
    fitted = CLASSIFIERS[classifier]().fit(points.numpy(), labels)
    normal = torch.from_numpy(fitted.coef_[0]).float()
    normal = normal / normal.norm()
    return normal * ((plus.mean(0) - minus.mean(0)) @ normal)


def _examples(annotations: Annotations, balance: str | None) -> str:
    """How the examples were chosen, in words."""
    return f"{f', {balance} balanced' if balance else ''}, annotated by {annotations.scorer}"


def _meta(
    model: DiffusionModel,
    space: str,
    eta: tuple[float, ...],
    method: str,
    name: str,
    seeds: tuple[int, ...],
    annotator: dict[str, str] | None = None,
) -> DirectionsMeta:
    return DirectionsMeta(
        space=space,
        provenance=model.provenance(eta=eta, annotator=annotator),
        model_id=model.model_id,
        method=method,
        names=(name,),
        unit="difference",
        seeds=seeds,
    )
