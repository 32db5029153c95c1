"""A device that this machine does not have: its tensors compute on the CPU and obey a GPU's rules.

A tensor of the device refuses what a GPU's tensor refuses: to meet a tensor of the CPU in an operation, to be read as a
numpy array, to be filled by a generator of the CPU. All values are real, so that whole runs work: gradients, reads of
numbers, selections by masks.

It stands on torch's private hooks for backends in Python (torch >= 2.10), and is for `fake_cuda.py` alone.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "fakecard"
SCALARS_MEET = ("_local_scalar_dense", "copy_", "_foreach_copy_")
"""Operations between devices."""
INDICES_MEET = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
"""Operations whose indices may lie on the CPU, while the other tensors do not."""
POINTWISE = {
    "add", "sub", "rsub", "mul", "div", "pow", "where", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge",
    "bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "remainder", "atan2", "fmod",
    "floor_divide", "addcmul", "addcdiv", "__and__", "__or__", "copysign", "hypot",
}  # fmt: skip
"""Operations that take a number of the CPU as a tensor without axes."""


class OtherDevice(RuntimeError):
    """Tensors of two devices met."""


class FakeTensor(Tensor):
    """A tensor of the device, around the one that holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "FakeTensor":
        """Around a tensor of the CPU."""
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        """Its values."""
        return f"{NAME}: {self.inner!r}"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Torch's own protocol."""
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(tensors: dict[str, Tensor], meta: Any, size: Any, stride: Any) -> "FakeTensor":
        """Torch's own protocol."""
        return FakeTensor(tensors["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Any operation with a tensor of the device."""
        return _run(func, args, kwargs or {})


class _Made(TorchDispatchMode):
    """Makes tensors of the device where its name is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Any operation at all."""
        return _run(func, args, kwargs or {})


class _MadeOfNumbers(TorchFunctionMode):
    """The functions that fill tensors from Python's own numbers, which no operation sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Makes the tensor on the CPU, and moves it."""
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if getattr(kwargs.get("generator"), "ours", False):
            with _drawing():
                return func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and device is not None:
            if torch.device(device).type == NAME and not isinstance(args[0], FakeTensor):
                return func(*args, **kwargs | {"device": "cpu"}).to(device)
        if func is Tensor.tolist and isinstance(args[0], FakeTensor):
            return args[0].inner.tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], tree_map_only(list, torch.tensor, args[1], is_leaf=_is_list), *args[2:])
        return func(*args, **kwargs)


_draws: ContextVar[bool] = ContextVar("draws", default=False)


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """Inside, a generator is one of the device's: operations see it without its mark."""
    token = _draws.set(True)
    try:
        yield
    finally:
        _draws.reset(token)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


@contextlib.contextmanager
def fake_device() -> Iterator[torch.device]:
    """The device, inside this context."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, _Backend())
    usual: Any = torch.Generator
    torch.Generator = _Generator  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with _MadeOfNumbers(), _Made():
            yield torch.device(NAME, 0)
    finally:
        torch.Generator = usual


class _Backend(_DummyBackendModule):
    """What torch asks a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Of autocast, which leaves the device's operations as they are."""
        return [torch.bfloat16, torch.float16]


class _Generator(torch.Generator):
    """A generator that knows of the device."""

    ours: bool

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        """One of the CPU, which is marked if it is to be the device's."""
        ours = torch.device(device).type == NAME
        made = super().__new__(cls, "cpu" if ours else device)  # pyright: ignore[reportCallIssue]
        made.ours = ours
        return made

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where it draws."""
        return torch.device(NAME, 0) if self.ours else super().device


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [leaf for leaf in leaves if isinstance(leaf, FakeTensor)]
    wanted = kwargs.get("device")
    wanted = None if wanted is None else torch.device(wanted).type
    if not ours and wanted != NAME:
        return func(*args, **kwargs)
    if name == "_fused_sdp_choice":
        return 0  # the plain one, which every device has
    _check(name, args, leaves, ours)
    here = wanted == NAME if wanted is not None else bool(ours)
    generator = kwargs.get("generator")
    if here and generator is not None and not _draws.get():
        raise OtherDevice(f"{name}: a generator of the {generator.device.type} draws on the device")
    inner_args, inner_kwargs = tree_map_only(FakeTensor, lambda t: t.inner, (args, kwargs))
    if wanted is not None:
        inner_kwargs["device"] = torch.device("cpu") if wanted == NAME else torch.device(wanted)
    if inner_kwargs.get("pin_memory"):
        inner_kwargs["pin_memory"] = False
    result = func(*inner_args, **inner_kwargs)
    if name == "_to_copy" and not here and wanted is not None and any(result is each.inner for each in ours):
        result = result.clone()
    if not here or name == "_local_scalar_dense":
        return result
    if name == "copy_" and not isinstance(args[0], FakeTensor):
        return args[0]
    wrapped = tree_map_only(Tensor, FakeTensor, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _check(name: str, args: Any, leaves: list[Tensor], ours: list[FakeTensor]) -> None:
    """Raises OtherDevice where a GPU would."""
    if not ours or len(ours) == len(leaves) or name in SCALARS_MEET:
        return
    strangers = [leaf for leaf in leaves if not isinstance(leaf, FakeTensor)]
    if name in INDICES_MEET and isinstance(args[0], FakeTensor):
        indices = [each for each in args[1] if each is not None]
        strangers = [each for each in strangers if not any(each is index for index in indices)]
    if name.rstrip("_") in POINTWISE or name in INDICES_MEET:
        strangers = [each for each in strangers if each.ndim]
    if strangers:
        shapes = ", ".join(str(tuple(each.shape)) for each in strangers)
        raise OtherDevice(f"{name}: tensors of the CPU {shapes} meet tensors of the device")
