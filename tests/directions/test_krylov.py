"""Triplets of known matrices."""

import logging
import math

import pytest
import torch
from torch import Tensor

from hspace.directions.krylov import Triplets, top_triplets
from hspace.types import InputError


class Matrix:
    """A matrix behind products, which are counted."""

    device = torch.device("cpu")

    def __init__(self, matrix: Tensor, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        self.matrix, self.in_shape, self.out_shape, self.dtype = matrix, in_shape, out_shape, matrix.dtype
        self.products = 0
        self.widest = 0

    def jvp(self, v: Tensor) -> Tensor:
        self.products, self.widest = self.products + len(v), max(self.widest, len(v))
        return (v.flatten(1) @ self.matrix.T).unflatten(1, self.out_shape)

    def vjp(self, u: Tensor) -> Tensor:
        self.products += len(u)
        return (u.flatten(1) @ self.matrix).unflatten(1, self.in_shape)


def slow_decay(dtype: torch.dtype = torch.float64) -> Matrix:
    """A 300 x 200 matrix whose singular values fall as slowly as those of a trained decoder: 1 / sqrt(j)."""
    generator = torch.Generator().manual_seed(1)
    u = torch.linalg.qr(torch.randn(300, 200, dtype=torch.float64, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(200, 200, dtype=torch.float64, generator=generator)).Q
    s = torch.arange(1, 201, dtype=torch.float64).rsqrt()
    return Matrix((u * s @ v.T).to(dtype), (2, 10, 10), (3, 10, 10))


def sine(a: Tensor, b: Tensor) -> float:
    """Sine of the largest principal angle between two subspaces given by orthonormal rows."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return float(torch.linalg.matrix_norm(b - (b @ a.T) @ a, ord=2))


def check(found: Triplets, matrix: Tensor, tolerance: float) -> None:
    k = len(found.s)
    u, s, vh = torch.linalg.svd(matrix.double())
    assert ((found.s - s[:k]) / s[:k]).abs().max() <= tolerance
    assert sine(found.v, vh[:k]) <= 10 * tolerance
    assert sine(found.u, u.T[:k]) <= 10 * tolerance


@pytest.mark.parametrize("block_size", [None, 1, 3, 7, 20])
def test_any_block_size_finds_the_same_as_an_explicit_svd(block_size: int | None) -> None:
    operator = slow_decay()
    found = top_triplets(operator, 8, tolerance=1e-9, block_size=block_size)
    check(found, operator.matrix, 1e-7)
    assert found.products == operator.products
    assert operator.widest == (block_size or 2)


def test_single_precision_reaches_its_own_rounding() -> None:
    operator = slow_decay(torch.float32)
    found = top_triplets(operator, 8, tolerance=1e-5)
    check(found, operator.matrix, 1e-4)
    gram = found.v.flatten(1) @ found.v.flatten(1).T
    assert (gram - torch.eye(8)).abs().max() <= 1e-5


def test_restarts_keep_memory_bounded_and_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    svd = torch.linalg.svd

    def spy(images: Tensor, **options: bool) -> object:
        widths.append(images.shape[1])
        return svd(images, **options)

    monkeypatch.setattr(torch.linalg, "svd", spy)
    operator = slow_decay()
    found = top_triplets(operator, 4, tolerance=1e-10, block_size=1)
    monkeypatch.undo()
    assert max(widths) == 2 * 4 + 10 * 1 and len(widths) > max(widths)
    check(found, operator.matrix, 1e-7)


def test_residuals_are_what_they_say() -> None:
    operator = slow_decay()
    found = top_triplets(operator, 5, tolerance=1e-3)
    v = found.v.flatten(1)
    difference = v @ operator.matrix.T @ operator.matrix - found.s[:, None] ** 2 * v
    expected = difference.norm(dim=1) / found.s[0] ** 2
    assert (found.residuals - expected).abs().max() <= 1e-12
    assert expected.max() <= 1e-3


def test_u_is_j_v_over_s_and_the_largest_entry_of_v_is_positive() -> None:
    operator = slow_decay()
    found = top_triplets(operator, 5)
    u = operator.jvp(found.v) / found.s[:, None, None, None]
    assert (found.u - u).abs().max() <= 1e-12
    v = found.v.flatten(1)
    assert (v.gather(1, v.abs().argmax(dim=1, keepdim=True)) > 0).all()
    assert (found.s.diff() <= 0).all()


def test_a_double_singular_value_is_found_twice() -> None:
    s = torch.tensor([1.0, 1.0, *torch.linspace(0.9, 0.1, 18)], dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).Q
    found = top_triplets(Matrix(s[:, None] * q, (20,), (20,)), 2, tolerance=1e-9, block_size=2)
    assert (found.s - 1).abs().max() <= 1e-9
    assert sine(found.v, q[:2]) <= 1e-7


@pytest.mark.parametrize("rank", [0, 3])
def test_more_triplets_than_the_rank_are_refused(rank: int) -> None:
    matrix = slow_decay().matrix[:, :rank] @ torch.eye(rank, 200, dtype=torch.float64)
    with pytest.raises(InputError, match=f"k must be at most {rank}, the number of nonzero singular values, got 4"):
        top_triplets(Matrix(matrix, (200,), (300,)), 4)
    if rank:
        assert len(top_triplets(Matrix(matrix, (200,), (300,)), rank).s) == rank


def test_what_cannot_converge_is_returned_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Noisy(Matrix):
        def jvp(self, v: Tensor) -> Tensor:
            return super().jvp(v) * (1 + 1e-3 * math.sin(self.products))

    base = slow_decay()
    with caplog.at_level(logging.WARNING, logger="hspace.directions.krylov"):
        found = top_triplets(Noisy(base.matrix, base.in_shape, base.out_shape), 2, tolerance=1e-9)
    assert "left a residual" in caplog.text
    assert found.residuals.max() > 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be from 1 to 200"),
        ({"k": 201}, "k must be from 1 to 200"),
        ({"k": 2, "block_size": 0}, "block_size must be from 1 to 200, got 0"),
        ({"k": 2, "tolerance": 0.0}, "tolerance must be in"),
        ({"k": 2, "tolerance": 1.0}, "tolerance must be in"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        top_triplets(slow_decay(), **options)  # pyright: ignore[reportArgumentType]
