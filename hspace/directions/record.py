# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Editing directions as one record and one file, and the check that they fit a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import as_seeds
from hspace.diffusion.provenance import FIELDS
from hspace.directions.metadata import DirectionsMeta
from hspace.system.records import check_names, load_record, save_record
from hspace.types import InputError

OPTIONAL_TENSORS = ("mean", "explained_variance", "singular_values", "residuals", "correlation", "range")
KIND = "kind"
"""Key of the facts of an operator's file, which directions do not have."""
PER_COMPONENT = tuple(name for name in OPTIONAL_TENSORS if name != "mean")


@dataclass(frozen=True)
class Directions:
    """k editing directions. The edit is exactly strength * directions[j]: no other factor is ever applied.

    Attributes:
        directions: float32 (k, steps, *h_shape), or (k, *sample_shape) for space x_T.
        meta: Provenance, names and meaning of strength 1.
        mean: Mean of h, (steps, *h_shape) or (*sample_shape); never part of an edit.
        explained_variance: Variance along each component, (k, steps) or (k,); scikit-learn's n - 1.
        singular_values: (k, steps) or (k,), descending.
        residuals: Relative residuals of an iterative solver, (k, steps) or (k,).
        correlation: |correlation| of the same samples' projections at neighbouring steps, (k, steps - 1), in [0, 1].
        range: Smallest and largest sensible strength, (k, 2).
    """

    directions: Tensor
    meta: DirectionsMeta
    mean: Tensor | None = None
    explained_variance: Tensor | None = None
    singular_values: Tensor | None = None
    residuals: Tensor | None = None
    correlation: Tensor | None = None
    range: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises InputError naming the first tensor whose dtype, shape or values are wrong."""
        steps = len(self.meta.timesteps)
        _check_directions(self.directions, self.meta)
        k, shape = len(self.directions), tuple(self.directions.shape[1:])
        check_tensor("mean", self.mean, [shape])
        for name in ("explained_variance", "singular_values", "residuals"):
            check_tensor(name, getattr(self, name), [(k,), (k, steps)])
        check_tensor("correlation", self.correlation, [(k, steps - 1)])
        check_tensor("range", self.range, [(k, 2)])

    @classmethod
    def of(
        cls,
        model: DiffusionModel,
        tensor: Tensor,
        *,
        names: Sequence[str] | None = None,
        unit: str = "given",
        method: str = "given",
        space: str = "h",
        eta: float | Sequence[float] | None = None,
        **meta: Any,
    ) -> "Directions":
        """Directions from a tensor that was found in any way.

        Args:
            model: Model that they belong to.
            tensor: Vectors, (k, steps, *h_shape); (k, *h_shape) is the same at every step; (k, *sample_shape) for space
                x_T.
            names: Names of the k directions; None numbers them.
            unit: Meaning of strength 1.
            method: Way in which they were found, in words.
            space: Space of the vectors, "h" or "x_T".
            eta: Stochasticity of the samples that they were found on, one value or one per step; None if it does not
                matter.
            meta: Further fields of `DirectionsMeta`, such as `seeds` and `settings`.

        Raises:
            InputError: If the shape or a field is wrong.

        Examples:
            >>> from hspace.diffusion.checkpoints import load_model
            >>> model = load_model("portraits", num_steps=10)
            >>> directions = Directions.of(model, torch.ones(2, *model.h_shape), names=["a", "b"])
            >>> tuple(directions.directions.shape)
            (2, 10, 64, 8, 8)
            >>> directions.select([1]).meta.names
            ('b',)
        """
        steps = len(model.process.timesteps)
        if space == "h" and tuple(tensor.shape[1:]) == model.h_shape:
            tensor = tensor[:, None].expand(-1, steps, *tensor.shape[1:])
        if "seeds" in meta:
            meta["seeds"] = as_seeds(meta["seeds"])
        found = DirectionsMeta(
            space=space,
            provenance=model.provenance(eta=eta),
            model_id=model.model_id,
            method=method,
            names=tuple(names) if names is not None else tuple(f"direction {j}" for j in range(len(tensor))),
            unit=unit,
            **meta,
        )
        directions = cls(tensor.detach().float().cpu().contiguous(), found)
        directions.check_shape(model)
        return directions

    def save(self, path: str | Path) -> None:
        """Write the directions as safetensors, atomically.

        Raises:
            OSError: If the file cannot be written.
        """
        tensors = {name: getattr(self, name) for name in ("directions", *OPTIONAL_TENSORS)}
        save_record(path, tensors, self.meta.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read directions that anyone may have written; nothing in the file is trusted or executed.

        Raises:
            InputError: If the file is missing, too large, not a safetensors file, or breaks the format anywhere.
        """
        return load_record(path, "directions", cls.parse)

    @classmethod
    def parse(cls, facts: dict[str, Any], tensors: dict[str, Tensor]) -> "Directions":
        """The directions of a file's facts and tensors.

        Raises:
            InputError: If they break the format.
        """
        if KIND in facts:
            raise InputError("holds an operator, and directions are needed")
        meta = DirectionsMeta.from_dict(facts)
        check_names(tensors, {"directions"}, set(OPTIONAL_TENSORS))
        return cls(meta=meta, **tensors)

    def check(self, model: DiffusionModel, *, eta: float | Sequence[float] | None = None) -> None:
        """Check that the directions were found on this model, tap, conditioning and steps.

        Args:
            model: Model that they are applied to.
            eta: Stochasticity at which they are applied; None leaves it open.

        Raises:
            InputError: If they do not fit, with the directions' value, the model's, and the way to `fit` them all the
                same.
        """
        self.fit(model, eta=eta)

    def fit(
        self, model: DiffusionModel, *, eta: float | Sequence[float] | None = None, allow: Sequence[str] = ()
    ) -> "Directions":
        """The directions as those of another provenance, where the differences are allowed.

        Args:
            model: Model that they are applied to.
            eta: Stochasticity at which they are applied; None leaves it open.
            allow: Fields of `Provenance` in which they may differ, such as `eta`; shapes must fit in any case.

        Returns:
            The same vectors; `meta.differences` names what was different where they were found.

        Raises:
            InputError: If a difference is not allowed, with the directions' value and the model's.
        """
        meta = fitted(self.meta, model, eta, allow)
        self.check_shape(model)
        return self if meta is self.meta else replace(self, meta=meta)

    def check_shape(self, model: DiffusionModel) -> None:
        """Check that the directions can be added to this model's h or x_T.

        Raises:
            InputError: If they cannot, with the directions' shape and the model's.
        """
        steps = (len(model.process.timesteps),)
        theirs = (*steps, *model.h_shape) if self.meta.space == "h" else tuple(model.sample_shape)
        ours = tuple(self.directions.shape[1:])
        if ours != theirs:
            raise InputError(f"the directions do not fit: shape is {ours} in the directions, {theirs} here")

    def select(self, components: Sequence[int]) -> "Directions":
        """The given directions, in the order given.

        Args:
            components: Indices in [0, k), at least one.

        Raises:
            InputError: If an index is out of range.
        """
        k = len(self.directions)
        wrong = [index for index in components if not 0 <= index < k]
        if wrong or len(components) == 0:
            raise InputError(f"components must be indices from 0 to {k - 1}, got {list(components)}")
        index = list(components)
        tensors = {name: getattr(self, name) for name in ("directions", *PER_COMPONENT)}
        chosen = {name: tensor[index] for name, tensor in tensors.items() if tensor is not None}
        return replace(self, meta=replace(self.meta, names=tuple(self.meta.names[i] for i in index)), **chosen)

    def norms(self) -> Tensor:
        """L2 norm of each direction at each step, (k, steps), or (k,) for space x_T; float32."""
        return self.directions.flatten(start_dim=2 if self.meta.space == "h" else 1).norm(dim=-1)


def fitted(
    meta: DirectionsMeta,
    model: DiffusionModel,
    eta: float | Sequence[float] | None,
    allow: Sequence[str],
    what: str = "directions",
) -> DirectionsMeta:
    """The metadata of `what` as those of another provenance, where the differences are allowed; see `Directions.fit`.

    Raises:
        InputError: If a difference is not allowed, with both values.
    """
    origin, here = meta.provenance, model.provenance(eta=eta, tap=meta.space == "h")
    accepted = origin.check(here, what, allow)
    if not accepted:
        return meta
    known = {name: getattr(here, name) for name in FIELDS if getattr(here, name) is not None}
    differences = (*meta.differences, *(each[:200] for each in accepted))
    return replace(meta, provenance=replace(origin, **known), differences=differences)


def _check_directions(directions: Tensor, meta: DirectionsMeta) -> None:
    wanted = (len(meta.names), *((len(meta.timesteps),) if meta.space == "h" else ()))
    shape = tuple(directions.shape)
    if len(shape) <= len(wanted) or shape[: len(wanted)] != wanted or min(shape) < 1:
        raise InputError(
            f"directions must be ({', '.join(map(str, wanted))}, …) for {len(meta.names)} names, "
            f"{len(meta.timesteps)} timesteps and space {meta.space}, got {shape}"
        )
    check_tensor("directions", directions, [shape])


def check_tensor(name: str, tensor: Tensor | None, shapes: list[tuple[int, ...]]) -> None:
    """Check that a tensor is None, or float32 of one of the shapes and finite.

    Raises:
        InputError: If it is not, with its name.
    """
    if tensor is None:
        return
    if tensor.dtype != torch.float32:
        raise InputError(f"{name} must be float32, got {str(tensor.dtype).removeprefix('torch.')}")
    if tuple(tensor.shape) not in shapes:
        raise InputError(f"{name} must be {' or '.join(map(str, shapes))}, got {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{name} must be finite, got nan or inf")
