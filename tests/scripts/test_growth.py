"""Measured growth: exponents, and a point in a process of its own."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hspace.runs.errors import guarded


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    yield importlib.import_module("growth")
    for name in ("growth", "rows", "measuring", "comparators"):
        sys.modules.pop(name, None)


def test_an_exponent_is_that_of_a_power(growth: Any) -> None:
    assert growth.exponents((1, 2, 8), [3.0, 12.0, 192.0]) == ("2.00", "2.00")
    assert growth.exponents((1, 2, 4), [1.0, 1.0, 2.0]) == ("0.50", "1.00")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked, and their peaks read, on Linux")
def test_a_point_tells_the_time_and_the_memory_of_its_work_alone(growth: Any) -> None:
    seconds, grown = growth.alone(lambda value: lambda: torch.ones(value).exp_().sum(), 2**24)
    assert 0 < seconds < 10
    assert 0.95 * 2**26 < grown < 1.5 * 2**26  # the numbers take 64 MiB


def test_a_table_is_printed(growth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    work = growth.Growth((2**20, 2**21), lambda value: lambda: torch.ones(value))
    monkeypatch.setattr(growth, "ROWS", {"ones, n": work})
    monkeypatch.setattr(sys, "argv", ["growth.py"])
    assert guarded(growth.main) == 0
    *_, line = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| ones, n"))
    values = [cell.strip() for cell in line.split("|")]
    assert values[2] == "1048576 2097152" and len(values) == 10


def test_an_unknown_row_is_one_line(
    growth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["growth.py", "--rows", "samples"])
    assert guarded(growth.main) == 2
    assert "unknown row 'samples'" in capsys.readouterr().err
