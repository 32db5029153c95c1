# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Operators: edits of h that depend on the h that they edit, as one record and one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.annotations import Annotations
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.positions import by_position, from_positions, num_channels
from hspace.directions.record import KIND, Directions, check_tensor, fitted
from hspace.directions.settings import Settings
from hspace.system.records import Rule, check_facts, check_names, load_record, one_of, save_record
from hspace.types import InputError

NETWORK = ("inner", "times", "norm", "outer", "bias")
"""Parts of a small network; see `network_change`."""
PARTS = {
    "erase": ("left", "right"), "switch": ("left", "right"), "transport": ("gain", "shift"), "network": NETWORK
}  # fmt: skip
"""Tensors of each kind of operator besides the mean."""
STRENGTHS = (0.0, 1.0)
"""Smallest and largest strength of an operator; 1 is the whole map."""
SCALED = ("left", "gain", "shift", "outer", "bias")
"""Tensors that the change is linear in, of all kinds."""
GROUPS = 8
"""Groups of hidden channels, each of which is normalised together."""
WIDTHS = 2 * GROUPS
"""A hidden layer has a multiple of so many channels, so that a group of one position has two."""
UNIT = "share of the whole map"
RULES: dict[str, Rule] = {
    KIND: one_of(tuple(PARTS)),
    "one_sided": (lambda value: type(value) is bool, "true or false"),
    "names": (lambda value: len(value) == 1, "one name"),
    "space": one_of(("h",)),
}
"""What an operator's facts may be, beside the rules of directions."""


@dataclass(frozen=True)
class Operator:
    """One edit of h that depends on h, at each step: h' = h + strength * change(h), strength in [0, 1].

    The change is -left f(right (h - mean)), of rank r, to erase and to switch; f is the identity, or the positive part
    where the operator is one-sided. To transport it is gain * (h - mean) + shift, for each unit of h by itself. Of a
    network it is what `network_change` makes of h - mean.

    Attributes:
        meta: Provenance, the one name, and the settings of the method.
        kind: Kind of the map: "erase", "switch", "transport" or "network".
        mean: Point of h that the map is counted from, float32 (steps, *h_shape).
        left: Vectors that are taken off, (steps, r, *h_shape).
        right: Readouts of h, (steps, r, *h_shape).
        gain: Slope of the change of each unit, (steps, *h_shape).
        shift: Change of each unit at the mean, (steps, *h_shape).
        one_sided: Whether only samples whose readout is positive are changed.
        inner: First layer of a network, (width, channels).
        times: What it adds at each step, (steps, width).
        norm: Gain and shift of its hidden channels, (2, width).
        outer: Second layer, (channels, width).
        bias: What that adds, (channels,).
    """

    meta: DirectionsMeta
    kind: str
    mean: Tensor
    left: Tensor | None = None
    right: Tensor | None = None
    gain: Tensor | None = None
    shift: Tensor | None = None
    one_sided: bool = False
    inner: Tensor | None = None
    times: Tensor | None = None
    norm: Tensor | None = None
    outer: Tensor | None = None
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises InputError naming the first part that is wrong."""
        facts = {KIND: self.kind, "one_sided": self.one_sided, "names": self.meta.names, "space": self.meta.space}
        check_facts(facts, RULES, "an operator")
        check_names(self.tensors(), {"mean", *PARTS[self.kind]}, set())
        shape = (len(self.meta.timesteps), *self.mean.shape[1:])
        if self.left is not None and not (self.left.ndim > 1 and self.left.shape[1]):
            raise InputError(f"left must be (steps, rank, …) of rank 1 or more, got {tuple(self.left.shape)}")
        if self.inner is not None:
            self._check_network(self.inner, shape[0], shape[1:])
        for name, tensor in self.tensors().items():
            if name in NETWORK:
                continue
            rank = () if self.left is None or name == "mean" else (self.left.shape[1],)
            check_tensor(name, tensor, [(*shape[:1], *rank, *shape[1:])])

    def _check_network(self, inner: Tensor, steps: int, h_shape: tuple[int, ...]) -> None:
        width = len(inner) if inner.ndim else 0
        if not h_shape or not width or width % WIDTHS:
            raise InputError(f"inner must be (a multiple of {WIDTHS}, channels), got {tuple(inner.shape)}")
        for name, expected in network_shapes(num_channels(h_shape), width, steps).items():
            check_tensor(name, getattr(self, name), [expected])

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that there are, by name."""
        names = ("mean", "left", "right", "gain", "shift", *NETWORK)
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def change(self, step: int, h: Tensor) -> Tensor:
        """What strength 1 adds to h of a step, (batch, *h_shape) float32."""
        centred = h.float() - self.mean[step].to(h.device)
        if self.gain is not None and self.shift is not None:
            return self.gain[step].to(h.device) * centred + self.shift[step].to(h.device)
        if self.inner is not None:
            return network_change({name: self.tensors()[name].to(h.device) for name in NETWORK}, step, centred)
        assert self.left is not None and self.right is not None
        left, right = (part[step].flatten(1).to(h.device) for part in (self.left, self.right))
        readout = centred.flatten(1) @ right.T
        readout = readout.clamp(min=0) if self.one_sided else readout
        return -(readout @ left).reshape(h.shape)

    def __call__(self, step: int, h: Tensor) -> Tensor:
        """The edited h of a step, (batch, *h_shape), in the dtype of h."""
        return (h.float() + self.change(step, h)).to(h.dtype)

    def __rmul__(self, strength: float) -> "Operator":
        """The operator whose whole change is `strength` times this one's.

        Raises:
            InputError: If the strength is not in [0, 1].
        """
        if not STRENGTHS[0] <= strength <= STRENGTHS[1]:
            raise InputError(f"the strength of an operator ({self.kind}) must be in [0, 1], got {strength:g}")
        scaled = {name: strength * self.tensors()[name] for name in SCALED if name in self.tensors()}
        return replace(self, **scaled)

    def save(self, path: str | Path) -> None:
        """Write the operator as safetensors, atomically.

        Raises:
            OSError: If the file cannot be written.
        """
        save_record(path, self.tensors(), self.meta.to_dict() | {KIND: self.kind, "one_sided": self.one_sided})

    @classmethod
    def load(cls, path: str | Path) -> "Operator":
        """Read an operator that anyone may have written; nothing in the file is trusted or executed.

        Raises:
            InputError: If the file is missing, too large, not a safetensors file, or breaks the format anywhere.
        """
        found = load_found(path)
        if isinstance(found, Directions):
            raise InputError(f"operator file {path} holds directions")
        return found

    @classmethod
    def parse(cls, facts: dict[str, Any], tensors: dict[str, Tensor]) -> "Operator":
        """The operator of a file's facts and tensors.

        Raises:
            InputError: If they break the format.
        """
        own = {name: facts.get(name) for name in (KIND, "one_sided")}
        check_facts(own, {name: RULES[name] for name in own}, "an operator")
        check_names(tensors, {"mean", *PARTS[facts[KIND]]}, set())
        meta = DirectionsMeta.from_dict({name: value for name, value in facts.items() if name not in own})
        return cls(meta, facts[KIND], one_sided=facts["one_sided"], **tensors)

    def fit(
        self, model: DiffusionModel, *, eta: float | Sequence[float] | None = None, allow: Sequence[str] = ()
    ) -> "Operator":
        """The operator as that of another provenance, where the differences are allowed; see `Directions.fit`.

        Raises:
            InputError: If a difference is not allowed, or h has another shape.
        """
        meta = fitted(self.meta, model, eta, allow, what="operators")
        self.check_shape(model)
        return self if meta is self.meta else replace(self, meta=meta)

    def check_shape(self, model: DiffusionModel) -> None:
        """Check that the operator is one of this model's h.

        Raises:
            InputError: If it is not, with the operator's shape and the model's.
        """
        ours, theirs = tuple(self.mean.shape), (len(model.process.timesteps), *model.h_shape)
        if ours != theirs:
            raise InputError(f"the operator does not fit: shape is {ours} in the operator, {theirs} here")

    def select(self, components: Sequence[int]) -> "Operator":
        """The operator itself.

        Raises:
            InputError: If anything but 0 is selected.
        """
        if set(components) != {0}:
            raise InputError(f"components must be 0, since an operator is one, got {list(components)}")
        return self


def network_shapes(channels: int, width: int, steps: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parts of a small network; see `network_change`."""
    return {
        "inner": (width, channels), "times": (steps, width), "norm": (2, width), "outer": (channels, width),
        "bias": (channels,),
    }  # fmt: skip


def network_change(parts: Mapping[str, Tensor], step: int, centred: Tensor) -> Tensor:
    """What a small network makes of every position x of h, less its mean: W2 silu(GroupNorm(W1 x + e_t)) + b.

    Args:
        parts: W1 `inner` (width, channels), e `times` (steps, width), gain and shift of the normalised channels `norm`
            (2, width), W2 `outer` (channels, width) and b `bias` (channels,).
        step: Index of the step t.
        centred: h less its mean, (batch, *h_shape) float32.

    Returns:
        The change of h, (batch, *h_shape).

    Source: Kwon et al. 2023 (arXiv 2210.10960), fig. 3.
    """
    shape = tuple(centred.shape[1:])
    hidden = by_position(centred, shape) @ parts["inner"].T + parts["times"][step]
    normal = F.group_norm(hidden.movedim(-1, 1), GROUPS, parts["norm"][0], parts["norm"][1]).movedim(1, -1)
    return from_positions(F.silu(normal) @ parts["outer"].T + parts["bias"], shape)


Found = Directions | Operator
"""What a method finds."""


class OperatorSettings(Settings):
    """Settings of every operator."""

    strengths: ClassVar[tuple[float, float] | None] = STRENGTHS

    attribute: str = "glasses"
    """Attribute that is edited: see `hspace list attributes`."""

    def count(self) -> int:
        """Number of operators."""
        return 1


def load_found(path: str | Path) -> Found:
    """Read directions or an operator, whichever the file holds; see `Directions.load`.

    Raises:
        InputError: If the file is missing, too large, not a safetensors file, or breaks the format anywhere.
    """

    def parse(facts: dict[str, Any], tensors: dict[str, Tensor]) -> Found:
        return (Operator if KIND in facts else Directions).parse(facts, tensors)

    return load_record(path, "directions", parse)


def rows_of(annotations: Annotations, seeds: Sequence[int]) -> list[int]:
    """Rows of the samples of some seeds."""
    places = {seed: row for row, seed in enumerate(annotations.seeds)}
    return [places[seed] for seed in seeds]


def operator_meta(
    model: DiffusionModel, annotations: Annotations, name: str, how: str, settings: dict[str, Any]
) -> DirectionsMeta:
    """The record of an operator that was fitted to annotated samples."""
    return DirectionsMeta(
        space="h",
        provenance=model.provenance(eta=annotations.eta, annotator=annotations.provenance.annotator),
        model_id=model.model_id,
        method=f"{how}, annotated by {annotations.scorer}",
        names=(name,),
        unit=UNIT,
        settings=settings,
        seeds=annotations.seeds,
    )


def stacked(steps: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Maps of all steps, each (…, d), as float32 (steps, …, *shape)."""
    return torch.stack(list(steps)).float().unflatten(-1, tuple(shape)).contiguous()
