"""The report of experiments, from records alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hspace.metrics.interval import Interval
from hspace.output.booklet import Chapter, publish, read_record, write_report
from hspace.output.figures import grid_figure
from hspace.output.tables import Table, write_csv, write_markdown
from hspace.types import InputError


@pytest.fixture
def chapters(tmp_path: Path) -> list[Chapter]:
    folder = tmp_path / "fig3"
    grid_figure(torch.zeros(2, 3, 8, 8), 2, folder / "figures" / "a.png")
    table = Table(("edit", "a|b"), (("x < y", Interval(0.5, 0.25, 0.75)),), "Effects & such.")
    write_csv(table, folder / "tables" / "t.csv")
    write_markdown(table, folder / "tables" / "t.md")
    record: dict[str, Any] = {
        "title": "Components", "expect": "pose", "conclusion": "5 < 8 components",
        "figures": {"A sheet": "figures/a.png"},
        "tables": ["t"], "seconds": 12.3, "date": "2026-01-02", "commit": "abc",
        "config": {
            "diffusion": {"num_steps": 10, "eta": 1.0}, "model": {"name": "portraits"}, "study": {"repeats": 3},
            "evaluation": {"num_samples": 7, "judge": "j", "annotator": "a"},
        },
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(record))
    return [
        Chapter("fig3", read_record(folder / "result.json"), "fig3", "hspace experiment=fig3"),
        Chapter("fig18", None, "fig18", "hspace experiment=fig18", "needs hub weights"),
    ]


def test_both_pages_say_what_came_out_and_what_was_not_run(chapters: list[Chapter], tmp_path: Path) -> None:
    markdown, page = (path.read_text() for path in write_report(chapters, tmp_path, "Few samples."))
    for text in (
        "Few samples.",
        "7 samples in each of 3 repeats, 10 steps",
        "hspace experiment=fig3",
        "needs hub weights",
    ):
        assert text in markdown and text in page
    assert "5 < 8 components" in markdown and "5 &lt; 8 components" in page
    assert "![A sheet](fig3/figures/a.png)" in markdown and 'src="fig3/figures/a.png"' in page
    assert "<th>a|b</th>" in page and "<td>.5 [.25, .75]</td>" in page and "<td>x &lt; y</td>" in page


def test_a_remark_ends_every_caption(chapters: list[Chapter], tmp_path: Path) -> None:
    marked = [replace(chapter, remark="Few samples.") for chapter in chapters]
    for path in write_report(marked, tmp_path):
        text = path.read_text()
        assert "A sheet. Few samples." in text and "such. Few samples." in text


def test_a_published_report_is_light_and_whole(chapters: list[Chapter], tmp_path: Path) -> None:
    publish(chapters, tmp_path, tmp_path / "docs", "Full sizes.")
    copy = tmp_path / "docs" / "fig3"
    assert (copy / "result.json").is_file() and (copy / "tables" / "t.csv").is_file()
    assert (copy / "figures" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "Full sizes." in (tmp_path / "docs" / "report.md").read_text()
    assert not (tmp_path / "docs" / "fig18").exists()


def test_a_broken_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[1]")
    with pytest.raises(InputError, match="no record of an experiment"):
        read_record(tmp_path / "result.json")
