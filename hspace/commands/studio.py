"""`hspace studio`: serves the page with sliders, or writes it with rendered strips."""

import argparse
import logging
import secrets
import socket
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvicorn
from omegaconf import DictConfig

from hspace.diffusion.embedded import embedded_models
from hspace.diffusion.photographs import find_images
from hspace.directions.shipped import READY, ready_models
from hspace.runs.parsing import parse
from hspace.studio.export import export
from hspace.studio.server import Studio
from hspace.studio.session import FIRST_SAMPLE, Session
from hspace.studio.shelf import Choice, Shelf
from hspace.studio.sliders import Bench, Slider, find_sliders, fitted, load_bench
from hspace.types import InputError, one_line

log: logging.Logger = logging.getLogger(__name__)

FOLDER = Path("outputs/studio")
MOST_SLIDERS = 24


def studio(options: argparse.Namespace, compose: Callable[[list[str]], DictConfig]) -> int:
    """Serves the page until it is interrupted, or writes it if `export DIR` is given.

    Raises:
        InputError: If an option or a file is wrong, or there are no directions to export.
    """
    words = options.inputs
    if words and (words[0] != "export" or len(words) != 2):
        raise InputError(f"use it as hspace studio, or as hspace studio export DIR; got {' '.join(words)!r}")
    if not 0 <= options.samples <= 64 or not 0 <= options.port < 65536:
        raise InputError(f"--samples are 0 to 64 and --port 0 to 65535, got {options.samples} and {options.port}")
    photographs = tuple(path for word in options.photographs or [] for path in find_images(word))
    bench = load_bench(parse(compose(options.settings)), options.direction or [])
    if not options.direction:
        bench = replace(bench, sliders=tuple(usual_sliders(bench)))
    if words and not bench.sliders:
        raise InputError(f"an export needs directions of {bench.model.model_id}: name a file by --direction")
    if len(bench.sliders) > MOST_SLIDERS:
        raise InputError(f"a page has at most {MOST_SLIDERS} sliders, got {len(bench.sliders)}: name some as FILE:NAME")
    seeds = tuple(range(FIRST_SAMPLE, FIRST_SAMPLE + options.samples))
    session = Session(bench, FOLDER, seeds, photographs)
    if words:
        print(export(session, Path(words[1])))
        return 0
    serve(_shelf(session, compose), options.port, open_browser=not options.no_browser)
    return 0


def serve(shelf: Shelf, port: int = 0, *, open_browser: bool = False) -> None:
    """Answers on this machine only, under an address that holds a new token.

    Raises:
        OSError: If the port is taken.
    """
    token = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen(128)  # a browser that asks at once waits until the server is up
        port = listening.getsockname()[1]
        hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        app = Studio(shelf).app(hosts, token)
        settings = uvicorn.Config(app, log_level="warning", limit_concurrency=128, timeout_graceful_shutdown=1)
        address = f"http://127.0.0.1:{port}/?token={token}"
        print(f"hspace studio: {address}\nCtrl-C ends it", flush=True)
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(settings).run(sockets=[listening])


def _shelf(first: Session, compose: Callable[[list[str]], DictConfig]) -> Shelf:
    """The model of the command line, and after it the other embedded ones with their ready-made directions."""

    def opened(name: str) -> Session:
        cfg = parse(compose([f"model={name}", f"device={first.bench.cfg.device}"]))
        bench = load_bench(cfg, [f"{READY}{name}"] if name in ready_models() else [])
        return Session(bench, FOLDER / name, first.seeds, first.photographs, first.uploads)

    others = [name for name in embedded_models() if name != first.bench.cfg.model.path]
    return Shelf(
        [Choice(first.bench.model.model_id, lambda: first), *(Choice(name, partial(opened, name)) for name in others)]
    )


def usual_sliders(bench: Bench) -> list[Slider]:
    """Directions of the bench's model that earlier runs left, or its ready-made ones; none where there are none."""
    name = bench.cfg.model.path
    for reference in [*map(str, sorted(Path("outputs").glob("*/directions.safetensors"))), f"{READY}{name}"]:
        if reference.startswith(READY) and name not in ready_models():
            continue
        try:
            found = [fitted(slider, bench.cfg, bench.model) for slider in find_sliders(reference)]
        except InputError as error:
            log.info("%s is left out: %s", reference, one_line(error))
            continue
        if len(found) <= MOST_SLIDERS:
            return found
        log.info("%s is left out: it has %d directions, of at most %d", reference, len(found), MOST_SLIDERS)
    return []
