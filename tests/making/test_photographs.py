"""The table of what `hspace edit` keeps, on one render, and the frames of the animation."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.slow
def test_the_table_says_that_nothing_changes_outside_the_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = importlib.import_module("photographs")
    monkeypatch.setattr(photographs, "RENDERS", 1)
    monkeypatch.chdir(tmp_path)
    assert photographs.main([]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [row[2] for row in rows] == ["1", "1", "1"] and [row[5] for row in rows] == ["0", "0", "0"]
    assert all(float(row[3]) < 0.2 for row in rows)
    assert os.listdir(tmp_path) == ["outputs"]


def test_every_frame_moves_every_slider() -> None:
    animation = importlib.import_module("animation")
    tile = np.zeros((animation.SIDE, animation.SIDE, 3), dtype=np.uint8)
    columns, strengths = len(animation.NAMES), [[-1.5, 0.0, 2.0]] * len(animation.NAMES)
    tiles = [[[tile] * 3] * 2] * columns
    first, last = (animation.frame(tiles, strengths, at) for at in (0, 2))
    changed = (first != last).any(axis=2)
    assert not changed[: -animation.FOOT - animation.GAP].any()
    width = animation.SIDE + animation.GAP
    assert all(changed[-animation.FOOT :, column * width : (column + 1) * width].any() for column in range(columns))
