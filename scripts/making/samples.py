"""Draws samples of the embedded models, in outputs: the row of 128 pixels in README.md, and the rooms of docs/rooms.md.

python scripts/making/samples.py [picture ...]      # all, or those named; two minutes of one CPU core
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from card.base import evaluation_seeds
from card.generated import generate
from card.subject import subject_of

from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampler import Sampler
from hspace.directions.annotations import annotate
from hspace.directions.boundary import boundary
from hspace.edits.sums import edit
from hspace.output.figures import grid_figure, strip_figure
from hspace.runs.errors import guarded
from hspace.scorers.embedded import load_annotator
from hspace.system.registry import unknown
from hspace.types import InputError

log = logging.getLogger("samples")

ROOT = Path(__file__).parents[2]
OUTPUT, PUBLISHED = ROOT / "outputs" / "samples", ROOT / "docs" / "images"
STEPS, FINE_STEPS, BATCH = 10, 25, 32
PORTRAITS, ROOMS, COLUMNS, EDITED = 8, 24, 6, 3
ANNOTATED, EXAMPLES = 200, 25
STRENGTHS = (-1.5, 0.0, 1.5)
TILE, LARGE_TILE = 96, 128
"""Smallest side in pixels of a picture of 64 pixels, and of one of 128."""


def portraits_128(path: Path) -> None:
    """The first evaluation samples of the latent model, at more steps than edits take."""
    drawn = generate(
        load_model("portraits-128", num_steps=FINE_STEPS), seed_range("evaluation", PORTRAITS), batch_size=PORTRAITS
    )
    grid_figure(drawn, PORTRAITS, path, tile=LARGE_TILE)


def rooms_generated(path: Path) -> None:
    """The rooms that the model card shows."""
    drawn = generate(load_model("rooms", num_steps=STEPS), evaluation_seeds(ROOMS), batch_size=BATCH)
    grid_figure(drawn, COLUMNS, path, tile=TILE)


def rooms_edited(path: Path) -> None:
    """The first evaluation samples across linear boundaries, each of one attribute that the annotator reads."""
    model, sampler = load_model("rooms", num_steps=STEPS), Sampler(batch_size=BATCH)
    annotations = annotate(model, range(ANNOTATED), load_annotator("rooms"), sampler=sampler)
    latents, names = model.latents(seed_range("evaluation", EDITED)), subject_of("rooms").moved
    found = [boundary(model, annotations, name, k=EXAMPLES, batch_size=BATCH) for name in names]
    rows = [edit(model, latents, each, component=0, strengths=STRENGTHS, sampler=sampler) for each in found]
    strip_figure(torch.stack(rows), names, STRENGTHS, "Linear boundaries in h, on three rooms", path, tile=TILE)


PICTURES: dict[str, Callable[[Path], None]] = {
    draw.__name__: draw for draw in (portraits_128, rooms_generated, rooms_edited)
}


def main() -> int:
    """Draws the pictures named, or all.

    Raises:
        InputError: If a name is not that of a picture.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="picture", help=", ".join(PICTURES))
    parser.add_argument("--publish", action="store_true", help="copy the pictures to docs/images")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in options.pictures:
        if name not in PICTURES:
            raise InputError(unknown("picture", name, PICTURES))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in options.pictures or PICTURES:
        log.info("drawing %s", name)
        path = OUTPUT / f"{name}.png"
        PICTURES[name](path)
        if options.publish:
            shutil.copy(path, PUBLISHED)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
