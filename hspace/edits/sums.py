# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Edits: strengths times directions, added over a window of steps, for many samples at once.

The edit is exactly strength x direction; what a strength means is in the direction's `unit`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampler import Sampler, edited_steps
from hspace.diffusion.sampling import NotFinite, sample
from hspace.directions.record import Directions
from hspace.system.shards import in_batches
from hspace.types import InputError

Edits = Float[Tensor, "batch edits channel height width"]
"""Edited images, (batch, edits, channel, height, width)."""
Edited = Callable[[Latents, list[int]], Tensor]
"""A function of samples and the index of each one's edit, which gives their images, or what is read off them."""
SMALLER = "; use smaller strengths"
"""Advice where an edit breaks an image."""
MAX_STRENGTH = torch.finfo(torch.float32).max
"""Largest strength that the dtype of directions can hold."""


@dataclass(frozen=True)
class Term:
    """One direction at one strength in a window of steps, to be added to others.

    Attributes:
        directions: Directions of h or of x_T.
        component: Index of the direction.
        strength: Factor of the direction, in its unit.
        start: First edited step; 0 is the noisiest.
        stop: First step that is not edited any more; None edits to the end.
    """

    directions: Directions
    component: int
    strength: float
    start: int = 0
    stop: int | None = None


def edit(
    model: DiffusionModel,
    latents: Latents,
    directions: Directions,
    *,
    component: int,
    strengths: Sequence[float],
    sampler: Sampler = Sampler(),
) -> Edits:
    """Edits every sample at every strength of one component.

    Args:
        model: The model that the directions belong to.
        latents: The samples to edit.
        directions: Directions of h or of x_T.
        component: Index of the direction.
        strengths: Factors of the direction; 0 leaves a sample as it is.
        sampler: Settings of the sampling and of the edited steps; a row is a sample at one strength.

    Returns:
        Images, (batch, strengths, channel, height, width), on the CPU.

    Raises:
        InputError: If the directions do not fit the model, or an argument is out of range.
        NotFinite: If an image becomes NaN or infinite; direction, strength, seed and step are named.
    """
    directions.check(model, eta=sampler.eta)
    weights = _weights(directions, component, strengths)
    offsets = edit_offsets(directions, weights, len(model.process.timesteps))
    try:
        return apply_offsets(model, latents, offsets, space=directions.meta.space, sampler=sampler)
    except NotFinite as error:
        setting = f"{directions.meta.names[component]!r} at strength {strengths[error.row]:g}"
        raise NotFinite(error.row, f"{setting}: {error}") from None


def edit_offsets(
    directions: Directions, weights: Float[Tensor, "edits k"], num_steps: int, start: int = 0, stop: int | None = None
) -> Tensor:
    """Weighted sums of directions, so that several components can be edited at once.

    Args:
        directions: k directions of h or of x_T.
        weights: One row per edit, the strength of each component, (edits, k).
        num_steps: The model's number of steps.
        start: First edited step; 0 is the noisiest.
        stop: First step that is not edited any more; None edits to the end.

    Returns:
        Offsets of h, (edits, steps, *h_shape), zero outside the window; of x_T, which has no steps, (edits, channel,
        height, width).

    Raises:
        InputError: If a weight is NaN or infinite, an edit does not have k weights, or the window is empty or too long.

    Examples:
        >>> from hspace.diffusion.checkpoints import load_model
        >>> model = load_model("portraits", num_steps=10)
        >>> directions = Directions.of(model, torch.ones(2, *model.h_shape))
        >>> offsets = edit_offsets(directions, torch.tensor([[2.0, -1.0]]), num_steps=10, start=0, stop=5)
        >>> tuple(offsets.shape[:2]), offsets.flatten(2)[0, 4:6, 0].tolist()
        ((1, 10), [1.0, 0.0])
    """
    vectors = directions.directions
    if weights.shape[1] != len(vectors) or not weights.isfinite().all():
        raise InputError(f"weights must be {len(vectors)} finite strengths per edit, got {weights.tolist()}")
    window = edited_steps(start, stop, num_steps)
    offsets = torch.einsum("ek,k...->e...", weights, vectors)
    if directions.meta.space == "x_T":
        _check_whole(window, num_steps)
        return offsets
    if offsets.shape[1] != num_steps:
        raise InputError(f"the directions have {offsets.shape[1]} steps, the model takes {num_steps}")
    offsets[:, : window.start] = 0
    offsets[:, window.stop :] = 0
    return offsets


def _check_whole(window: range, num_steps: int) -> None:
    if window != range(num_steps):
        raise InputError(f"an edit of x_T has no steps; leave out start and stop, got {window.start} to {window.stop}")


def sum_offsets(model: DiffusionModel, terms: Sequence[Term]) -> Tensor:
    """The offsets of one edit, the sum of all terms, for `apply_offsets`.

    Args:
        model: The model that the directions belong to.
        terms: Any number of terms, all of h or all of x_T.

    Returns:
        Offsets, (1, steps, *h_shape), or (1, channel, height, width) of x_T.

    Raises:
        InputError: If there is no term, one does not fit the model, or their spaces differ.
    """
    return _term_offsets(model, terms).sum(0, keepdim=True)


def sequence_offsets(model: DiffusionModel, terms: Sequence[Term]) -> Tensor:
    """The offsets of as many edits as terms, for `apply_offsets`: the first term, the first two together, and so on.

    For Args, Returns and Raises see `sum_offsets`; there is one row per term.

    Source: Haas et al. 2024, fig. 8b.
    """
    return _term_offsets(model, terms).cumsum(0)


def _term_offsets(model: DiffusionModel, terms: Sequence[Term]) -> Tensor:
    spaces = {term.directions.meta.space for term in terms}
    if len(spaces) != 1:
        raise InputError(
            f"the terms of an edit must be of one space, h or x_T, got {' and '.join(sorted(spaces)) or 0}"
        )
    return torch.cat([_offset(model, term) for term in terms])


def _offset(model: DiffusionModel, term: Term) -> Tensor:
    term.directions.check(model)
    weights = _weights(term.directions, term.component, [term.strength])
    return edit_offsets(term.directions, weights, len(model.process.timesteps), term.start, term.stop)


def _weights(directions: Directions, component: int, strengths: Sequence[float]) -> Tensor:
    """One row per strength, zero except for the component."""
    k = len(directions.directions)
    if not 0 <= component < k:
        raise InputError(f"component must be in [0, {k}), got {component}")
    for strength in strengths:
        if not abs(strength) <= MAX_STRENGTH:
            raise InputError(f"a strength must be a number of at most {MAX_STRENGTH:.1e} in size, got {strength:g}")
    weights = torch.zeros(len(strengths), k)
    weights[:, component] = torch.tensor(strengths, dtype=torch.float32)
    return weights


def apply_offsets(
    model: DiffusionModel,
    latents: Latents,
    offsets: Tensor,
    *,
    space: str = "h",
    sampler: Sampler = Sampler(),
) -> Edits:
    """Applies every edit to every sample.

    Args:
        model: The model to sample.
        latents: The samples to edit.
        offsets: Offsets from `edit_offsets`: of h, (edits, steps, *h_shape), or of x_T, (edits, channel, height,
            width).
        space: Space of the offsets, `h` or `x_T`.
        sampler: Settings of the sampling and of the edited steps; a row is a sample under one edit.

    Returns:
        Images, (batch, edits, channel, height, width), on the CPU.

    Raises:
        InputError: If there is no edit, or an argument is out of range.
        NotFinite: If an image becomes NaN or infinite; `row` is the edit.
    """
    if not len(offsets):
        raise InputError("there must be at least one edit, got 0")

    def hint(edit: int) -> str:
        return SMALLER if offsets[edit].any() else ""

    return every_edit(latents, len(offsets), sampler.batch_size, moving(model, offsets, space, sampler), hint)


def moving(model: DiffusionModel, offsets: Tensor, space: str, sampler: Sampler) -> Edited:
    """The function that gives the images of samples, each moved by an offset of its own, of some indices.

    Args:
        model: The model to sample.
        offsets: Offsets of h, (edits, steps, *h_shape), or of x_T, (edits, channel, height, width).
        space: Space of the offsets, `h` or `x_T`.
        sampler: Settings of the sampling and of the edited steps.

    Raises:
        InputError: If the shape is not that of the space, or steps are left out of an edit of x_T.
    """
    check_space(model, offsets, space)
    num_steps = len(model.process.timesteps)
    if space == "x_T":
        _check_whole(sampler.window(num_steps), num_steps)

    def edited(batch: Latents, index: list[int]) -> Tensor:
        delta = offsets[index]
        if space == "x_T":
            batch, delta = replace(batch, x_T=batch.x_T + delta.to(batch.x_T.device)), None
        return sample(model, batch, sampler=sampler, delta_h=delta).x_0

    return edited


def every_edit(
    latents: Latents,
    num_edits: int,
    batch_size: int,
    edited: Edited,
    hint: Callable[[int], str] = lambda edit: "",
) -> Tensor:
    """Every sample under every edit, in batches.

    Args:
        latents: The samples.
        num_edits: Number of edits.
        batch_size: Rows of a batch; a row is a sample under one edit.
        edited: Function that gives the images of a batch whose rows have edits of some indices, or what is read
            off them.
        hint: Advice that ends the error about an edit whose images are not finite.

    Returns:
        Images, or what is read off them, (batch, edits, ...), on the CPU.

    Raises:
        NotFinite: If an image becomes NaN or infinite; `row` is the edit.
    """

    def make(rows: range) -> Tensor:
        index = [row % num_edits for row in rows]
        try:
            return edited(latents.select([row // num_edits for row in rows]), index).cpu()
        except NotFinite as error:
            raise NotFinite(index[error.row], f"{error}{hint(index[error.row])}") from None

    rows = range(len(latents.seeds) * num_edits)
    return in_batches(rows, batch_size, make).unflatten(0, (-1, num_edits))


def check_space(model: DiffusionModel, offsets: Tensor, space: str) -> None:
    """Check that the shape of offsets is that of their space.

    Raises:
        InputError: If the space is neither `h` nor `x_T`, or the offsets have another shape.
    """
    if space not in ("h", "x_T"):
        raise InputError(f"space must be h or x_T, got {space}")
    wanted = model.sample_shape if space == "x_T" else (len(model.process.timesteps), *model.h_shape)
    if tuple(offsets.shape[1:]) != wanted:
        raise InputError(f"offsets of {space} must be (edits, {str(wanted)[1:-1]}), got {tuple(offsets.shape)}")
