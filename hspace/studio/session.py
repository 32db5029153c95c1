"""Sessions of the page: sources, sliders, and the images made from them; this module does not know the web."""

import base64
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hspace.diffusion.sampler import Sampler
from hspace.directions.jacobian import jacobian
from hspace.directions.masks import on_grid
from hspace.directions.operators import STRENGTHS, Operator
from hspace.directions.record import Directions
from hspace.edits.changes import Map
from hspace.edits.sums import edit_offsets, sum_offsets
from hspace.evaluation.calibration import spread_strength
from hspace.evaluation.ranges import POINTS
from hspace.output.animation import encode_png, to_pixels, write_png
from hspace.studio.editing import Source, change_by, changes, photo_source, pictures, same_person, sample_source
from hspace.studio.photos import weights_of
from hspace.studio.sliders import Bench, Slider
from hspace.studio.stream import watched
from hspace.system.files import write_bytes, write_json
from hspace.types import Images, InputError

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
"""Formats of uploaded photographs."""
MAX_PIXELS = 25_000_000
FIRST_SAMPLE = 2_000_000
USUAL = {"std": 3.0, "difference": 1.5, "as saved": 1.5}
"""Largest strength of a slider that was not measured, by the direction's unit."""

IN_EFFECTS = 2.0
"""The same of a direction whose strengths are effects, in sd."""


@dataclass(frozen=True)
class Edit:
    """An edit that the page asks for.

    Attributes:
        terms: Strengths by number of the slider.
        start: First edited step.
        stop: First step that is not edited any more; None edits to the end.
        mask: Mask of the pixels that the edit may change, bool (height, width) of the model's image; None is all of
            them.
    """

    terms: dict[int, float]
    start: int = 0
    stop: int | None = None
    mask: Tensor | None = None


@dataclass
class Session:
    """One opened studio.

    Attributes:
        bench: Model, and networks that read its images.
        folder: Folder of all that is written.
        sources: Opened sources by id.
        sliders: Sliders in the order of the page.
        usual: Largest strengths of sliders that were not measured, by number.
        seeds: Seeds of the samples that are offered.
        photographs: Files of the photographs that are offered.
        uploads: Files of uploaded photographs and their names for people, by id; sessions of several models share them.
    """

    bench: Bench
    folder: Path
    seeds: tuple[int, ...]
    photographs: tuple[Path, ...] = ()
    uploads: dict[str, tuple[Path, str]] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    sliders: list[Slider] = field(default_factory=list)
    usual: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Offers the bench's sliders."""
        self.sliders = list(self.bench.sliders)

    @property
    def steps(self) -> int:
        """Number of sampling steps."""
        return len(self.bench.model.process.timesteps)

    @property
    def window(self) -> range:
        """The configured steps, which the page edits at first, and which effects and ranges hold for."""
        return self.bench.cfg.sampler.window(self.steps)

    def state(self) -> dict[str, Any]:
        """All that the page needs at first, as JSON."""
        offered = [
            {"id": f"seed-{seed}", "name": f"sample {i}", "kind": "sample"} for i, seed in enumerate(self.seeds, 1)
        ]
        offered += [{"id": f"photo-{i}", "name": path.stem, "kind": "photo"} for i, path in enumerate(self.photographs)]
        offered += [{"id": name, "name": label, "kind": "photo"} for name, (_, label) in self.uploads.items()]
        channels, height, width = self.bench.model.image_shape
        return {
            "model": self.bench.model.model_id, "height": height, "width": width, "channels": channels,
            "steps": self.steps, "window": [self.window.start, self.window.stop], "sources": offered,
            "sliders": [self.describe(i) for i in range(len(self.sliders))],
        }  # fmt: skip

    def describe(self, number: int) -> dict[str, Any]:
        """A slider as the page shows it."""
        slider = self.sliders[number]
        unit, measured, operator = slider.found.meta.unit, slider.range, isinstance(slider.found, Operator)
        entry = {
            "id": number, "name": slider.name, "unit": unit, "measured": measured is not None, "operator": operator
        }  # fmt: skip
        if measured is None:
            low, high = STRENGTHS if operator else self._usual_ends(number)
            return entry | {"strengths": np.linspace(low, high, 2 * POINTS + 1).tolist()}
        tried, safe = list(measured.tried), [measured.low, measured.high]
        # A side without any safe strength must still be reachable if it was measured.
        ends = [safe[0] or tried[0] / POINTS, safe[1] or tried[-1] / POINTS]
        even = list(measured.strengths)
        if ends != safe:
            zero = 0 if operator else POINTS
            even = [*np.linspace(ends[0], 0, zero + 1)[:-1], *np.linspace(0, ends[1], 2 * POINTS + 1 - zero)]
        return entry | {
            "strengths": [float(s) for s in even], "safe": safe, "tried": tried, "effect": measured.effect,
            "because": [measured.low_because, measured.high_because], "attribute": measured.attribute,
            "shown": measured.shown,
        }  # fmt: skip

    def source(self, name: str) -> Source:
        """A source by its id, opened at its first use.

        Raises:
            InputError: If no source has that id.
        """
        if name not in self.sources:
            self.sources[name] = self._open(name)
        return self.sources[name]

    def add_upload(self, data: bytes, label: str) -> str:
        """Takes an uploaded photograph, which is kept in the folder under a hash of its bytes; returns its id.

        Raises:
            InputError: If its format is not allowed, or it is too large or broken.
        """
        name = f"upload-{hashlib.sha256(data).hexdigest()[:16]}"
        path = self.folder / "uploads" / f"{name}{_suffix(data)}"
        write_bytes(path, data)
        label = "".join(c for c in label if c.isprintable())[:60].strip() or "photograph"
        try:
            self.sources[name] = self._photograph(path, label)
        except InputError:
            path.unlink(missing_ok=True)
            raise
        self.uploads[name] = path, label
        return name

    def strip(self, source: Source, number: int, start: int, stop: int | None) -> Iterator[Images]:
        """Previews, then the images, of one slider's strengths.

        Raises:
            InputError: If the slider does not exist, or the window is wrong.
        """
        slider = self._slider(number)
        if isinstance(slider.found, Operator):
            operators = [strength * slider.found for strength in self.describe(number)["strengths"]]
            return self._operated(source, operators, start, stop)
        weights = torch.zeros(2 * POINTS + 1, len(slider.directions.meta.names))
        weights[:, slider.component] = torch.tensor(self.describe(number)["strengths"])
        steps = self.steps
        offsets = edit_offsets(slider.directions, weights, steps, start, stop)
        return self._watched(source, offsets, slider.directions.meta.space)

    def exact(self, source: Source, edit: Edit) -> Iterator[Images]:
        """Previews, then the image, of an edit.

        Raises:
            InputError: If the sliders do not go together; see `change_by`.
        """
        used = [(self._slider(number), strength) for number, strength in edit.terms.items() if strength]
        if not used:
            return iter([source.x_0.float()])
        change, space = change_by(self.bench.model, used, edit.start, edit.stop)
        if isinstance(change, Tensor):
            images = self._watched(source, change, space)
        else:
            images = self._operated(source, [change], edit.start, edit.stop)
        return (_inside(image, source.x_0, edit.mask) for image in images)

    def read(self, source: Source, image: Images) -> dict[str, Any]:
        """The readings of the networks from an edited image."""
        return {"identity": same_person(self.bench, source, image), "changes": changes(self.bench, source, image)}

    def find(self, source: Source, mask: Tensor | None, step: int, count: int) -> list[int]:
        """Adds the directions that change the painted region of this source most; returns their numbers.

        Raises:
            InputError: If the mask is empty, or a number is out of range.
        """
        if not 0 <= step < self.steps or not 1 <= count <= 8:
            raise InputError(f"directions are sought at one step, at most 8 of them, got step {step} and {count}")
        grid = None if mask is None else on_grid(mask, self.bench.model.sample_shape[1:])
        if grid is not None and not grid.any():
            raise InputError("paint a region first: the mask is empty")
        found = jacobian(self.bench.model, source.latents, k=count, sampler=self._sampler, steps=(step,), mask=grid)
        taken = sum(slider.name.startswith("region") for slider in self.sliders)
        names = tuple(f"region {taken + i + 1}" for i in range(count))
        return self._add(replace(found, meta=replace(found.meta, names=names)), f"region-{taken + 1}")

    def save_direction(self, edit: Edit, name: str) -> int:
        """Keeps a sum of sliders as a direction under a name; strength 1 is what the page shows without a mask.

        Raises:
            InputError: If nothing is edited, the name is empty or too long, or two annotators, or two ways in which
                edits enter a step, stand behind the directions.
        """
        name = _label(name)
        terms = [self._slider(i).term(s, edit.start, edit.stop) for i, s in edit.terms.items() if s]
        vector = sum_offsets(self.bench.model, terms)
        metas = [term.directions.meta for term in terms]
        seeds = sorted({seed for meta in metas for seed in meta.seeds})
        meta = replace(
            metas[0],
            provenance=replace(
                metas[0].provenance,
                annotator=_common([meta.provenance.annotator for meta in metas], "annotators"),
                injection=_common([meta.provenance.injection for meta in metas], "injections"),
            ),
            differences=tuple(dict.fromkeys(each for meta in metas for each in meta.differences)),
            names=(name,),
            unit="as saved",
            method="sum of sliders",
            settings={},
            seeds=tuple(seeds),
            calibration=None,
            report={},
            effects=None,
        )
        return self._add(Directions(vector, meta), name)[0]

    def save_picture(self, source: Source, edit: Edit, image: Images, note: str) -> Path:
        """Writes the edited source, put back into its photograph, with a note on its making; returns the file."""
        (picture,) = pictures(source, image, weights_of(source.photo, None))
        stem = (
            f"{re.sub(r'[^A-Za-z0-9_-]+', '-', source.name)[:40]}-{hashlib.sha256(picture.tobytes()).hexdigest()[:8]}"
        )
        terms = [{"name": name, "strength": strength} for name, strength in self.told(edit)]
        write_json(self.folder / f"{stem}.json", {"note": note, "terms": terms, "start": edit.start, "stop": edit.stop})
        return write_png(self.folder / f"{stem}.png", picture, note)

    def told(self, edit: Edit) -> list[tuple[str, float]]:
        """Name and strength of each slider that an edit moves; two may have one name."""
        return [(self._slider(i).name, s) for i, s in edit.terms.items() if s]

    @property
    def _sampler(self) -> Sampler:
        """That of all steps: the page says which of them are edited."""
        return replace(self.bench.cfg.sampler, start=0, stop=None)

    def _watched(self, source: Source, offsets: Tensor, space: str) -> Iterator[Images]:
        return watched(self.bench.model, source.latents, offsets, space=space, sampler=self._sampler)

    def _operated(self, source: Source, operators: Sequence[Map], start: int, stop: int | None) -> Iterator[Images]:
        sampler = replace(self._sampler, start=start, stop=stop)
        return watched(self.bench.model, source.latents, operators, sampler=sampler)

    def _slider(self, number: int) -> Slider:
        if not 0 <= number < len(self.sliders):
            raise InputError(f"there is no slider {number}: they are 0 to {len(self.sliders) - 1}")
        return self.sliders[number]

    def _open(self, name: str) -> Source:
        kind, _, number = name.partition("-")
        if kind == "seed" and re.fullmatch(r"\d{1,15}", number):
            return sample_source(self.bench, int(number))
        if kind == "photo" and re.fullmatch(r"\d{1,6}", number) and int(number) < len(self.photographs):
            return self._photograph(self.photographs[int(number)])
        if name in self.uploads:
            return self._photograph(*self.uploads[name])
        raise InputError(f"there is no source {name[:40]!r}")

    def _photograph(self, path: Path, label: str = "") -> Source:
        source = photo_source(self.bench, path, self.folder / "inversions")
        return replace(source, name=label) if label else source

    def _add(self, directions: Directions, stem: str) -> list[int]:
        """Writes directions into a new file of the folder, and offers them as sliders."""
        path = _free(self.folder / "directions", _stem(stem))
        directions.save(path)
        first = len(self.sliders)
        self.sliders += [Slider(path, directions, component) for component in range(len(directions.meta.names))]
        return list(range(first, len(self.sliders)))

    def _usual_ends(self, number: int) -> tuple[float, float]:
        """Ends of the slider of a direction that was not measured."""
        unit = self.sliders[number].found.meta.unit
        most = USUAL.get(unit) or (IN_EFFECTS if unit.startswith("sd of ") else self._usual(number))
        return -most, most

    def _usual(self, number: int) -> float:
        """Half the strength whose offset is as long as the samples' spread; computed once."""
        if number not in self.usual:
            slider, seeds = self.sliders[number], (*self.seeds[:4], FIRST_SAMPLE, FIRST_SAMPLE + 1)
            spread = spread_strength(self.bench.model, slider.directions, slider.component, seeds, self._sampler)
            self.usual[number] = 0.5 * spread
        return self.usual[number]


def sprite(images: Images) -> str:
    """Images side by side, as the base64 text of one PNG."""
    return base64.b64encode(encode_png(np.concatenate(to_pixels(images), axis=1))).decode()


def read_mask(text: str, height: int, width: int) -> Tensor:
    """A painted mask from base64 of one byte per pixel, row by row.

    Raises:
        InputError: If the text is not of that form.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise InputError("a mask is base64 text") from None
    if len(data) != height * width:
        raise InputError(f"a mask has {height} x {width} bytes, got {len(data)}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(height, width) > 127


def _inside(image: Images, original: Images, mask: Tensor | None) -> Images:
    """The image inside the mask, the original outside."""
    return image if mask is None else torch.where(mask, image, original.float())


def _common(values: Sequence[Any], what: str) -> Any:
    """What some have and none has otherwise; None if none has it."""
    known = [value for value in values if value is not None]
    if any(value != known[0] for value in known):
        raise InputError(f"directions of different {what} cannot be kept as one")
    return known[0] if known else None


def _stem(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40]


def _free(folder: Path, stem: str) -> Path:
    """A file that does not exist yet: what was kept before stays."""
    names = (stem, *(f"{stem}-{number}" for number in range(2, 10_000)))
    return next(path for name in names if not (path := folder / f"{name}.safetensors").exists())


def _label(name: str) -> str:
    name = "".join(c for c in name if c.isprintable()).strip()
    if not 1 <= len(name) <= 80:
        raise InputError(f"a direction's name has 1 to 80 characters, got {len(name)}")
    return name


def _suffix(data: bytes) -> str:
    """The suffix of the image's own format, whatever the name of its file."""
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"a photograph has at most {MAX_PIXELS // 10**6} megapixels, got {image.size}")
            # A JPEG that holds further pictures, as some telephones write them, is one by its first.
            return FORMATS["JPEG" if image.format == "MPO" else str(image.format)]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("a photograph is a PNG, JPEG or WebP file") from None
