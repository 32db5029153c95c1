"""The same values and derivatives as torch's own convolution."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hspace.directions import convolution
from hspace.directions.convolution import LeanConvolutions

OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": (3, 2), "padding": (0, 1), "stride": (2, 1), "bias": False},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    {"kernel_size": 3, "padding": "same"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_products_are_those_of_torch(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, **options).double().requires_grad_(False)
    x, v = torch.randn(3, 4, 9, 8, dtype=torch.float64, requires_grad=True), torch.randn(3, 4, 9, 8).double()
    expected = torch.func.jvp(lambda x: layer(x).tanh(), (x.detach(),), (v,))[1]
    with LeanConvolutions():
        value = layer(x).tanh()
    assert torch.equal(value, layer(x).tanh())
    u = torch.randn_like(value, requires_grad=True)
    (pulled,) = torch.autograd.grad(value, x, u, create_graph=True)
    (product,) = torch.autograd.grad(pulled, u, v)
    assert (product - expected).abs().max() <= 1e-12
    assert abs((product * u).sum() - (pulled * v).sum()) <= 1e-10


def test_a_second_derivative_runs_one_convolution() -> None:
    """Should torch no longer compute the unwanted one, this module can go."""
    layer = nn.Conv2d(4, 6, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)

    def convolutions() -> int:
        value = layer(x)
        u = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, x, u, create_graph=True)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            torch.autograd.grad(pulled, u, x)
        kernels = ("aten::_convolution", "aten::convolution_backward")
        return sum(event.name in kernels for event in profile.events() or [])

    plain = convolutions()
    with LeanConvolutions():
        lean = convolutions()
    assert (plain, lean) == (2, 1)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_constant_channels_are_convolved_once(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.GroupNorm(groups, 12), nn.SiLU(), nn.Dropout(), nn.Conv2d(12, 4, 3, padding=1))
    block = block.double().eval().requires_grad_(False)
    x, v = torch.randn(2, 5, 6, 6, dtype=torch.float64, requires_grad=True), torch.randn(2, 5, 6, 6).double()
    skip = torch.randn(2, 7, 6, 6, dtype=torch.float64)

    def features(x: Tensor) -> Tensor:
        return block(torch.cat([x, skip], dim=1))

    expected = torch.func.jvp(features, (x.detach(),), (v,))[1]
    widths: list[int] = []
    apply = convolution._Convolution.apply
    monkeypatch.setattr(
        convolution._Convolution, "apply", lambda x, *rest: widths.append(x.shape[1]) or apply(x, *rest)
    )
    with LeanConvolutions():
        value = features(x)
    assert widths == [{2: 6, 3: 8, 6: 6}[groups]]
    u = torch.randn_like(value, requires_grad=True)
    (pulled,) = torch.autograd.grad(value, x, u, create_graph=True)
    (product,) = torch.autograd.grad(pulled, u, v)
    assert (value - features(x)).abs().max() <= 1e-12
    assert (product - expected).abs().max() <= 1e-12
    assert abs((product * u).sum() - (pulled * v).sum()) <= 1e-10
