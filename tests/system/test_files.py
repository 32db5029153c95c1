"""Atomic writes keep the old file on any failure and name the file in the error."""

import json
import os
import resource
from pathlib import Path

import pytest

from hspace.system.files import package_path, sha256_file, write_atomic, write_bytes, write_json, write_text


def test_writes_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": [1.5, None], "a": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [1.5, None], "a": "é"}
    assert os.listdir(path.parent) == ["a.json"]


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), write_atomic(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("half")
        raise KeyError("stopped")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_file_too_large_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_bytes(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_in_the_way_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / "file" / "a.txt", "x")
    assert str(tmp_path / "file") in str(caught.value)


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == []


def test_permissions_are_those_of_a_plain_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "")
    (tmp_path / "b.txt").write_text("")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_sha256(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_package_path_of_a_checkout() -> None:
    package = Path(__file__).resolve().parents[2] / "hspace"
    assert package_path("weights") == package / "weights"
    assert package_path("conf") in {package / "conf", package.parent / "conf"}
