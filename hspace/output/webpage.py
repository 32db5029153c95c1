"""Parts of the report's HTML page: one file beside its pictures, which asks no host and is whole without script."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from hspace.output.drawing import STRIP
from hspace.output.tables import read_markdown
from hspace.system.files import parse_json

PAGE = Path(__file__).parent / "page"
SUMMARY = ("experiment", "what it shows", "what came out", "samples", "made on", "seconds")
KINDS = {"run": "run", "missing": "not run"}


def page(title: str, note: str, rows: Sequence[Sequence[str]], chapters: Sequence[str]) -> str:
    """The whole page: a summary, filters, and the chapters.

    Args:
        title: Title.
        note: Text below it.
        rows: A row of the summary for each chapter: its id, then the texts of `SUMMARY`.
        chapters: The chapters as HTML.
    """
    style, script = (_escape_end((PAGE / f"report.{kind}").read_text("utf-8")) for kind in ("css", "js"))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f'<title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style>'
    options = "".join(f'<option value="{kind}">{name}</option>' for kind, name in KINDS.items())
    bar = (
        '<div class="bar" role="search" hidden><label>filter <input id="words" type="search"></label>'
        f'<label>show <select id="kind"><option value="">all</option>{options}</select></label>'
        '<span id="count" class="quiet" role="status"></span></div>'
    )
    body = (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>{_summary(rows)}{bar}<main>{''.join(chapters)}</main>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{body}<script type="module">{script}</script>'
        "</body></html>"
    )


def chapter(
    id: str, title: str, facts: Sequence[tuple[str, str]], command: str, parts: Sequence[str], kind: str
) -> str:
    """An experiment: its title, facts, command, and pictures and tables as HTML; `kind` is one of `KINDS`."""
    told = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts)
    style = ' class="missed"' if kind == "missing" else ""
    return (
        f'<section id="{html.escape(id)}" data-kind="{kind}"><h2>{html.escape(title)}</h2><dl{style}>{told}</dl>'
        f"<pre>{html.escape(command)}</pre>{''.join(parts)}</section>"
    )


def configuration(config: dict[str, Any]) -> str:
    """A configuration that opens."""
    text = html.escape(json.dumps(config, indent=2))
    return f"<details><summary>The whole configuration</summary><pre>{text}</pre></details>"


def picture(folder: str, path: str, root: Path, caption: str) -> str:
    """A picture that enlarges, with a slider over its tiles where it is a strip.

    Args:
        folder: Folder of the picture's experiment, relative to the page.
        path: Path of the picture in it.
        root: Folder of the page.
        caption: Its caption.
    """
    source, text = html.escape(quote(f"{folder}/{path}")), html.escape(caption)
    found = tiles_of(root / folder / path)
    slider = "" if found is None else (
        f'<div class="strip" data-source="{source}" data-strip="{html.escape(json.dumps(found))}" hidden></div>'
    )  # fmt: skip
    return (
        f'<figure><a href="{source}"><img src="{source}" alt="{text}" loading="lazy"></a>{slider}'
        f"<figcaption>{text}</figcaption></figure>"
    )


def tiles_of(path: Path) -> dict[str, Any] | None:
    """Where the tiles of a strip lie in its picture; None of other pictures, and of what is no such note.

    Keys: `size` and `tile`, each [width, height]; `rows` and `columns`, texts; `x`, by sample and column, and `y`, by
    row, of the tiles' upper left corners in pixels.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found, size = parse_json(image.info[STRIP]), list(image.size)
        width, height = (int(side) for side in found["tile"])
        rows, columns = ([str(each) for each in found[key]] for key in ("rows", "columns"))
        x, y = [[int(each) for each in group] for group in found["x"]], [int(each) for each in found["y"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, Image.DecompressionBombError):
        return None
    if not (x and len(y) == len(rows) and {len(group) for group in x} == {len(columns)} and min(width, height) > 0):
        return None
    return {"size": size, "tile": [width, height], "rows": rows, "columns": columns, "x": x, "y": y}


def table(lines: Sequence[Sequence[str]], caption: str) -> str:
    """A table of cells in Markdown: the header, its rule, and rows."""
    rows = [[read_markdown(cell).strip() for cell in line] for line in lines]
    header, body = rows[0], rows[2:]
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    cells = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f'<table><tr>{head}</tr>{cells}</table><p class="quiet">{html.escape(caption)}</p>'


def _escape_end(text: str) -> str:
    """Style or script that cannot end the element that holds it."""
    return text.replace("</", "<\\/")


def _summary(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in SUMMARY)
    body = ""
    for id, first, *cells in rows:
        name = html.escape(id)
        wide = "".join(f'<td class="wide">{html.escape(cell)}</td>' for cell in cells[:2])
        rest = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells[2:])
        body += f'<tr id="row-{name}"><td><a href="#{name}">{html.escape(first)}</a></td>{wide}{rest}</tr>'
    return f'<table id="summary"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(cell: str) -> str:
    text = html.escape(cell)
    return f"<b>{text[2:-2]}</b>" if text.startswith("**") and text.endswith("**") and len(text) > 4 else text
