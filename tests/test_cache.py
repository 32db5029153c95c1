"""Results of stages are built once, whole or not at all."""

import json
from pathlib import Path

import pytest

from hspace.cache import cached, key_sha256


def test_a_result_is_built_once_per_key(tmp_path: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "result.txt").write_text("42")

    first, again = (cached(tmp_path, "stage", {"a": 1, "b": [2]}, build) for _ in range(2))
    assert first == again and (first / "result.txt").read_text() == "42" and len(built) == 1
    assert json.loads((first / "key.json").read_text()) == {"a": 1, "b": [2]}
    assert cached(tmp_path, "stage", {"a": 2, "b": [2]}, build) != first and len(built) == 2


def test_a_build_that_fails_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("stopped half-way")

    with pytest.raises(RuntimeError):
        cached(tmp_path, "stage", {"a": 1}, fail)
    assert [path for path in (tmp_path / "stage").iterdir() if path.suffix != ".lock"] == []
    folder = cached(tmp_path, "stage", {"a": 1}, lambda folder: None)
    assert [path.name for path in folder.iterdir()] == ["key.json"]


def test_keys_hash_by_content() -> None:
    assert key_sha256({"a": 1, "b": 2}) == key_sha256({"b": 2, "a": 1}) != key_sha256({"a": 2, "b": 1})
