"""Directions and operators that a user names on the command line, with the model and the networks for its images."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.embedded import drawn_world
from hspace.directions.hub import PREFIX, local_path
from hspace.directions.operators import Found, Operator, load_found
from hspace.directions.record import Directions
from hspace.directions.shipped import READY, ready_models
from hspace.edits.sums import Term
from hspace.evaluation.ranges import SliderRange, range_of, range_unlike, without_range
from hspace.runs.config import Config
from hspace.runs.discovery import warn_of_injection
from hspace.runs.readers import refusal, warn_of
from hspace.scorers.factory import load_identity, load_scorer, told_name
from hspace.system.registry import unknown
from hspace.types import Embedder, InputError, Scorer

log: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slider:
    """One direction of a file, or its operator.

    Attributes:
        path: File of directions or of an operator.
        found: All directions of the file, or the operator.
        component: Index of the direction; 0 for an operator.
    """

    path: Path
    found: Found
    component: int

    @property
    def name(self) -> str:
        """The direction's own name."""
        return self.found.meta.names[self.component]

    @property
    def directions(self) -> Directions:
        """All directions of the file.

        Raises:
            InputError: If it holds an operator.
        """
        if isinstance(self.found, Operator):
            raise InputError(
                f"{self.path} holds an operator, and this is done with directions: hspace edit, hspace studio and "
                "hspace method=file apply operators"
            )
        return self.found

    @property
    def range(self) -> SliderRange | None:
        """What `hspace range` measured of it; None if it did not, or `fitted` dropped it."""
        return range_of(self.found, self.component)

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
    sliders = [slider for reference in references for slider in find_sliders(reference, cfg.model.path)]
    model = load_model(
        cfg.model.path, tap=cfg.model.tap, num_steps=cfg.diffusion.num_steps, spacing=cfg.diffusion.spacing,
        device=cfg.device, dtype=cfg.dtype, prompt=cfg.model.prompt or "", guidance=cfg.model.guidance,
        revision=cfg.model.revision, family=cfg.model.family,
    )  # fmt: skip
    sliders = [fitted(slider, cfg, model) for slider in sliders]
    annotator = None if refusal(cfg, "annotator") else load_scorer(cfg.evaluation.annotator)
    if annotator is not None:
        warn_of(told_name(annotator, annotated=False, world=drawn_world(cfg.model.path)), model)
    identity = None if refusal(cfg, "identity") else load_identity(cfg.evaluation.identity)
    return Bench(cfg, model, tuple(sliders), annotator, identity)


def fitted(slider: Slider, cfg: Config, model: DiffusionModel) -> Slider:
    """The slider for use with a model, without a range that was measured of other edits; a warning tells of it.

    Raises:
        InputError: If its directions were found under other circumstances, naming the first that `allow` lacks.
    """
    found = slider.found.fit(model, eta=cfg.diffusion.eta, allow=cfg.allow)
    warn_of_injection(found.meta, cfg, slider.name)
    if other := range_unlike(found, slider.component, cfg.sampler):
        log.warning("the range of %s, measured with %s, is not used: hspace range measures it anew", slider.name, other)
        found = without_range(found, slider.component)
    elif found is not slider.found and slider.range is not None:
        log.warning("the range of %s is not used: %s", slider.name, found.meta.differences[-1])
        found = without_range(found, slider.component)
    return replace(slider, found=found)


def find_sliders(reference: str, model: str = "") -> list[Slider]:
    """The directions, or the operator, that a word names.

    Args:
        reference: Reference, `FILE` for all directions of a file, or `FILE:NAME` for one, by its name or its number
            from 0; the file may be `hub:OWNER/NAME` or `ready:MODEL`. A name alone is a ready-made direction.
        model: Name or path of the model whose ready-made directions may be named alone.

    Raises:
        InputError: If the file does not exist, holds neither, or has none of that name.
    """
    if model in ready_models() and re.fullmatch(r"[\w-]+", reference) and not Path(reference).exists():
        reference = f"{READY}{model}:{reference}"
    prefix = next((each for each in (PREFIX, READY) if reference.startswith(each)), "")
    path, name = Path(reference).expanduser(), ""
    if not path.is_file() and ":" in reference.removeprefix(prefix):
        before, _, name = reference.rpartition(":")
        if not name:
            raise InputError(f"{reference} must name a direction after its colon, or be {before} for all of them")
        path = Path(before).expanduser()
    path = local_path(path)
    found = load_found(path)
    names = found.meta.names
    chosen = [_component(name, names)] if name else range(len(names))
    return [Slider(path, found, component) for component in chosen]


def _component(name: str, names: Sequence[str]) -> int:
    named = [i for i, each in enumerate(names) if each == name] or [
        i for i, each in enumerate(names) if each.partition(": ")[2] == name
    ]
    if len(named) == 1:
        return named[0]
    if named:
        raise InputError(f"{len(named)} directions are named {name}: write their numbers, {', '.join(map(str, named))}")
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise InputError(unknown("direction", name, names))
