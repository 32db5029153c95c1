"""The page as one file with rendered strips, which opens without a server and can be embedded."""

import json
from pathlib import Path

from hspace.studio.server import PAGE
from hspace.studio.session import Session, sprite
from hspace.system.files import write_text
from hspace.system.progress import bar
from hspace.types import InputError

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def export(session: Session, folder: Path) -> Path:
    """Renders every strip of every source, and writes the page.

    Args:
        session: Session whose sources and sliders go onto the page.
        folder: Folder for `index.html`.

    Returns:
        The page's path.

    Raises:
        InputError: If there is nothing to show.
    """
    state = session.state()
    if not state["sources"] or not state["sliders"]:
        raise InputError("an export needs at least one sample or photograph, and one direction")
    strips: dict[str, list[str]] = {}
    images: dict[str, str] = {}
    for entry in bar(state["sources"], stage="export"):
        source = session.source(entry["id"])
        images[entry["id"]] = sprite(source.x_0)
        strips[entry["id"]] = []
        for slider in state["sliders"]:
            *_, last = session.strip(source, slider["id"], *state["window"])
            strips[entry["id"]].append(sprite(last))
    write_text(folder / "index.html", _page({**state, "images": images, "strips": strips}))
    return folder / "index.html"


def _page(data: dict[str, object]) -> str:
    """The page with style, script and data inside it."""
    # Otherwise a name could end the script that contains it.
    text = json.dumps(data).replace("<", "\\u003c")
    style, script = (PAGE / "studio.css").read_text("utf-8"), (PAGE / "studio.js").read_text("utf-8")
    page = (PAGE / "index.html").read_text("utf-8")
    page = page.replace('<link rel="stylesheet" href="/studio.css">', f"<style>{style}</style>")
    inline = f'<script type="application/json" id="data">{text}</script><script type="module">{script}</script>'
    page = page.replace('<script type="module" src="/studio.js"></script>', inline)
    return page.replace("<head>", f'<head><meta http-equiv="content-security-policy" content="{POLICY}">', 1)
