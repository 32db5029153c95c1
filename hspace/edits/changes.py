# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Changes of any kind: offsets of h or of x_T, and operators of h, applied to many samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.denoiser import Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import Edit, sample
from hspace.directions.operators import Found, Operator
from hspace.edits.sums import SMALLER, Edited, Edits, check_space, edit, every_edit, moving
from hspace.system.shards import in_batches
from hspace.types import Images, InputError

Change = Tensor | Operator
"""One edit: an offset of h, (steps, *h_shape), or of x_T, (channel, height, width), or an operator of h."""


@dataclass(frozen=True)
class Joined:
    """An operator with an offset beside it: h' = h + strength * (change(h) + offset), strength in [0, 1].

    Attributes:
        operator: The operator, at its own strength.
        offset: What is added to h besides, (steps, *h_shape).
    """

    operator: Operator
    offset: Tensor

    def change(self, step: int, h: Tensor) -> Tensor:
        """What is added to h of a step, (batch, *h_shape) float32."""
        return self.operator.change(step, h) + self.offset[step].to(h.device)

    def __call__(self, step: int, h: Tensor) -> Tensor:
        """The edited h of a step, (batch, *h_shape), in the dtype of h."""
        return (h.float() + self.change(step, h)).to(h.dtype)

    def __rmul__(self, strength: float) -> "Joined":
        """The same with `strength` times the whole change; raises InputError if that is not in [0, 1]."""
        return Joined(strength * self.operator, strength * self.offset)

    def check_shape(self, model: DiffusionModel) -> None:
        """Check that both are of this model's h; raises InputError if they are not."""
        self.operator.check_shape(model)
        check_space(model, self.offset[None], "h")


Map = Operator | Joined
"""An edit of h that depends on h."""


def changes(found: Found) -> dict[str, Change]:
    """The change that strength 1 of each direction is, or the operator, by name."""
    if isinstance(found, Operator):
        return {found.meta.names[0]: found}
    return dict(zip(found.meta.names, found.directions, strict=True))


def operating(operators: Sequence[Map]) -> Edit:
    """The edit that applies to each row of a batch its own operator."""

    def operated(step: int, encoded: Encoded) -> Tensor:
        rows = zip(operators, encoded.h, strict=True)
        changes = torch.cat([operator.change(step, h[None]) for operator, h in rows])
        # A sum has the memory layout of h, by which later kernels are chosen: at strength 0 the bits must agree.
        return (encoded.h.float() + changes).to(encoded.h.dtype)

    return operated


def operate(
    model: DiffusionModel,
    latents: Latents,
    operator: Operator,
    *,
    strengths: Sequence[float],
    sampler: Sampler = Sampler(),
) -> Edits:
    """Edits every sample by an operator at every strength.

    Args:
        model: The model that the operator belongs to.
        latents: The samples to edit.
        operator: The operator.
        strengths: Shares of the whole map, in [0, 1]; 0 leaves a sample as it is.
        sampler: Settings of the sampling and of the edited steps; a row is a sample at one strength.

    Returns:
        Images, (batch, strengths, channel, height, width), on the CPU.

    Raises:
        InputError: If the operator does not fit the model, or an argument is out of range.
        NotFinite: If an image becomes NaN or infinite; seed and step are named.
    """
    fitting = operator.fit(model, eta=sampler.eta)
    return apply_changes(model, latents, [strength * fitting for strength in strengths], sampler=sampler)


def edit_found(
    model: DiffusionModel, latents: Latents, found: Found, *, component: int, strengths: Sequence[float],
    sampler: Sampler = Sampler(),
) -> Edits:  # fmt: skip
    """Edits every sample at every strength of one direction, or of an operator, whose component is 0.

    For Args, Returns and Raises see `edit` and `operate`.
    """
    if isinstance(found, Operator):
        return operate(model, latents, found, strengths=strengths, sampler=sampler)
    return edit(model, latents, found, component=component, strengths=strengths, sampler=sampler)


def apply_changes(
    model: DiffusionModel, latents: Latents, given: Sequence[Change | Joined], *, sampler: Sampler = Sampler()
) -> Edits:
    """Applies every change to every sample.

    Args:
        model: The model to sample.
        latents: The samples to edit.
        given: Offsets of one space, or operators, some perhaps with an offset beside them.
        sampler: Settings of the sampling and of the edited steps; a row is a sample under one change.

    Returns:
        Images, (batch, changes, channel, height, width), on the CPU.

    Raises:
        InputError: If there is no change, the changes are of several kinds, or one has another shape than its space.
        NotFinite: If an image becomes NaN or infinite; `row` is the change.
    """

    def hint(edit: int) -> str:
        change = given[edit]
        offset = change.offset if isinstance(change, Joined) else change
        return SMALLER if isinstance(offset, Tensor) and offset.any() else ""

    return every_edit(latents, len(given), sampler.batch_size, _changing(model, given, sampler), hint)


def apply_own(
    model: DiffusionModel, latents: Latents, given: Sequence[Change], index: Sequence[int], *,
    sampler: Sampler = Sampler(),
) -> Images:  # fmt: skip
    """Applies to every sample one change.

    Args:
        model: The model to sample.
        latents: n samples.
        given: Offsets of one space, or operators.
        index: Index of each sample's change, n of them.
        sampler: Settings of the sampling and of the edited steps.

    Returns:
        Images, (n, channel, height, width), on the CPU.

    Raises:
        InputError: As `apply_changes`, and if there are not as many indices as samples.
        NotFinite: If an image becomes NaN or infinite; seed and step are named.
    """
    if len(index) != len(latents.seeds):
        raise InputError(f"there must be a change for each of {len(latents.seeds)} samples, got {len(index)}")
    edited = _changing(model, given, sampler)

    def make(rows: range) -> Tensor:
        return edited(latents.select(rows), [index[row] for row in rows]).cpu()

    return in_batches(range(len(index)), sampler.batch_size, make)


def _changing(model: DiffusionModel, given: Sequence[Change | Joined], sampler: Sampler) -> Edited:
    """The function that gives the images of samples, each under a change of its own, of some indices."""
    if not given or len({kind_of(each) for each in given}) > 1:
        raise InputError(f"changes must be of one kind and at least one, got {len(given)}")
    if isinstance(given[0], Tensor):
        offsets = torch.stack(cast(list[Tensor], list(given)))
        space = "x_T" if tuple(offsets.shape[1:]) == model.sample_shape else "h"
        return moving(model, offsets, space, sampler)
    operators = cast(Sequence[Map], given)
    for operator in operators:
        operator.check_shape(model)
    return lambda batch, index: (
        sample(model, batch, sampler=sampler, edit=operating([operators[edit] for edit in index])).x_0
    )


def kind_of(change: Change | Joined) -> object:
    """What two changes that are applied in one pass have in common."""
    return tuple(change.shape) if isinstance(change, Tensor) else "operator"
