"""Any network of diffusers cut at any of its modules, so that its features there can be read and edited.

The network's own `forward` runs twice. The first run records the outputs of the modules beside the way to the tap, and
ends at the tap. In the second run each of these modules answers with its recorded output, and the tap with the edited
one. Up to the tap this run computes only the arithmetic between modules; from the tap on it is the usual pass. Both
runs together therefore give the bits of an uncut pass with a forward hook at the tap.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten

from hspace.types import InputError

Edit = Callable[[Tensor], Tensor]
"""What takes the place of the features at a tap, as a function of them."""


@dataclass(frozen=True)
class Tap:
    """A place in a network: the output of one module.

    Attributes:
        path: Name of the module, as in `named_modules`.
        part: Index of the tapped part, where the output is a tuple; None where it is one tensor.
        tokens: Tapped tokens of a sequence that also holds text; None taps all of them.
        mask: Argument of the network that says which tokens of text count, where their number decides on which tokens
            the image is; `tokens` then hold only if all rows have as many.
    """

    path: str
    part: int | None = None
    tokens: slice | None = None
    mask: str | None = None

    def read(self, output: Any) -> Tensor:
        """The features at the tap, out of the module's output.

        Raises:
            InputError: If the output has parts and none is chosen, or is not a tensor.
        """
        if self.part is not None and not (isinstance(output, tuple | list) and self.part < len(output)):
            raise InputError(f"{self.path} gives {_described(output)}, so that there is no part [{self.part}]")
        found = output if self.part is None else output[self.part]
        if not isinstance(found, Tensor):
            raise InputError(f"{self.path} gives {_described(found)}; tap one tensor, as module:{self.path}[0]")
        return found if self.tokens is None else found[:, self.tokens]

    def write(self, output: Any, h: Tensor) -> Any:
        """The module's output with other features at the tap."""
        if self.tokens is not None:
            whole = output if self.part is None else output[self.part]
            first, last, _ = self.tokens.indices(whole.shape[1])
            h = torch.cat([whole[:, :first], h, whole[:, last:]], dim=1)
        return h if self.part is None else type(output)((*output[: self.part], h, *output[self.part + 1 :]))


@dataclass(frozen=True)
class Record:
    """All results of the pass up to the first tap that the rest of the pass needs.

    Attributes:
        args: Positional arguments of the network.
        kwargs: Keyword arguments of the network.
        outputs: Outputs of every recorded module, by its name, in the order of its calls.
        whole: The output of the first tap's module, with all its parts.
        h: Features at every tap, unedited, (rows, ...) each.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: dict[str, list[Any]]
    whole: Any
    h: tuple[Tensor, ...]

    def select(self, rows: Tensor, per_row: Sequence[int]) -> "Record":
        """The record of the given rows; a row may be named more than once.

        Args:
            rows: Indices of the network's rows.
            per_row: Number of entries on the first axis of every tensor that belong to one row; see `entries_per_row`.
        """
        leaves, tree = tree_flatten(_parts(self))
        taken = [_take(leaf, rows, count) for leaf, count in zip(leaves, per_row, strict=True)]
        args, kwargs, outputs, whole, h = tree_unflatten(taken, tree)
        return replace(self, args=args, kwargs=kwargs, outputs=outputs, whole=whole, h=h)


def entries_per_row(one: Record, two: Record) -> tuple[int, ...]:
    """Number of entries on the first axis of each recorded tensor that belong to one row; 0 where all rows share it.

    Args:
        one: A pass of one row.
        two: A pass of two rows.

    Raises:
        InputError: If the network keeps rows apart in some other way.
    """
    (few, tree), (many, other) = tree_flatten(_parts(one)), tree_flatten(_parts(two))
    if tree != other:
        raise InputError("the network's state depends on the batch size, so that its rows cannot be selected")
    return tuple(_first_axis(b) - _first_axis(a) for a, b in zip(few, many, strict=True))


def _parts(record: Record) -> tuple[Any, ...]:
    return record.args, record.kwargs, record.outputs, record.whole, record.h


def _first_axis(leaf: Any) -> int:
    return len(leaf) if isinstance(leaf, Tensor) and leaf.ndim else 0


def _take(leaf: Any, rows: Tensor, count: int) -> Any:
    if count == 0:
        return leaf
    return leaf.unflatten(0, (-1, count))[rows.to(leaf.device)].flatten(0, 1)


class _Reached(Exception):
    """Ends a pass at the last tap."""


class Cut:
    """A network with one or more taps."""

    def __init__(self, network: nn.Module, taps: Sequence[Tap]) -> None:
        """Find the modules.

        Args:
            network: The network, which is not changed.
            taps: Taps in the order in which the network calls their modules.

        Raises:
            InputError: If a module does not exist in the network.
        """
        self.network: nn.Module = network
        self.taps: tuple[Tap, ...] = tuple(taps)
        self._modules = [_module(network, tap.path) for tap in self.taps]
        self._frontier = dict(_frontier(network, self.taps[0].path))

    def encode(self, *args: Any, **kwargs: Any) -> Record:
        """Run the network up to its last tap.

        Args:
            args: The network's positional arguments.
            kwargs: Keyword arguments of the network.

        Raises:
            InputError: If the taps are not reached in their order, or the image is not on the same tokens in all rows.
        """
        self._check_lengths(args, kwargs)
        outputs: dict[str, list[Any]] = {}
        found: list[Any] = []

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if not found:
                    outputs.setdefault(name, []).append(output)

            return hook

        def reach(position: int) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if len(found) == position:
                    found.append(output)
                if len(found) == len(self.taps):
                    raise _Reached

            return hook

        with contextlib.ExitStack() as hooks:
            for name, module in self._frontier.items():
                hooks.callback(module.register_forward_hook(keep(name)).remove)
            for position, module in enumerate(self._modules):
                hooks.callback(module.register_forward_hook(reach(position)).remove)
            try:
                self.network(*args, **kwargs)
            except _Reached:
                h = tuple(tap.read(output) for tap, output in zip(self.taps, found, strict=True))
                return Record(args, kwargs, outputs, found[0], h)
        order = ", ".join(tap.path for tap in self.taps)
        raise InputError(f"the network does not call its modules in this order: {order}")

    def _check_lengths(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for tap in self.taps:
            if tap.mask is None:
                continue
            given = inspect.signature(self.network.forward).bind(*args, **kwargs).arguments
            if given[tap.mask].sum(dim=1).unique().numel() > 1:
                raise InputError(f"{tap.path} has the image on other tokens in every row: give prompts of equal length")

    def decode(self, record: Record, edits: Sequence[Edit]) -> Any:
        """Run the network from its first tap on.

        Args:
            record: Result of `encode`.
            edits: One edit per tap. The first gets the recorded features, every other one those that the edited pass
                has just computed.

        Returns:
            The network's own return value.
        """
        with contextlib.ExitStack() as stack:
            replayed = stack.enter_context(contextlib.ExitStack())

            def answer(*args: Any, **kwargs: Any) -> Any:
                replayed.close()
                return self.taps[0].write(record.whole, laid_out(edits[0](record.h[0]), record.h[0]))

            for name, outputs in record.outputs.items():
                _stand_in(replayed, self._frontier[name], _replay(outputs))
            _stand_in(replayed, self._modules[0], answer)
            for tap, module, edit in zip(self.taps[1:], self._modules[1:], edits[1:], strict=True):
                stack.callback(module.register_forward_hook(_editing(tap, edit)).remove)
            return self.network(*record.args, **record.kwargs)


def laid_out(features: Tensor, like: Tensor) -> Tensor:
    """The same numbers with channels last in memory where `like` has them so, by which later kernels are chosen."""
    if like.ndim != 4 or like.is_contiguous() or not like.is_contiguous(memory_format=torch.channels_last):
        return features
    # Under vmap there is no `contiguous` of another memory format.
    return features.movedim(1, -1).contiguous().movedim(-1, 1)


def _module(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError:
        raise InputError(f"{type(network).__name__} has no module {path!r} to tap") from None


def _frontier(network: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules beside the way from the network to a module; of a list of modules, its members."""
    names = path.split(".")
    for depth, name in enumerate(names):
        above = ".".join(names[:depth])
        for child, module in network.get_submodule(above).named_children():
            if child != name:
                yield from _called(".".join([*names[:depth], child]), module)


def _called(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        for name, member in module.named_children():
            yield from _called(f"{path}.{name}", member)
    else:
        yield path, module


def _stand_in(stack: contextlib.ExitStack, module: nn.Module, call: Callable[..., Any]) -> None:
    """Let a function answer for a module until the stack closes.

    It takes the place where torch puts a compiled module: before the module's hooks, which the recorded output has
    already passed.
    """
    before: Any = module._compiled_call_impl
    module._compiled_call_impl = call  # pyright: ignore[reportAttributeAccessIssue]

    def restore() -> None:
        module._compiled_call_impl = before

    stack.callback(restore)


def _replay(outputs: list[Any]) -> Callable[..., Any]:
    remaining = iter(outputs)
    return lambda *args, **kwargs: next(remaining)


def _editing(tap: Tap, edit: Edit) -> Callable[..., Any]:
    return lambda module, inputs, output: tap.write(output, edit(tap.read(output)))


def _described(output: Any) -> str:
    return f"{len(output)} parts" if isinstance(output, tuple | list) else f"a {type(output).__name__}"


@contextlib.contextmanager
def forward_derivatives(network: nn.Module) -> Iterator[None]:
    """Gives a network of diffusers forward derivatives inside this context, under `vmap` too.

    Fused attention has no forward derivative, and group normalisation has none for features that are not contiguous.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    with contextlib.ExitStack() as hooks, sdpa_kernel(SDPBackend.MATH):
        for norm in norms:
            hooks.callback(norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),)).remove)
        yield
