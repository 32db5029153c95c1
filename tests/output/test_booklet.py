"""The report of experiments, from records alone."""

import gzip
import html
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import sync_playwright

from hspace.metrics.interval import Interval
from hspace.output.animation import to_pixels
from hspace.output.booklet import Chapter, publish, read_record, write_report
from hspace.output.drawing import STRIP, save
from hspace.output.figures import grid_figure, strip_figure
from hspace.output.tables import Table, write_csv, write_table
from hspace.output.webpage import tiles_of
from hspace.types import InputError


@pytest.fixture
def chapters(tmp_path: Path) -> list[Chapter]:
    folder = tmp_path / "fig3"
    grid_figure(torch.zeros(2, 3, 8, 8), 2, folder / "figures" / "a.png")
    table = Table(("edit", "a|b"), (("x < y", Interval(0.5, 0.25, 0.75, 20)),), "Effects & such.")
    write_table(table, folder / "tables" / "t")
    write_csv(table, folder / "samples" / "scores.csv")
    record: dict[str, Any] = {
        "title": "Components", "expect": "pose", "conclusion": "5 < 8 components",
        "figures": {"A sheet": "figures/a.png"},
        "tables": ["t"], "samples": ["scores"], "seconds": 12.3, "date": "2026-01-02", "commit": "abc",
        "config": {
            "diffusion": {"num_steps": 10, "eta": 1.0}, "model": {"name": "portraits"}, "study": {"repeats": 3},
            "evaluation": {"num_samples": 7, "judge": "j", "annotator": "a"},
        },
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return [
        Chapter("fig3", read_record(folder / "run.json"), "fig3", "hspace experiment=fig3"),
        Chapter("fig18", None, "fig18", "hspace experiment=fig18", "needs hub weights"),
    ]


def test_both_pages_say_what_came_out_and_what_was_not_run(chapters: list[Chapter], tmp_path: Path) -> None:
    markdown, page = (path.read_text() for path in write_report(chapters, tmp_path, "Few samples."))
    for text in (
        "Few samples.",
        "7 samples in each of 3 draws, 10 steps",
        "hspace experiment=fig3",
        "needs hub weights",
    ):
        assert text in markdown and text in page
    assert "5 &lt; 8 components" in markdown and "5 &lt; 8 components" in page
    assert "![A sheet](fig3/figures/a.png)" in markdown and 'src="fig3/figures/a.png"' in page
    assert "<th>a|b</th>" in page and "<td>.50 ± .25</td>" in page and "<td>x &lt; y</td>" in page


def test_a_strip_is_a_slider_whose_tiles_are_the_pictures(chapters: list[Chapter], tmp_path: Path) -> None:
    images = torch.rand(2, 3, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    path = tmp_path / "fig3" / "figures" / "a.png"
    strip_figure(images, ["first\nnote", "<b>"], [-1.5, 0, 1.5], "Strip", path, tile=16)
    found = tiles_of(path)
    assert found is not None and found["columns"] == ["-1.5", "unedited", "+1.5"] and found["rows"][1] == "<b>"
    whole = np.array(Image.open(path).convert("RGB"))
    for row, y in enumerate(found["y"]):
        for sample, places in enumerate(found["x"]):
            for column, x in enumerate(places):
                tile = whole[y : y + 16, x : x + 16]
                large = torch.nn.functional.interpolate(
                    images[row, sample, column][None], scale_factor=2, mode="bicubic"
                )
                assert np.array_equal(tile, to_pixels(large)[0])
    page = write_report(chapters, tmp_path)[1].read_text()
    assert page.count('class="strip"') == 1 and "&lt;b&gt;" in page and "<b>" not in page.split("data-strip")[1][:400]
    assert '<tr id="row-fig3"><td><a href="#fig3">fig3</a></td><td class="wide">Components</td>' in page


@pytest.mark.parametrize(
    "note",
    ["[]", "{", "[" * 100_000, '{"tile": [Infinity, 1], "rows": [], "columns": [], "x": [[0]], "y": [0]}',
     '{"tile": [1, 1], "rows": ["a"], "columns": [], "x": [[0]], "y": [0]}'],
)  # fmt: skip
def test_what_is_no_strip_has_no_slider(note: str, tmp_path: Path) -> None:
    figure = Figure(figsize=(1, 1))
    assert tiles_of(save(figure, tmp_path / "a.png", texts={STRIP: note})) is None
    assert tiles_of(tmp_path / "none.png") is None


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium (Debian: apt install chromium)")
def test_the_page_filters_enlarges_and_slides(chapters: list[Chapter], tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 3, 8, 8)
    strip_figure(images, ["first", "second"], [-1, 0, 1], "Strip", tmp_path / "fig3" / "figures" / "a.png", tile=16)
    _, path = write_report(chapters, tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page, errors, asked = browser.new_page(), list[str](), list[str]()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert page.inner_text("#count") == "2 of 2 shown"
        page.fill("#words", "components pose")
        assert page.is_visible("#fig3") and page.is_hidden("#fig18") and page.is_hidden("#row-fig18")
        page.fill("#words", "")
        page.select_option("#kind", "missing")
        assert page.is_hidden("#fig3") and page.is_visible("#row-fig18")
        page.select_option("#kind", "")
        tile = ".strip .tile"
        assert page.get_attribute(tile, "aria-label") == "first at unedited"
        before = page.eval_on_selector(tile, "tile => tile.style.backgroundPosition")
        page.focus(".strip input")
        page.keyboard.press("End")
        assert page.get_attribute(tile, "aria-label") == "first at +1"
        assert page.eval_on_selector(tile, "tile => tile.style.backgroundPosition") != before
        page.click("figure a")
        assert page.eval_on_selector("dialog", "dialog => dialog.open")
        page.keyboard.press("Escape")
        assert not page.eval_on_selector("dialog", "dialog => dialog.open")
        assert errors == [] and all(url.startswith(("file:", "data:")) for url in asked)
        browser.close()


def test_a_remark_ends_every_caption(chapters: list[Chapter], tmp_path: Path) -> None:
    marked = [replace(chapter, remark="Few samples.") for chapter in chapters]
    for path in write_report(marked, tmp_path):
        text = path.read_text()
        assert "A sheet. Few samples." in text and "such. n (visible) = 20. Few samples." in text


def test_a_published_report_is_light_and_whole(chapters: list[Chapter], tmp_path: Path) -> None:
    publish(chapters, tmp_path, tmp_path / "docs", "Full sizes.")
    copy = tmp_path / "docs" / "fig3"
    assert (copy / "run.json").is_file() and (copy / "tables" / "t.csv").is_file()
    scores = gzip.decompress((copy / "scores.csv.gz").read_bytes())
    assert scores == (tmp_path / "fig3" / "samples" / "scores.csv").read_bytes()
    assert (copy / "figures" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "Full sizes." in (tmp_path / "docs" / "report.md").read_text()
    assert not (tmp_path / "docs" / "fig18").exists()


def test_a_broken_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(InputError, match="not a record of an experiment"):
        read_record(tmp_path / "run.json")


@pytest.mark.parametrize(
    "spoil",
    [
        {"title": 3}, {"expect": None}, {"conclusion": {}}, {"config": {}}, {"config": []}, {"seconds": "x"},
        {"figures": [1]}, {"tables": 3}, {"config": {"study": {"repeats": "3"}}},
    ],
)  # fmt: skip
def test_a_record_of_wrong_types_is_one_line(spoil: dict[str, Any], chapters: list[Chapter], tmp_path: Path) -> None:
    assert chapters[0].record is not None
    (tmp_path / "run.json").write_text(json.dumps(chapters[0].record | spoil))
    with pytest.raises(InputError, match="not a record of an experiment") as caught:
        read_record(tmp_path / "run.json")
    assert "\n" not in str(caught.value)


def test_a_deeply_nested_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"a":' * 50_000)
    with pytest.raises(InputError, match="not a record of an experiment"):
        read_record(tmp_path / "run.json")


OUTSIDE = ["../secret", "a/../../secret", "/etc/passwd", "C:\\secret", "\\\\host\\share", "..\\secret", "a\0b", 3, None]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_record_that_names_files_outside_its_folder_is_refused(
    name: Any, chapters: list[Chapter], tmp_path: Path
) -> None:
    assert chapters[0].record is not None
    for spoil in ({"figures": {"A sheet": name}}, {"tables": [name]}):
        (tmp_path / "run.json").write_text(json.dumps(chapters[0].record | spoil))
        with pytest.raises(InputError, match="must name files inside its folder"):
            read_record(tmp_path / "run.json")


NAME = '<img src=x onerror=alert(1)> *bold* [link](http://a) `code` a|b \\ & &lt; _it_ snake_case "quoted"'


def test_names_are_text_on_both_pages(chapters: list[Chapter], tmp_path: Path) -> None:
    record, folder = chapters[0].record, tmp_path / "fig3"
    assert record is not None
    write_table(Table((NAME,), ((f'"{NAME}',),), NAME), folder / "tables" / "t")
    record |= {"title": NAME, "conclusion": NAME, "figures": {NAME: "figures/a.png"}}
    (folder / "run.json").write_text(json.dumps(record))
    told = [replace(chapters[0], record=read_record(folder / "run.json"))]
    markdown, page = (path.read_text() for path in write_report(told, tmp_path))
    assert "<img src=x" not in markdown + page and "[link]" not in markdown and "*bold*" not in markdown
    assert page.count(html.escape(NAME)) >= 6 and "snake_case" in markdown
    assert f"<td>{html.escape(chr(34) + NAME)}</td>" in page
