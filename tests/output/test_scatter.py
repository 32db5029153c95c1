"""Figures of named points."""

from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from hspace.metrics.interval import Interval
from hspace.output.scatter import Point, apart, scatter_figure
from hspace.types import InputError

UNKNOWN = Interval(float("nan"), float("nan"), float("nan"), 0)


def test_every_panel_has_its_points(tmp_path: Path) -> None:
    points = [Point(f"method {i}", Interval(i, i - 1, i + 1, 5), Interval(0.5, 0.4, 0.6, 5), i > 2) for i in range(5)]
    path = scatter_figure({"one": points, "two": [*points, Point("unread", UNKNOWN, UNKNOWN)]}, tmp_path / "a.png",
                          x_label="x", y_label="y")  # fmt: skip
    with Image.open(path) as image:
        assert image.width > image.height
    text = path.with_suffix(".svg").read_text()
    assert text.count("method 4") == 2 and "unread" not in text, "what cannot be read has no place"
    with pytest.raises(InputError, match="needs at least one"):
        scatter_figure({}, tmp_path / "b.png", x_label="x", y_label="y")


@pytest.mark.parametrize("places", [[0.5] * 4, [0.0, 0.01, 0.02, 1.0], [0.9, 0.95, 1.0, 1.2], [0.1, 0.3, 0.31, 0.8]])
def test_names_keep_apart_and_inside(places: list[float]) -> None:
    found = apart(places, 0.1)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(found))
    assert -1e-9 <= found[0] and found[-1] <= 1 + 1e-9
