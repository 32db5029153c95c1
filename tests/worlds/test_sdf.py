"""Signed distances against closed forms."""

import math

import pytest
import torch

from hspace.worlds.sdf import both, box, coverage, ellipse, outline, pixel_grid, superellipse


@pytest.mark.parametrize("size", [16, 33, 128])
def test_coverage_of_a_disc_is_its_area(size: int) -> None:
    x, y = pixel_grid(size)
    area = coverage(ellipse(x, y, 0.1, -0.2, 0.5, 0.5), size).sum() * (2 / size) ** 2
    assert area == pytest.approx(math.pi / 4, rel=0.01)


def test_circles_and_boxes_are_exact_distances() -> None:
    x, y = torch.tensor([[[1.0]]]), torch.tensor([[[1.0]]])
    assert ellipse(x, y, 0, 0, 0.5, 0.5).item() == pytest.approx(math.sqrt(2) - 0.5, abs=1e-6)
    assert box(x, y, 0, 0, 0.5, 0.25).item() == pytest.approx(math.hypot(0.5, 0.75), abs=1e-6)


def test_a_superellipse_of_power_two_has_the_ellipse_as_boundary() -> None:
    angle = torch.linspace(0, 6.2, 50).view(1, 1, -1)
    x, y = 0.3 * angle.cos(), 0.6 * angle.sin()
    for shape in (superellipse(x, y, 0.0, 0.0, 0.3, 0.6, 2.0), ellipse(x, y, 0, 0, 0.3, 0.6)):
        assert shape.abs().max() < 1e-5


def test_outlines_and_intersections() -> None:
    x, y = pixel_grid(64)
    disc = ellipse(x, y, 0, 0, 0.5, 0.5)
    ring = outline(disc, 0.1) < 0
    assert torch.equal(ring, (x.square() + y.square()).sqrt().sub(0.5).abs() < 0.1)
    assert torch.equal(both(disc, x, y) < 0, (disc < 0) & (x < 0) & (y < 0))
