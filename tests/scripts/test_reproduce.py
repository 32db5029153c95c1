"""Which evaluation samples may be published: every block under one state of weights, methods and metrics."""

import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from hspace.runs import blocks
from hspace.runs.blocks import block_for, log_reading, read_log
from hspace.types import InputError
from scripts import reproduce

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_no_two_publications_share_a_block() -> None:
    states = defaultdict(set)
    for row in read_log(RESULTS / reproduce.LOG):
        states[int(row["block"])].add(row["state"])
    assert 0 not in states and all(len(each) == 1 for each in states.values())


def test_what_is_published_was_logged() -> None:
    blocks = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["config"]["evaluation"].get("block")
        for path in RESULTS.glob("*/run.json")
    }
    published = {(experiment, block) for experiment, block in blocks.items() if block is not None}
    assert published and published <= {
        (row["experiment"], int(row["block"])) for row in read_log(RESULTS / reproduce.LOG)
    }


def test_a_changed_state_takes_the_next_block_and_the_same_one_its_own(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    assert block_for(read_log(path), "a") == 1
    log_reading(path, "c0ffee", 1, "fig3", "a")
    log_reading(path, "c0ffee", 1, "fig3", "a")
    assert [tuple(row.values())[1:] for row in read_log(path)] == [("c0ffee", "1", "fig3", "a")]
    assert block_for(read_log(path), "a") == 1 and block_for(read_log(path), "b") == 2
    for block, reason in ((1, "under other weights"), (0, "everyday runs")):
        with pytest.raises(InputError, match=reason):
            log_reading(path, None, block, "fig3", "b")
    assert len(read_log(path)) == 1


def test_what_is_compared_again_has_a_block_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    first, again = (reproduce.log_readings([name], []) for name in ("compare_methods", "compare_again"))
    assert (first, again) == (1, 2)
    assert reproduce.log_readings(["compare_again"], []) == 2, "which it reads again"
    with pytest.raises(InputError, match="compare_again reads a block that the others have not read"):
        reproduce.log_readings(["compare_methods", "compare_again"], [])


def test_the_state_looks_into_rooms_that_there_are() -> None:
    assert all(list((blocks.PACKAGE / room).glob("*.py")) for room in blocks.ROOMS)


def test_the_state_knows_settings_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in blocks.ROOMS:
        (tmp_path / room).mkdir()
    monkeypatch.setattr(blocks, "PACKAGE", tmp_path)
    found = [blocks.state(overrides) for overrides in ([], ["seed=1"], [])]
    (tmp_path / "metrics" / "effect.py").write_text("unit = 2")
    assert found[0] == found[2] and len({*found, blocks.state([])}) == 3


def test_a_stranger_in_the_log_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("date,block\n2026-01-01,1\n")
    with pytest.raises(InputError, match="must have the columns date, commit, block"):
        read_log(path)


def test_publishing_is_logged_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    seen = []

    def chapter(name: str, output: Path, overrides: list[str]) -> reproduce.Chapter:
        with (tmp_path / reproduce.LOG).open() as file:
            seen.append((name, overrides[-1], [row["experiment"] for row in csv.DictReader(file)]))
        return reproduce.Chapter(name, None, name, "", "not run")

    monkeypatch.setattr(reproduce, "chapter", chapter)
    assert reproduce.main(["fig3", "fig4", "seed=0", "--publish", "--output", str(tmp_path / "out")]) == 0
    assert seen == [(name, "evaluation.block=1", ["fig3", "fig4"]) for name in ("fig3", "fig4")]
    for words in (["fig3", "evaluation.block=0"], ["fig3", "--fast"]):
        with pytest.raises(InputError, match="takes the next evaluation block itself"):
            reproduce.main([*words, "--publish", "--output", str(tmp_path / "out")])


def test_block_zero_is_not_published(tmp_path: Path) -> None:
    record = {"config": {"evaluation": {"block": 0}}}
    with pytest.raises(InputError, match="fig3 was read on evaluation block 0"):
        reproduce.publish_results([reproduce.Chapter("fig3", record, "fig3", "")], tmp_path)


def test_what_is_not_made_again_stays_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, output = tmp_path / "results", tmp_path / "out"
    for name, folder in (("fig2", results), ("fig3", output)):
        shutil.copytree(RESULTS / name, folder / name)
    for folder, name in ((results, "fig2"), (output, "fig3")):
        path = folder / name / "run.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        record["config"]["evaluation"]["block"] = 3
        record |= {"samples": [], "tables": [], "model": {"id": "portraits", "sha256": "other"}}
        path.write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(reproduce, "RESULTS", results)
    record = reproduce.read_record(output / "fig3" / "run.json")
    reproduce.publish_results([reproduce.Chapter("fig3", record, "fig3", "")], output)
    first, second = (results / "report.md").read_text(encoding="utf-8").split("## fig3")
    assert "## fig2" in first and "earlier version" in first and "earlier version" not in second
    assert (results / "fig3" / "run.json").is_file() and (results / "fig2" / "run.json").is_file()
