# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""PCA of h per step or of whole trajectories: principal components as directions, with their signs."""

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.optimize import linear_sum_assignment  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import Recorded
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.rotation import Rotation, rotated
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.directions.solvers import StepPCA, solver
from hspace.system import distributed
from hspace.types import InputError

logger: logging.Logger = logging.getLogger(__name__)

BROKEN = 0.3
"""|correlation| of neighbouring steps under which a component is no longer one direction."""


class ComponentSettings(Settings):
    """Settings that all methods of principal components share."""

    k: int = Field(8, ge=1)
    """Components kept; a strength is in standard deviations."""
    num_samples: int = Field(500, ge=2, le=MAX_SAMPLES)
    """Samples generated to discover with."""

    @model_validator(mode="after")
    def _check_rank(self) -> "ComponentSettings":
        if self.k >= self.num_samples:
            raise ValueError(
                f"k must be below method.num_samples={self.num_samples} (n samples span n - 1 components), got {self.k}"
            )
        return self

    def count(self) -> int:
        """Number of directions."""
        return self.k


class PcaSettings(ComponentSettings):
    """Settings of `method=pca`."""

    joint: bool = True
    """Whether all steps share one PCA."""

    rotation: Rotation | None = "varimax"
    """How joint components are rotated, varimax or ica; null leaves them as they are."""

    matched: bool = False
    """Whether components of single steps are paired by the same samples' projections, and not by their rank."""

    @model_validator(mode="after")
    def _check_form(self) -> "PcaSettings":
        if self.rotation and not self.joint:
            raise ValueError(f"rotation={self.rotation} needs method.joint=true: steps would be rotated apart")
        if self.matched and self.joint:
            raise ValueError("matched=true needs method.joint=false: joint components are of all steps already")
        return self


PER_STEP: Mapping[str, Any] = {"name": "pca", "joint": False, "rotation": None}
"""The paper's form, as settings."""


@method("pca", settings=PcaSettings, varying=True)
def find(model: DiffusionModel, sources: Sources, settings: PcaSettings) -> Directions:
    """Principal components of h per step, or of whole trajectories: global directions, found without labels.

    Source: Haas et al. 2024, sec. IV-A, figs. 3 and 4.
    """
    return components_of(model, sources, settings)


def components_of(model: DiffusionModel, sources: Sources, settings: PcaSettings) -> Directions:
    """The principal components that settings ask for, of a run's samples."""
    return pca(
        sources.recorded(settings.num_samples), model, k=settings.k, joint=settings.joint, rotation=settings.rotation,
        matched=settings.matched, memory=sources.memory,
    )  # fmt: skip


def pca(
    recorded: Recorded,
    model: DiffusionModel,
    *,
    k: int,
    joint: bool = False,
    rotation: Rotation | None = None,
    matched: bool = False,
    memory: int | None = None,
) -> Directions:
    """Principal components of h_t at every step; direction j is the j-th component of all steps.

    For a recording around one sample (`collect_around`) they are that sample's own, local components.

    Strength is in standard deviations: directions[j, i] = component * sqrt(explained variance) of step i. The mean is
    saved and is not part of an edit.

    Signs: each step agrees with the step before it, by the correlation of the same samples' projections (an inner
    product means little once a component has turned); at step 0 the entry of largest magnitude is positive.

    Args:
        recorded: Recorded h of n samples, (steps, n, d) on disk, of which one piece at a time is in memory. Each of
            several processes gives its own samples, and all get the same directions.
        model: The model that h was recorded on.
        k: Number of components, at most n - 1 and d.
        joint: Whether to take the components of the concatenated trajectory h_{T:1} instead. A standard deviation is
            then that of the whole trajectory, and there is no correlation to report.
        rotation: `varimax` or `ica` of the k joint components; see `directions.rotation`.
        matched: Whether to pair the components of neighbouring steps by the |correlation| of the same samples'
            projections (the assignment of the largest sum), from the step that agrees best with its neighbours on. Else
            the j-th components of all steps belong together, as published.
        memory: Bytes that a step may take, which decide the chunks and, where necessary, the solver. None is 64 MB
            beside what the solvers need.

    Returns:
        k directions of unit "std". A component whose |correlation| falls under .3 is reported.

    Raises:
        InputError: If k is not in range, components of single steps are to be rotated or joint ones to be matched, h
            has fewer than k components with variance, or h is from another model.

    Source: Haas et al. 2024, sec. IV-A; their signs follow the inner product with step 0, ours the samples.
    """
    recorded_seeds = tuple(itertools.chain(*distributed.gathered(recorded.seeds)))
    _check(recorded, model, k, len(recorded_seeds))
    features = recorded.open()
    solve, chunk = solver(features.shape[1], memory)
    parts = [features] if joint else [features[i : i + 1] for i in range(len(features))]
    if rotation and not joint:
        raise InputError(f"rotation={rotation} needs joint=True: steps would be rotated apart")
    if matched and joint:
        raise InputError("matched=True needs joint=False: joint components are of all steps already")
    found = (solve(part, k, chunk) for part in parts)
    solved = list(_aligned((rotated(each, rotation) for each in found) if rotation else _in_pairs(found, matched)))
    solutions = [solution for solution, _ in solved]
    components = torch.stack([solution.components for solution in solutions], dim=1)
    variance = torch.stack([solution.explained_variance for solution in solutions], dim=1).float()
    residuals = torch.stack([solution.residuals for solution in solutions], dim=1).float()
    correlation = torch.stack([correlation for _, correlation in solved], dim=1)[:, 1:].float().contiguous()
    shape = (len(features), *recorded.h_shape)
    form = f"pca{' joint' if joint else ''}{f' {rotation}' if rotation else ''}{' matched' if matched else ''}"
    directions = Directions(
        directions=(components * variance.sqrt()[..., None]).reshape(k, *shape),
        meta=_meta(recorded, model, k, form, recorded_seeds),
        mean=torch.stack([solution.mean for solution in solutions]).reshape(shape),
        explained_variance=variance[:, 0] if joint else variance,
        residuals=residuals[:, 0] if joint else residuals,
        correlation=None if joint else correlation,
    )
    if broken := broken_components(directions):
        logger.warning(
            "%d of %d components are broken, not one direction at all steps: their correlation between neighbouring "
            "steps falls under %g (%s); components of all steps together (joint) cannot break", len(broken), k, BROKEN,
            ", ".join(map(str, broken)),
        )  # fmt: skip
    return directions


def broken_components(directions: Directions) -> list[int]:
    """Components whose |correlation| of neighbouring steps falls under .3: they are not one direction at all steps."""
    if directions.correlation is None:
        return []
    return torch.nonzero((directions.correlation < BROKEN).any(dim=1)).flatten().tolist()


def _in_pairs(solutions: Iterator[StepPCA], matched: bool) -> Iterator[StepPCA]:
    """The steps as they are, or each with its components in the order of those of the step that it is matched to."""
    if not matched:
        yield from solutions
        return
    steps = list(solutions)
    agreements = [_agreement(a.projections, b.projections).abs() for a, b in itertools.pairwise(steps)]
    pairs = [torch.from_numpy(linear_sum_assignment(each.numpy(), maximize=True)[1]) for each in agreements]
    sums = [float(each[torch.arange(len(to)), to].sum()) for each, to in zip(agreements, pairs, strict=True)]
    # The first and the last step have one neighbour, which counts for two.
    sides = [sum(each) for each in zip([*sums[:1], *sums], [*sums, *sums[-1:]], strict=True)] or [0.0]
    first = max(range(len(steps)), key=sides.__getitem__)
    orders = {first: torch.arange(steps[0].components.shape[0])}
    for i in range(first, len(steps) - 1):
        orders[i + 1] = pairs[i][orders[i]]
    for i in range(first, 0, -1):
        orders[i - 1] = pairs[i - 1].argsort()[orders[i]]
    yield from (step.ordered(orders[i]) for i, step in enumerate(steps))


def _aligned(solutions: Iterator[StepPCA]) -> Iterator[tuple[StepPCA, Tensor]]:
    """Each step with signs that agree with the step before, and the |correlation| (k,) of the two."""
    previous = None
    for solution in solutions:
        if previous is None:
            largest = solution.components.abs().argmax(dim=1, keepdim=True)
            agreement = solution.components.gather(1, largest)[:, 0]
            correlation = torch.ones(len(agreement), dtype=torch.float64)
        else:
            agreement = _correlation(previous, solution.projections)
            correlation = agreement.abs()
        solution = solution.flipped(torch.where(agreement < 0, -1.0, 1.0))
        previous = solution.projections
        yield replace(solution, projections=torch.empty(0)), correlation


def _agreement(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of each column of a with each of b, both (n, k): (k, k)."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return (a / a.norm(dim=0)).T @ (b / b.norm(dim=0))


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of the columns of two (n, k), in [-1, 1]."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return ((a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0))).clamp(-1, 1)


def _check(recorded: Recorded, model: DiffusionModel, k: int, n: int) -> None:
    d = int(np.prod(recorded.h_shape))
    if not 1 <= k <= min(n - 1, d):
        raise InputError(f"k must be from 1 to {min(n - 1, d)} for {n} samples of {d} features, got {k}")
    recorded.provenance.check(model.provenance(), "recorded samples")


def _meta(recorded: Recorded, model: DiffusionModel, k: int, form: str, seeds: tuple[int, ...]) -> DirectionsMeta:
    # Only the neighbours of one sample share their seed.
    local = len(set(seeds)) < len(seeds)
    return DirectionsMeta(
        space="h",
        provenance=recorded.provenance,
        model_id=model.model_id,
        method=f"{form}{' local' if local else ''}",
        names=tuple(f"component {j}" for j in range(k)),
        unit="std",
        seeds=tuple(dict.fromkeys(seeds)),
    )
