"""Denoisers: networks of any kind that run up to their h, and from h to their output.

Classifier-free guidance needs two passes, with the condition and without; both run as one batch. The recorded h is that
of the conditioned pass. An offset of h is added in both passes, so that an edit moves both terms of the guidance alike
(the authors' code does so too, but records the unconditioned pass), and the denoiser stays a function of one h.
Replacing h shifts the h of the other pass by the same difference. A distilled model takes its guidance as a number and
needs one pass only.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hspace.diffusion.cut import Cut, Edit, Record, entries_per_row
from hspace.diffusion.taps import find_taps
from hspace.types import HBatch, Images, InputError

LARGE = 2**24
"""Number of weights from which shapes are found without the numbers, and the layout in memory is kept."""


@dataclass(frozen=True)
class Conditioning:
    """What a network is conditioned on.

    Attributes:
        prompt: Text, or name of a class.
        inputs: Further inputs of the network by name, (1 or 2, ...) each: those of the prompt, then those of the empty
            prompt where guidance takes two passes.
        guidance: w of classifier-free guidance, without + w (with - without); of a distilled model the number that it
            was given as an input. It has no effect where there is one pass.

    Source: Ho & Salimans 2022 (arXiv 2207.12598), eq. 6; their w is our w - 1.
    """

    prompt: str
    inputs: Mapping[str, Tensor]
    guidance: float = 1.0

    @property
    def passes(self) -> int:
        """2 where guidance takes a second pass, else 1."""
        return max((len(value) for value in self.inputs.values()), default=1)

    def rows(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """The inputs of every row of a batch, (passes * batch, ...), on the device and of the dtype of `like`."""
        placed = {name: self._placed(value, like) for name, value in self.inputs.items()}
        return {name: value.repeat_interleave(batch, dim=0) for name, value in placed.items()}

    def _placed(self, value: Tensor, like: Tensor) -> Tensor:
        return value.to(like) if value.is_floating_point() else value.to(like.device)


@runtime_checkable
class Encoded(Protocol):
    """Results of a denoiser up to the tap: all that it needs from there on."""

    @property
    def h(self) -> HBatch:
        """Features at the tap, (batch, *h_shape)."""
        ...

    def select(self, rows: Sequence[int]) -> "Encoded":
        """The samples at `rows`, any number of times each."""
        ...


@dataclass(frozen=True)
class CutEncoded:
    """All that decoding needs; where guidance takes two passes, the first rows are conditioned and the others are not.

    Attributes:
        h: Features at the tap in the conditioned pass, (batch, *h_shape).
        both: Features at the tap in every pass, (passes * batch, *h_shape).
        record: Results of the network up to the tap.
        guidance: w of classifier-free guidance.
        per_row: See `Record.select`.
    """

    h: HBatch
    both: Tensor
    record: Record
    guidance: float
    per_row: tuple[int, ...] = field(repr=False)

    def select(self, rows: Sequence[int]) -> "CutEncoded":
        """The samples at `rows`, any number of times each."""
        batch = len(self.h)
        passes = torch.tensor([row + start for start in range(0, len(self.both), batch) for row in rows])
        both = self.both[passes.to(self.both.device)]
        return replace(self, h=both[: len(rows)], both=both, record=self.record.select(passes, self.per_row))


@runtime_checkable
class Denoiser(Protocol):
    """A network cut at its taps.

    Attributes:
        network: The network itself.
        tap: Name of the tap, or of several joined by "+".
        sample_shape: (channel, height, width) of x_t.
        h_shape: Shape of one sample's h: (channel, height, width), (tokens, channels), or of any other rank.
    """

    network: Any
    tap: str
    sample_shape: tuple[int, int, int]
    h_shape: tuple[int, ...]

    def encode(self, x_t: Images, t: float, cond: Conditioning | None = None) -> Any:
        """Run the network up to the tap; the `Encoded` is the denoiser's own."""
        ...

    def decode(self, h: HBatch, encoded: Any) -> Images:
        """Run the network from the tap on; gives its raw output, shaped like x_t, for `Process.to_eps` and `to_x0`."""
        ...


@runtime_checkable
class Wiring(Protocol):
    """How one kind of network takes a noisy sample and gives its prediction.

    Attributes:
        sample_shape: (channel, height, width) of x_t.
        image_tokens: Number of tokens of an image in a sequence; None where the network has no sequence.
        conditional: Whether it needs a `Conditioning`.
    """

    sample_shape: tuple[int, int, int]
    image_tokens: int | None
    conditional: bool

    def inputs(self, x_t: Tensor, t: float, given: Mapping[str, Tensor]) -> dict[str, Any]:
        """The network's arguments for rows of x_t; `given` are the rows of a conditioning's inputs."""
        ...

    def output(self, raw: Tensor) -> Tensor:
        """The prediction, shaped like x_t, out of what the network returns."""
        ...

    def example(self, zeros: Any) -> dict[str, Tensor]:
        """Inputs of a conditioning, (1, ...), of the right shapes; `zeros` makes a tensor of a shape."""
        ...


class CutDenoiser(nn.Module):
    """A network of diffusers cut at its taps; see `Denoiser`.

    Inside the network channels may lie last in memory; h and output are contiguous.

    The h of several taps is one vector: the features of all of them, flat and joined. An edit adds its difference from
    the recorded h to the features that the edited pass itself computes at each tap.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3; Haas et al. 2024 (arXiv 2303.11073), sec. III.
    """

    network: Any
    tap: str
    wiring: Wiring
    sample_shape: tuple[int, int, int]
    h_shape: tuple[int, ...]

    def __init__(self, network: Any, tap: str, wiring: Wiring) -> None:
        """Wrap a network; its weights are shared, not copied. One row and two rows run up to the tap, to find shapes.

        Raises:
            InputError: If the tap does not exist in the network, or has no h of its own for every sample.
        """
        super().__init__()
        self.network, self.tap, self.wiring = network, tap, wiring
        # From Python 3.12 on, `isinstance` of a protocol does not look where torch keeps submodules.
        self.__dict__["network"] = network
        self.sample_shape = wiring.sample_shape
        self._dtypes: dict[torch.dtype, torch.dtype] = {}
        self._cut = Cut(network, find_taps(network, tap, wiring.image_tokens))
        try:
            self._find_shapes(_without_numbers(network) if is_large(network) else network)
        except (RuntimeError, TypeError):
            # Some networks need numbers to know shapes.
            if not is_large(network):
                raise
            self._find_shapes(network)
        self.train(network.training)

    @property
    def is_conditional(self) -> bool:
        """Whether the network is conditioned on something."""
        return self.wiring.conditional

    def _dtype(self) -> torch.dtype:
        """The network's dtype; diffusers walks through all modules to find it, a millisecond at every step."""
        first = next(self.network.parameters()).dtype
        if first not in self._dtypes:
            self._dtypes[first] = self.network.dtype
        return self._dtypes[first]

    @torch.no_grad()
    def _find_shapes(self, network: nn.Module) -> None:
        zeros, cut = next(network.parameters()).new_zeros, Cut(network, self._cut.taps)
        cond = Conditioning("", self.wiring.example(zeros)) if self.is_conditional else None
        one, two = (self._record(cut, zeros(rows, *self.sample_shape), 0, cond) for rows in (1, 2))
        if any(h.ndim == 0 or len(h) != rows for rows, record in ((1, one), (2, two)) for h in record.h):
            raise InputError(f"tap {self.tap}: h at this tap is not one per sample")
        self._shapes = tuple(tuple(h.shape[1:]) for h in one.h)
        self._per_row = entries_per_row(one, two)
        self.h_shape = self._shapes[0] if len(self._shapes) == 1 else (sum(map(math.prod, self._shapes)),)

    def _record(self, cut: Cut, x_t: Tensor, t: float, cond: Conditioning | None) -> Record:
        given = {} if cond is None else cond.rows(len(x_t), x_t)
        x_t = x_t if cond is None else torch.cat([x_t] * cond.passes)
        return cut.encode(**self.wiring.inputs(x_t, t, given), return_dict=False)

    def encode(self, x_t: Images, t: float, cond: Conditioning | None = None) -> CutEncoded:
        """Run the network up to the tap.

        Args:
            x_t: Noisy samples, (batch, channel, height, width), in any floating dtype.
            t: Model time.
            cond: Condition of the network; an unconditional network takes None.

        Returns:
            The features at the tap and all that `decode` needs.

        Raises:
            InputError: If a conditional network gets no condition, or an unconditional one gets some, or the size of
                h depends on the condition.
        """
        if self.is_conditional != (cond is not None):
            raise InputError("a network of text or classes needs a condition, and an unconditional one takes none")
        record = self._record(self._cut, x_t.to(self._dtype()), t, cond)
        found = tuple(tuple(h.shape[1:]) for h in record.h)
        if found != self._shapes:
            told = " and ".join(
                f"{here}, not {other}" for here, other in zip(found, self._shapes, strict=True) if here != other
            )
            raise InputError(f"tap {self.tap}: the size of h at this tap depends on the prompt: it is {told}")
        both = _plain(record.h[0]) if len(record.h) == 1 else torch.cat([h.flatten(1) for h in record.h], dim=1)
        guidance = 1.0 if cond is None else cond.guidance
        return CutEncoded(both[: len(x_t)], both, record, guidance, self._per_row)

    def decode(self, h: HBatch, encoded: CutEncoded) -> Images:
        """Run the network from the tap on.

        Args:
            h: Features at the tap, edited or not, (batch, *h_shape).
            encoded: Result of `encode` for the same samples.

        Returns:
            The network's raw output, shaped like x_t; `Process.to_eps` and `to_x0` read it.
        """
        batch = len(encoded.h)
        guided = len(encoded.both) > batch
        if guided:
            h = torch.cat([h, encoded.both[batch:] + (h - encoded.h)])
        output = _plain(self.wiring.output(self._cut.decode(encoded.record, self._edits(h, encoded))[0]))
        if not guided:
            return output
        prompted, unprompted = output.chunk(2)
        return unprompted + encoded.guidance * (prompted - unprompted)

    def _edits(self, h: Tensor, encoded: CutEncoded) -> list[Edit]:
        """The edit of each tap: h at the first; at every other its difference, added to what the tap computes."""
        if len(self._shapes) == 1:
            return [lambda _: h]
        first, *others = self._split(h)
        differences = [edited - usual for edited, usual in zip(others, encoded.record.h[1:], strict=True)]
        return [lambda _: first, *(_adding(difference) for difference in differences)]

    def _split(self, h: Tensor) -> list[Tensor]:
        parts = h.split([math.prod(shape) for shape in self._shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)]


def is_large(network: nn.Module) -> bool:
    """Whether a network has `LARGE` weights or more."""
    return sum(weight.numel() for weight in network.parameters()) >= LARGE


def _without_numbers(network: nn.Module) -> nn.Module:
    """A copy of a network that computes shapes alone, and takes no memory and no time."""
    weights = {id(each): nn.Parameter(each.to("meta"), requires_grad=False) for each in network.parameters()}
    return copy.deepcopy(network, {**weights, **{id(each): each.to("meta") for each in network.buffers()}})


def _plain(features: Tensor) -> Tensor:
    """Features of a convolution as the world outside of the network has them: row by row in memory."""
    return features.contiguous() if features.ndim == 4 else features


def _adding(difference: Tensor) -> Edit:
    return lambda computed: computed + difference
