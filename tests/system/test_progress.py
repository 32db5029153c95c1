"""A bar says which stage it belongs to, at a terminal alone, and not under --quiet."""

import io
import logging
import sys

import pytest

from hspace.system.progress import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "level", "shown"),
    [(Terminal(), logging.INFO, True), (Terminal(), logging.WARNING, False), (io.StringIO(), logging.INFO, False)],
    ids=["terminal", "quiet", "file"],
)
def test_a_bar_names_its_stage(stream: io.StringIO, level: int, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger("hspace"), "level", level)
    assert list(bar(range(3), stage="read", total=3)) == [0, 1, 2]
    assert ("read:" in stream.getvalue()) is shown and (shown or not stream.getvalue())
