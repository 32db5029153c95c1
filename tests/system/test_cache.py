"""Results of stages are built once, whole or not at all, and read back as they were written."""

import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from hspace.cli import main
from hspace.system.cache import cached, damage, entries, key_sha256, place, prune

KEY = {"a": 1, "b": [2]}


def write_42(folder: Path) -> None:
    (folder / "result.txt").write_text("42")
    (folder / "more").mkdir(exist_ok=True)
    (folder / "more" / "zeros").write_bytes(bytes(100))


def test_a_result_is_built_once_per_key(tmp_path: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        write_42(folder)

    first, again = (cached(tmp_path, "stage", KEY, build) for _ in range(2))
    assert first == again and (first / "result.txt").read_text() == "42" and len(built) == 1
    entry = json.loads((first / "entry.json").read_text())
    assert entry["key"] == KEY and set(entry["files"]) == {"result.txt", "more/zeros"}
    assert cached(tmp_path, "stage", {"a": 2, "b": [2]}, build) != first and len(built) == 2


def test_a_build_that_fails_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("stopped half-way")

    with pytest.raises(RuntimeError):
        cached(tmp_path, "stage", {"a": 1}, fail)
    assert [path for path in (tmp_path / "stage").iterdir() if path.suffix != ".lock"] == []
    folder = cached(tmp_path, "stage", {"a": 1}, lambda folder: None)
    assert [path.name for path in folder.iterdir()] == ["entry.json"]


def test_shards_outlive_a_failure_and_nothing_else_does(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        (folder / "shards").mkdir()
        (folder / "shards" / "0").write_text("first shard")
        raise OSError("disk full")

    def finish(folder: Path) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["entry.json", "shards"]
        (folder / "result.txt").write_text((folder / "shards" / "0").read_text())

    with pytest.raises(OSError):
        cached(tmp_path, "stage", KEY, fail)
    assert [entry.state for entry in entries(tmp_path)] == ["unfinished"]
    folder = cached(tmp_path, "stage", KEY, finish)
    assert sorted(path.name for path in folder.iterdir()) == ["entry.json", "result.txt"]
    assert damage(folder) is None


def test_keys_hash_by_content() -> None:
    assert key_sha256({"a": 1, "b": 2}) == key_sha256({"b": 2, "a": 1}) != key_sha256({"a": 2, "b": 1})


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: list[Callable[[Path], object]] = [flip, Path.unlink, lambda path: os.truncate(path, path.stat().st_size // 2)]


@pytest.mark.parametrize("spoil", DAMAGES, ids=["flip", "delete", "truncate"])
@pytest.mark.parametrize("name", ["result.txt", "more/zeros", "entry.json"])
def test_a_damaged_result_is_set_aside_and_built_again(
    spoil: Callable[[Path], object], name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cached(tmp_path, "stage", KEY, write_42)
    spoil(folder / name)
    with caplog.at_level(logging.WARNING, "hspace"):
        assert cached(tmp_path, "stage", KEY, write_42) == folder
    assert "is damaged" in caplog.text and "set aside" in caplog.text
    assert damage(folder) is None and (folder / "result.txt").read_text() == "42"
    assert [entry.state for entry in entries(tmp_path)].count("damaged") == 1


def test_every_byte_of_the_entry_file_counts_or_changes_nothing(tmp_path: Path) -> None:
    folder = cached(tmp_path, "stage", KEY, write_42)
    whole = (folder / "entry.json").read_bytes()
    for i in range(0, len(whole), 5):
        (folder / "entry.json").write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        path = cached(tmp_path, "stage", KEY, write_42)
        assert (path / "result.txt").read_text() == "42"


def _count_and_write(folder: Path) -> None:
    time.sleep(0.3)
    with (folder.parents[1] / "built").open("a") as file:
        file.write("x")
    write_42(folder)


def _cached(cache_dir: Path) -> str:
    return (cached(cache_dir, "stage", KEY, _count_and_write) / "result.txt").read_text()


def test_processes_share_one_build(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        assert list(pool.map(_cached, [tmp_path] * 3)) == ["42"] * 3
    assert (tmp_path / "built").read_text() == "x"


def unfinished(cache_dir: Path, key: dict[str, Any]) -> Path:
    """What a process that fails leaves of a result that has shards."""

    def fail(folder: Path) -> None:
        (folder / "shards").mkdir()
        (folder / "shards" / "0").write_text("first shard")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached(cache_dir, "stage", key, fail)
    return place(cache_dir, "stage", key).with_suffix(".tmp")


def test_prune_removes_what_no_run_can_use_and_on_request_what_none_has_used(tmp_path: Path) -> None:
    old, new, broken = (cached(tmp_path, "stage", {"a": i}, write_42) for i in range(3))
    (broken / "result.txt").write_text("43")
    cached(tmp_path, "stage", {"a": 2}, write_42)
    (new / "entry.json").write_text("[" * 100_000)
    cached(tmp_path, "stage", {"a": 1}, write_42)
    os.utime(old / "entry.json", (0, time.time() - 86400 * 40))
    working = unfinished(tmp_path, {"a": 3})
    with FileLock(working.with_suffix(".lock")):
        assert [entry.state for entry in prune(tmp_path)] == ["damaged"] * 2
    assert [entry.folder for entry in prune(tmp_path, 30)] == [working, old]
    assert {entry.folder for entry in entries(tmp_path)} == {new, broken}


NOT_RESULTS = [
    "photos/2024.tmp/a.jpg", "src/v1.0/main.py", f"stage/{'a' * 24}/entry.json", f"stage/{'a' * 24}.damaged-1/x",
    f"stage/{'b' * 24}.tmp/work.txt", f"stage/{'b' * 24}.lock", "notes.txt",
]  # fmt: skip


def test_prune_leaves_alone_what_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NOT_RESULTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"key": {}, "files": {}}')
    whole = cached(tmp_path / "real", "stage", KEY, write_42)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / whole.name).symlink_to(whole)
    for action in (["prune"], ["prune", "days=0"]):
        assert main(["cache", *action, f"cache_dir={tmp_path}"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "holds no result; nothing was removed" in err
    cached(tmp_path, "stage", KEY, write_42)
    assert main(["cache", "prune", f"cache_dir={tmp_path}", "days=0"]) == 0
    assert capsys.readouterr().out.startswith(f"stage/{whole.name}  ")
    assert all((tmp_path / name).is_file() for name in NOT_RESULTS) and whole.is_dir()
    assert main(["cache", "prune", f"cache_dir={tmp_path / 'nowhere'}"]) == 0


def test_the_command_lists_verifies_and_prunes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, where = cached(tmp_path, "stage", KEY, write_42), f"cache_dir={tmp_path}"
    assert main(["cache", "ls", where]) == main(["cache", "verify", where]) == 0
    assert capsys.readouterr().out.count(f"stage/{folder.name}  0.0 MB") == 2
    flip(folder / "result.txt")
    assert main(["cache", "verify", where]) == 1
    assert "result.txt has changed" in capsys.readouterr().out and folder.is_dir()
    cached(tmp_path, "stage", KEY, write_42)
    assert main(["cache", "prune", where]) == 0 and "1 results" in capsys.readouterr().out
    assert main(["cache", "prune", where, "days=0"]) == 0 and not entries(tmp_path)


@pytest.mark.parametrize("words", [["prun"], ["prune", "days=-1"], ["prune", "days=x"], ["ls", "days=3"]])
def test_a_mistake_in_the_command_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prune", "days=1", "days=2"], "hspace cache prune takes one number of days, got days=1 days=2"),
        (["ls", "cache_dir=null"], "cache_dir must be the path of a folder, got None"),
        (["verify", "cache_dir=5"], "cache_dir must be the path of a folder, got 5"),
        (["prune", "cache_dir=[a]"], "cache_dir must be the path of a folder, got ['a']"),
    ],
)
def test_a_mistake_at_the_command_line_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and line in err and err.count("\n") == 1
