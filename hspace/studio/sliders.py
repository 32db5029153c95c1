"""Directions that a user names on the command line, with the model and the networks that read its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.embedded import drawn_world
from hspace.directions.hub import PREFIX, local_path
from hspace.directions.record import Directions
from hspace.directions.shipped import READY
from hspace.edits.sums import Term
from hspace.evaluation.ranges import SliderRange, range_of
from hspace.runs.config import Config
from hspace.runs.readers import refusal, warn_of
from hspace.scorers.factory import load_identity, load_scorer, told_name
from hspace.system.registry import unknown
from hspace.types import Embedder, InputError, Scorer


@dataclass(frozen=True)
class Slider:
    """One direction of a file.

    Attributes:
        path: File of directions.
        directions: All directions of the file.
        component: Index of the direction.
    """

    path: Path
    directions: Directions
    component: int

    @property
    def name(self) -> str:
        """The direction's own name."""
        return self.directions.meta.names[self.component]

    @property
    def range(self) -> SliderRange | None:
        """What `hspace range` measured of it; None if it did not."""
        return range_of(self.directions, self.component)

    def term(self, strength: float, start: int = 0, stop: int | None = None) -> Term:
        """The direction at a strength, to be added to others."""
        return Term(self.directions, self.component, strength, start, stop)


@dataclass(frozen=True)
class Bench:
    """A model with the sliders that edit it and the networks that read its images.

    Attributes:
        cfg: Configuration.
        model: Its model.
        sliders: Directions that were named, each fitting the model.
        annotator: Scorer of attributes; None if the configured one cannot read this model's images.
        identity: Identity encoder; None in the same case.
    """

    cfg: Config
    model: DiffusionModel
    sliders: tuple[Slider, ...]
    annotator: Scorer | None
    identity: Embedder | None


def load_bench(cfg: Config, references: Sequence[str]) -> Bench:
    """Loads all that is named.

    Args:
        cfg: Parsed configuration.
        references: References `FILE` or `FILE:NAME`; see `find_sliders`.

    Raises:
        InputError: If something is missing or does not fit.
    """
    sliders = [slider for reference in references for slider in find_sliders(reference)]
    model = load_model(
        cfg.model.path, tap=cfg.model.tap, num_steps=cfg.diffusion.num_steps, spacing=cfg.diffusion.spacing,
        device=cfg.device, dtype=cfg.dtype, prompt=cfg.model.prompt or "", guidance=cfg.model.guidance,
        revision=cfg.model.revision, family=cfg.model.family,
    )  # fmt: skip
    eta, allow = cfg.diffusion.eta, cfg.allow
    sliders = [replace(slider, directions=slider.directions.fit(model, eta=eta, allow=allow)) for slider in sliders]
    annotator = None if refusal(cfg, "annotator") else load_scorer(cfg.evaluation.annotator)
    if annotator is not None:
        warn_of(told_name(annotator, annotated=False, world=drawn_world(cfg.model.path)), model)
    identity = None if refusal(cfg, "identity") else load_identity(cfg.evaluation.identity)
    return Bench(cfg, model, tuple(sliders), annotator, identity)


def find_sliders(reference: str) -> list[Slider]:
    """The directions that a word names.

    Args:
        reference: Reference, `FILE` for all directions of a file, or `FILE:NAME` for one, by its name or its number
            from 0; the file may be `hub:OWNER/NAME` or `ready:MODEL`.

    Raises:
        InputError: If the file does not exist, does not hold directions, or has none of that name.
    """
    prefix = next((each for each in (PREFIX, READY) if reference.startswith(each)), "")
    path, name = Path(reference).expanduser(), ""
    if not path.is_file() and ":" in reference.removeprefix(prefix):
        before, _, name = reference.rpartition(":")
        path = Path(before).expanduser()
    path = local_path(path)
    directions = Directions.load(path)
    names = directions.meta.names
    chosen = [_component(name, names)] if name else range(len(names))
    return [Slider(path, directions, component) for component in chosen]


def _component(name: str, names: Sequence[str]) -> int:
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise InputError(unknown("direction", name, names))
