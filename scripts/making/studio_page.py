"""Measures the studio's page in Debian's Chromium, and takes the pictures of docs/howto/studio.md.

python scripts/making/studio_page.py [--direction FILE] [--axe axe.min.js]      # on a quiet machine

Writes outputs/studio_page/studio_*.png (with --docs docs: docs/images), and prints a table in Markdown. axe-core is
read from a file (`npm i axe-core`) and runs in the page; without it accessibility is not measured.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from hspace.runs.errors import guarded
from hspace.types import InputError

ROOT = Path(__file__).parents[2]
SIZES = {"wide": (1440, 960), "narrow": (360, 780)}
START = 240.0
"""Longest wait in seconds for the server's address, imports on a busy machine included."""
EXACT, STREAMED = "#first .badge:text-is('exact')", "#first .badge:text-matches('step|exact')"
STRIP = "#strip[data-done=yes]"
PREVIEWS = """(values) => values.map((value) => {
  const input = document.querySelector('#slider-0'), canvas = document.querySelector('#first .picture');
  const read = () => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.join();
  const before = read(), started = performance.now();
  input.value = value;
  input.dispatchEvent(new Event('input'));
  const took = performance.now() - started;
  return [took, read() !== before];
})"""


@contextmanager
def served(direction: str, folder: Path, within: float = START) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A studio in a process of its own with one thread: its address, and the process.

    Raises:
        InputError: If the studio ends, or prints no address within the given seconds.
    """
    words = [sys.executable, "-m", "hspace.cli", "studio", "--no-browser", "--samples", "6", "--direction", direction]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=output, stderr=output)
    started = time.monotonic()
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", log.read_text())):
            if process.poll() is not None:
                raise InputError(f"hspace studio ended: {log.read_text()}")
            if time.monotonic() - started > within:
                raise InputError(f"hspace studio printed no address within {within:g} s: {log.read_text()}")
            time.sleep(0.2)
        yield found[0], process
    finally:
        process.kill()
        process.wait()


def opened(browser: Browser, url: str, asked: set[str] | None = None, **options: Any) -> Page:
    """A page whose first strip is rendered; the hosts that it asks are added to `asked`."""
    page = browser.new_page(**options)
    if asked is not None:
        page.on("request", lambda request: asked.add(urlsplit(request.url).hostname or ""))
    page.set_default_timeout(300_000)
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector(STRIP)
    return page


def previews(page: Page) -> str:
    """Time from a slider's event to the changed picture."""
    moves = page.evaluate(PREVIEWS, [4 + (-1) ** i * (1 + 0.03 * i) for i in range(100)])
    p50, p95 = np.quantile([took for took, _ in moves], [0.5, 0.95])
    return f"{p95:.1f} ms (median {p50:.1f}; {sum(changed for _, changed in moves)} of {len(moves)} changed)"


def releases(page: Page, server: psutil.Process) -> dict[str, str]:
    """Times from a slider's release to the first streamed picture and to the exact one, over five releases."""
    first, exact, cpu = [], [], []
    page.focus("#slider-1")
    page.wait_for_selector(STRIP)
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home"):
        page.wait_for_selector(STRIP)
        page.wait_for_timeout(1500)
        started, used = time.perf_counter(), sum(server.cpu_times()[:2])
        page.keyboard.press(key)
        page.wait_for_selector(STREAMED)
        first.append(time.perf_counter() - started)
        page.wait_for_selector(EXACT)
        exact.append(time.perf_counter() - started)
        cpu.append(sum(server.cpu_times()[:2]) - used)
    named = {
        "release to first streamed picture, median": first,
        "release to exact picture, median": exact,
        "processor time of the server for an exact picture, median": cpu,
    }
    return {name: f"{np.median(each):.2f} s ({min(each):.2f} to {max(each):.2f})" for name, each in named.items()}


def alive(page: Page, url: str) -> str:
    """Streams that are being made .2 s after ten quick moves, when those before have seen that they are stale."""
    page.focus("#slider-2")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    token = url.partition("token=")[2]
    ask = "async (token) => (await (await fetch('/api/alive', {headers: {'x-token': token}})).json()).alive"
    return str(page.evaluate(ask, token))


def pictures(browser: Browser, url: str, axe: str, folder: Path) -> dict[str, str]:
    """Takes a picture in both schemes at both widths, with an edit made; what axe-core finds there."""
    found: dict[str, int] = {}
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            viewport: Any = {"width": width, "height": height}
            page = opened(browser, url, viewport=viewport, color_scheme=scheme)
            page.focus("#slider-0")
            page.keyboard.press("End")
            page.wait_for_selector(EXACT)
            page.wait_for_timeout(500)
            page.screenshot(path=folder / f"studio_{size}_{scheme}.png")
            page.click("summary")
            if axe:
                page.evaluate(axe)
                for impact, count in page.evaluate(
                    "async () => (await axe.run()).violations.map((v) => [v.impact, v.nodes.length])"
                ):
                    found[impact] = found.get(impact, 0) + count
            page.close()
    return {"axe-core, four views": json.dumps(found) if found else "no finding"} if axe else {}


def measure(browser: Browser, direction: str, axe: str, images: Path) -> dict[str, str]:
    """All figures by name."""
    with tempfile.TemporaryDirectory() as folder, served(direction, Path(folder)) as (url, process):
        asked = set[str]()
        page = opened(browser, url, asked)
        rows = {"slider to changed picture, 95th percentile": previews(page)}
        rows |= releases(page, psutil.Process(process.pid))
        rows["streams alive .2 s after ten quick moves"] = alive(page, url)
        page.wait_for_selector(EXACT)
        rows |= pictures(browser, url, axe, images)
        process.kill()
        page.wait_for_selector("#alert:text-matches('server has ended')")
        rows["hosts asked"] = ", ".join(sorted(asked - {""}))
        rows["a killed server"] = page.inner_text("#alert")
        return rows


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direction", default="ready:portraits", help="FILE[:NAME]; default ready:portraits")
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="where images/ gets the pictures, and not outputs")
    options = parser.parse_args()
    images = ROOT / "outputs" / "studio_page" if options.docs is None else options.docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("needs Chromium: apt-get install chromium")
    axe = options.axe.read_text(encoding="utf-8") if options.axe else ""
    load = os.getloadavg()[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        version, rows = browser.version, measure(browser, options.direction, axe, images)
        browser.close()
    loads = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    cores = f"{os.cpu_count()} cores ({platform.machine()}), one thread, {loads}"
    rows["measured"] = f"{date.today()}, Chromium {version}, {cores}"
    for name, value in (("what", "measured"), ("---", "---"), *rows.items()):
        print(f"| {name} | {value} |")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
