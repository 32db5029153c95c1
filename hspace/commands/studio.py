"""`hspace studio`: serves the page with sliders, or writes it with rendered strips."""

import argparse
import logging
import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from omegaconf import DictConfig

from hspace.diffusion.photographs import find_images
from hspace.directions.shipped import READY, ready_models
from hspace.runs.parsing import parse
from hspace.studio.export import export
from hspace.studio.server import Studio
from hspace.studio.session import FIRST_SAMPLE, Session
from hspace.studio.sliders import find_sliders, load_bench
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

FOLDER = Path("outputs/studio")
MOST_SLIDERS = 24


def studio(options: argparse.Namespace, compose: Callable[[list[str]], DictConfig]) -> int:
    """Serves the page until it is interrupted, or writes it if `export DIR` is given.

    Raises:
        InputError: If an option or a file is wrong, or there are no directions.
    """
    words = options.inputs
    if words and (words[0] != "export" or len(words) != 2):
        raise InputError(f"use it as hspace studio, or as hspace studio export DIR; got {' '.join(words)!r}")
    if not 0 <= options.samples <= 64 or not 0 <= options.port < 65536:
        raise InputError(f"--samples are 0 to 64 and --port 0 to 65535, got {options.samples} and {options.port}")
    photographs = tuple(path for word in options.photographs or [] for path in find_images(word))
    cfg = parse(compose(options.settings))
    bench = load_bench(cfg, options.direction or _found(cfg.model.path))
    if len(bench.sliders) > MOST_SLIDERS:
        raise InputError(f"a page has at most {MOST_SLIDERS} sliders, got {len(bench.sliders)}: name some as FILE:NAME")
    seeds = tuple(range(FIRST_SAMPLE, FIRST_SAMPLE + options.samples))
    session = Session(bench, FOLDER, seeds, photographs)
    if words:
        print(export(session, Path(words[1])))
        return 0
    serve(session, options.port, open_browser=not options.no_browser)
    return 0


def serve(session: Session, port: int = 0, *, open_browser: bool = False) -> None:
    """Answers on this machine only, under an address that holds a new token.

    Raises:
        OSError: If the port is taken.
    """
    token = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        port = listening.getsockname()[1]
        hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        app = Studio(session).app(hosts, token)
        settings = uvicorn.Config(app, log_level="warning", limit_concurrency=128, timeout_graceful_shutdown=1)
        address = f"http://127.0.0.1:{port}/?token={token}"
        print(f"hspace studio: {address}\nCtrl-C ends it", flush=True)
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(settings).run(sockets=[listening])


def _found(model: str) -> Sequence[str]:
    """Directions that earlier runs left, or the ready-made ones of the model.

    Raises:
        InputError: If there are none.
    """
    for path in sorted(Path("outputs").glob("*/directions.safetensors")):
        if find_sliders(str(path)):
            return [str(path)]
    if model in ready_models():
        return [f"{READY}{model}"]
    raise InputError(
        "no directions in outputs/*/directions.safetensors: name a file by --direction, or find some by "
        "hspace experiment=demo"
    )
