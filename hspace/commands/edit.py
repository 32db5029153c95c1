"""`hspace edit` and `hspace invert`: edit photographs and samples, put them back, and write them with measurements."""

import argparse
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import chain, count
from pathlib import Path
from time import perf_counter
from typing import Any

from omegaconf import DictConfig

from hspace import __version__
from hspace.diffusion.photographs import find_images
from hspace.directions.hub import OWNER_AND_NAME, PREFIX
from hspace.directions.shipped import READY
from hspace.output.animation import write_animation, write_png
from hspace.output.figures import strip_figure
from hspace.output.tables import written
from hspace.runs.parsing import parse
from hspace.studio.editing import (
    Region,
    Source,
    beyond_safe,
    change_of,
    changes,
    distances_of,
    edit_source,
    fit_own_samples,
    inside,
    largest_outside,
    photo_source,
    pictures,
    region_weights,
    same_person,
    sample_source,
    shown_factors,
)
from hspace.studio.photos import Weights
from hspace.studio.sliders import Bench, load_bench
from hspace.system.files import write_json
from hspace.system.pictures import read_picture
from hspace.system.progress import bar
from hspace.types import InputError, one_line

log: logging.Logger = logging.getLogger(__name__)

LEAST_SAMPLES = 10
"""Smallest number of samples that a distance is measured from."""
FRAMES = 4
"""Pictures of the animation on either side of the unedited one; the strip shows every other one."""
RECORD = "edit.json"
"""File that says what the pictures beside it are."""
Compose = Callable[[list[str]], DictConfig]


def edit(options: argparse.Namespace, compose: Compose) -> int:
    """Edits every photograph or sample that is named, each into a folder of its own.

    Returns:
        0, or 1 if some of several could not be edited, such as one in which no mouth is found.

    Raises:
        InputError: If an option, a file or a direction is wrong, or nothing can be edited: nothing has been written.
    """
    inputs = _inputs(options.inputs, "hspace edit photo.jpg --direction FILE:NAME --strength 2")
    if options.samples and options.samples < LEAST_SAMPLES:
        raise InputError(f"--samples must be 0, or at least {LEAST_SAMPLES}, got {options.samples}")
    if not options.direction:
        raise InputError("hspace edit needs --direction FILE[:NAME], such as outputs/demo/directions.safetensors:0")
    strengths, region = _strengths(options.strength, len(options.direction)), _region(options.keep_outside)
    bench = load_bench(parse(compose(options.settings)), [_one(reference) for reference in options.direction])
    change_of(bench, strengths)  # what cannot be applied is refused before anything is inverted
    for line in beyond_safe(bench, strengths):
        log.warning("%s", line)
    # Fitted once, and not before the words for the first picture have proved right.
    own = cache(partial(fit_own_samples, bench, options.samples)) if options.samples else None
    failed = 0
    for name, word in _named(bar(inputs, stage="edit")):
        started = perf_counter()
        folder = Path(options.output) / name
        try:
            source = _source(bench, word, Path(options.inversions))
            weights = region_weights(bench.cfg, source, region)
            found = None if own is None else distances_of(bench, source, strengths, own())
            record = _edit_one(bench, source, strengths, region, weights, folder, options.animation)
        except InputError as error:
            failed += 1
            if failed == len(inputs):
                raise
            log.error("%s is not edited: %s", word, one_line(error))
            continue
        record["off_manifold"] = found and dict(zip(("unedited", "edited"), found, strict=True))
        record["seconds"] = round(perf_counter() - started, 3)
        write_json(folder / RECORD, record)
        print(_line(folder, record), flush=True)
    return 1 if failed else 0


def invert(options: argparse.Namespace, compose: Compose) -> int:
    """Inverts every photograph that is named, and prints how well each one is reconstructed.

    Raises:
        InputError: If a file is missing or cannot be read.
    """
    inputs = _inputs(options.inputs, "hspace invert FOLDER")
    photographs = [word for word in inputs if isinstance(word, Path)]
    if len(photographs) < len(inputs):
        raise InputError("hspace invert takes photographs; a generated sample has its noise already")
    bench = load_bench(parse(compose(options.settings)), [])
    for path in bar(photographs, stage="invert"):
        source = photo_source(bench, path, Path(options.inversions))
        seen = "its face" if source.photo.by_face else "its middle"
        print(f"{path}  reconstruction error of {seen} {source.error:.1e}")
    print(f"{len(inputs)} photographs inverted into {options.inversions}")
    return 0


def _inputs(words: Sequence[str], example: str) -> list[Path | int]:
    """Files and seeds, folders opened, of which every file can be read."""
    if not words:
        raise InputError(f"name a photograph or a folder, as in: {example}")
    found: list[Path | int] = []
    for word in words:
        is_seed = re.fullmatch(r"\d{1,18}", word) and not Path(word).exists()
        found += [int(word)] if is_seed else find_images(word)
    for path in found if len(found) > 1 else []:
        if isinstance(path, Path):  # a broken one is found before any work
            read_picture(path, background="white")
    return found


def _named(inputs: Any) -> Any:
    """Each input with the name of its folder; equal names are numbered."""
    taken = set[str]()
    for word in inputs:
        stem = f"seed-{word}" if isinstance(word, int) else word.stem.strip(".") or "photograph"
        numbered = (f"{stem}-{number}" for number in count(2))
        name = next(each for each in chain([stem], numbered) if each not in taken)
        taken.add(name)
        yield name, word


def _one(reference: str) -> str:
    """The first direction of a file where none is named."""
    whole = Path(reference).expanduser().is_file() or re.fullmatch(f"{PREFIX}{OWNER_AND_NAME}|{READY}[^:]+", reference)
    return f"{reference}:0" if whole else reference


def _strengths(given: list[float] | None, sliders: int) -> list[float]:
    strengths = given or [1.0] * sliders
    if len(strengths) != sliders or not any(strengths) or not all(map(math.isfinite, strengths)):
        raise InputError(f"give one finite --strength for each --direction, not all 0: got {given} for {sliders}")
    return strengths


def _region(word: str | None) -> Region:
    """A rectangle as four numbers; a PNG or a name stays text."""
    if word is None or word.count(",") != 3:
        return word
    try:
        return [float(part) for part in word.strip("[]").split(",")]
    except ValueError:
        raise InputError(f"--keep-outside must be top,left,bottom,right in fractions, got {word!r}") from None


def _source(bench: Bench, word: Path | int, inversions: Path) -> Source:
    return sample_source(bench, word) if isinstance(word, int) else photo_source(bench, word, inversions)


def _edit_one(
    bench: Bench,
    source: Source,
    strengths: Sequence[float],
    region: Region,
    weights: Weights,
    folder: Path,
    animation: str,
) -> dict[str, Any]:
    """Writes pictures, strip and animation of one source; returns its record, and takes away an older one's file."""
    factors = shown_factors(bench, strengths, FRAMES)
    edited = edit_source(bench, source, strengths, factors)
    put_back, note = pictures(source, edited, weights), note_of(bench, source, strengths)
    shown = edited if region is None else inside(source, edited, weights)
    (folder / RECORD).unlink(missing_ok=True)
    write_png(folder / "edited.png", put_back[-1], note)
    # Several directions have strengths of their own, and share the part of them.
    alone = len(strengths) == 1
    title = f"{bench.sliders[0].name} ({bench.sliders[0].found.meta.unit})" if alone else told(bench, strengths)
    columns = [each * strengths[0] if alone else f"{each:+.0%}" if each else 0.0 for each in factors[::2]]
    strip_figure(shown[None, ::2], [source.name], columns, title, folder / "strip.png", note=note)
    if animation != "none":
        write_animation(folder / f"edit.{animation}", put_back, note)
    directions = [
        {
            "file": str(slider.path),
            "name": slider.name,
            "unit": slider.found.meta.unit,
            "strength": strength,
            "safe": None if (found := slider.range) is None else [found.low, found.high],
        }
        for slider, strength in zip(bench.sliders, strengths, strict=True)
    ]
    return {
        "source": str(source.photo.path), "sha256": source.photo.sha256 or None, "note": note,
        "model": bench.model.model_id, "model_sha256": bench.model.identity.sha256, "directions": directions,
        "keep_outside": region, "frame": asdict(source.photo.frame), "by_face": source.photo.by_face,
        "reconstruction_error": source.error,
        "identity": same_person(bench, source, shown[-1:]), "changes": changes(bench, source, shown[-1:]),
        "largest_change_outside": largest_outside(source, put_back[-1], weights),
    }  # fmt: skip


def told(bench: Bench, strengths: Sequence[float]) -> str:
    """The directions with their strengths."""
    return ", ".join(f"{slider.name} at {written(s, 'g')}" for slider, s in zip(bench.sliders, strengths, strict=True))


def note_of(bench: Bench, source: Source, strengths: Sequence[float]) -> str:
    """The note of a picture: that it was edited or generated, and by what."""
    what = "A generated image" if source.generated else "A photograph"
    edits, model = told(bench, strengths), bench.model.model_id
    return f"{what} edited by hspace {__version__}: {edits}; model {model}. It shows no real event."


def _line(folder: Path, record: dict[str, Any]) -> str:
    identity = "n/a" if record["identity"] is None else f"{record['identity']:.2f}"
    ends = record["off_manifold"]
    distance = "n/a" if ends is None else f"{ends['unedited']:.2f} to {ends['edited']:.2f}"
    error = f"{record['reconstruction_error']:.1e}"
    return f"{folder / 'edited.png'}  reconstruction error {error}  identity {identity}  distance of h {distance}"
