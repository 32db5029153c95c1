"""One report of many experiments, drawn from their records only, as Markdown and as HTML."""

import gzip
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

from PIL import Image

from hspace.output import webpage
from hspace.output.tables import escape_markdown, read_markdown
from hspace.system.files import read_json, write_bytes, write_text
from hspace.types import InputError, one_line

PICTURE_COLOURS, PICTURE_WIDTH = 96, 900
"""Number of colours, and largest width in pixels, of a published picture."""


@dataclass(frozen=True)
class Chapter:
    """One experiment in the report.

    Attributes:
        id: Name of the experiment.
        record: Record that `report.write` kept; None if the experiment was not run.
        folder: Folder of its figures and tables, relative to the report.
        command: Command that runs it again.
        missing: Reason why it was not run, if so.
        remark: Text at the end of every caption, such as that samples are few.
    """

    id: str
    record: dict[str, Any] | None
    folder: str
    command: str
    missing: str = ""
    remark: str = ""

    def caption(self, text: str) -> str:
        """A caption with the remark."""
        return f"{text.rstrip('.')}. {self.remark}" if self.remark else text


def read_record(path: Path) -> dict[str, Any]:
    """An experiment's record, which anyone may have written.

    Raises:
        InputError: If the file is not a record, or names files outside its folder.
        OSError: If the file cannot be read, because there is none perhaps.
    """
    try:
        record = read_json(path)
        record = {**record, "figures": dict(record["figures"]), "tables": list(record["tables"])}
        record["samples"] = list(record.get("samples", []))
        told = [record["title"], *record["figures"], *(text for _, text in _facts(Chapter("", record, "", "")))]
        if not all(isinstance(text, str) for text in told):
            raise TypeError("what it says must be text")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a record of an experiment: {one_line(error)}") from None
    for name in [*record["figures"].values(), *record["tables"], *record["samples"]]:
        if not _is_inside(name):
            raise InputError(f"{path} must name files inside its folder, got {name!r}")
    return record


def _is_inside(name: Any) -> bool:
    """Whether it is a relative path that does not leave its folder, on any system."""
    if not isinstance(name, str) or not name.isprintable():
        return False
    return not any(
        kind(name).is_absolute() or kind(name).drive or ".." in kind(name).parts
        for kind in (PurePosixPath, PureWindowsPath)
    )


def write_report(chapters: Sequence[Chapter], root: Path, note: str = "") -> tuple[Path, Path]:
    """Writes report.md and report.html into `root`.

    Args:
        chapters: Chapters in reading order.
        root: Folder of the report, which holds the chapters' folders.
        note: Text above all chapters, such as that samples are few.

    Returns:
        Paths of the Markdown and of the HTML page.
    """
    markdown = ["# The paper, experiment by experiment", "", *([note, ""] if note else [])]
    for chapter in chapters:
        markdown += _markdown(chapter, root)
    write_text(root / "report.md", "\n".join(markdown))
    rows, parts = [_row(each) for each in chapters], [_html(each, root) for each in chapters]
    write_text(root / "report.html", webpage.page("The paper, experiment by experiment", note, rows, parts))
    return root / "report.md", root / "report.html"


def publish(chapters: Sequence[Chapter], root: Path, target: Path, note: str, *, order: Sequence[Chapter] = ()) -> None:
    """Writes a light copy of a report to keep beside the code: records, tables, scores, small pictures, and the page.

    Args:
        chapters: Chapters of the report in `root`.
        root: Folder of the report.
        target: Folder to write; pictures are reduced to few colours.
        note: Text above all chapters.
        order: All chapters of the page, of which `target` has the others already; the given ones alone by default.
    """
    for chapter in chapters:
        if chapter.record is None:
            continue
        source, copy = root / chapter.folder, target / chapter.folder
        shutil.rmtree(copy, ignore_errors=True)
        for picture in chapter.record["figures"].values():
            _shrink(source / picture, copy / picture)
        for table in (f"tables/{name}.{kind}" for name in chapter.record["tables"] for kind in ("csv", "md", "tex")):
            write_bytes(copy / table, (source / table).read_bytes())
        for name in chapter.record.get("samples", []):
            # Without a time, so that equal scores are equal bytes.
            scores = (source / "samples" / f"{name}.csv").read_bytes()
            write_bytes(copy / f"{name}.csv.gz", gzip.compress(scores, mtime=0))
        write_bytes(copy / "run.json", (source / "run.json").read_bytes())
    write_report(order or chapters, target, note)
    (target / "report.html").unlink()


def _shrink(source: Path, target: Path) -> None:
    picture = Image.open(source).convert("RGB")
    scale = min(PICTURE_WIDTH / picture.width, 1)
    size = (round(picture.width * scale), round(picture.height * scale))
    small = picture.resize(size, Image.Resampling.LANCZOS).quantize(PICTURE_COLOURS, kmeans=1)
    target.parent.mkdir(parents=True, exist_ok=True)
    small.save(target, optimize=True)


def _facts(chapter: Chapter) -> list[tuple[str, str]]:
    """The facts above the pictures of an experiment."""
    record = chapter.record
    if record is None:
        return [("Not run", chapter.missing)]
    config, commit = record["config"], record["commit"] or "unknown"
    diffusion, evaluation, study = config["diffusion"], config["evaluation"], config["study"]
    sizes = (
        f"{evaluation['num_samples']} samples"
        + (f" in each of {study['repeats']} draws" if study["repeats"] > 1 else "")
        + f", {diffusion['num_steps']} steps, eta {diffusion['eta']}, model {config['model']['name']}, judge "
        f"{evaluation['judge']}, annotator {evaluation['annotator']}"
    )
    return [
        ("To be expected", record["expect"]),
        ("What came out", record["conclusion"]),
        ("With", sizes),
        ("Cost", f"{record['seconds']:.0f} s beside what was cached, on {record['date']}, commit {commit}"),
    ]


def _title(chapter: Chapter) -> str:
    return chapter.id if chapter.record is None else f"{chapter.id}: {chapter.record['title']}"


def _markdown(chapter: Chapter, root: Path) -> list[str]:
    lines = [f"## {escape_markdown(_title(chapter))}", ""]
    lines += [line for name, text in _facts(chapter) for line in (f"**{name}.** {escape_markdown(text)}", "")]
    lines += [f"    {chapter.command}", ""]
    if chapter.record is not None:
        lines += [f"The whole configuration is in [run.json]({chapter.folder}/run.json).", ""]
    for caption, path in (chapter.record or {}).get("figures", {}).items():
        alt, text = escape_markdown(caption), escape_markdown(chapter.caption(caption))
        lines += [f"![{alt}]({quote(f'{chapter.folder}/{path}')})", "", f"*{text}*", ""]
    for name in (chapter.record or {}).get("tables", []):
        rows, caption = _table(root / chapter.folder / "tables" / f"{name}.md")
        lines += [*rows, "", escape_markdown(chapter.caption(caption)), ""]
    return lines


def _row(chapter: Chapter) -> tuple[str, ...]:
    """The chapter in the summary: its id, and what `webpage.SUMMARY` names."""
    record = chapter.record
    if record is None:
        return (chapter.id, chapter.id, "", f"not run: {chapter.missing}", "", "", "")
    samples = str(record["config"]["evaluation"]["num_samples"])
    facts = record["title"], record["conclusion"], samples, str(record["date"]), f"{record['seconds']:.0f}"
    return (chapter.id, chapter.id, *facts)


def _html(chapter: Chapter, root: Path) -> str:
    record = chapter.record or {}
    parts = [webpage.configuration(record["config"])] if record else []
    for caption, path in record.get("figures", {}).items():
        parts.append(webpage.picture(chapter.folder, path, root, chapter.caption(caption)))
    for name in record.get("tables", []):
        lines, caption = _table(root / chapter.folder / "tables" / f"{name}.md")
        parts.append(webpage.table([_cells(line) for line in lines], chapter.caption(caption)))
    kind = "run" if record else "missing"
    return webpage.chapter(chapter.id, _title(chapter), _facts(chapter), chapter.command, parts, kind)


def _table(path: Path) -> tuple[list[str], str]:
    """Lines and caption of a table in Markdown."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except ValueError as error:
        raise InputError(f"{path} is not a table: {error}") from None
    rows = [line for line in lines if line.startswith("|")]
    if not rows:
        raise InputError(f"{path} is not a table: it has no row")
    return rows, read_markdown(" ".join(line for line in lines if not line.startswith("|")))


def _cells(line: str) -> list[str]:
    """Cells of a Markdown row, still escaped; an escaped bar does not end a cell."""
    return re.findall(r"(?:[^|\\]|\\.)+", line)
