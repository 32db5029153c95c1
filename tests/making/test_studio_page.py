"""The measurement of the studio's page does not wait for ever for a server."""

from pathlib import Path

import psutil
import pytest
import studio_page

from hspace.types import InputError


def test_a_server_that_says_no_address_is_ended(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(InputError, match=r"printed no address within 0 s"), studio_page.served("x", tmp_path, within=0):
        pass
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_server_that_ends_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_page.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="hspace studio ended"), studio_page.served("x", tmp_path):
        pass
