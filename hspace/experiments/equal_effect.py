"""Edits of one attribute by any method, at the strengths of equal effect, read by the judge."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.sampling import NotFinite
from hspace.directions.operators import Operator
from hspace.directions.record import Directions
from hspace.edits.changes import Change
from hspace.evaluation.calibration import SPREAD_SAMPLES, h_spread
from hspace.evaluation.levels import Level
from hspace.evaluation.readings import Readings
from hspace.experiments.contenders import Contender
from hspace.experiments.strengths import kept_readings, shared_levels, unedited_readings
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import MIN_SAMPLES
from hspace.runs.keys import change_key, keep
from hspace.runs.lab import Lab
from hspace.system.files import read_json, write_json
from hspace.types import Embedder, InputError

SHARES = (1.0, 2.0)
"""Effects at which methods are compared, in multiples of `study.target`."""
SCREENED = 0.25
"""Strength at which the annotator chooses among directions, as long a part of the samples' spread for every method."""
STRONG = 0.5
"""A direction is chosen among those that move the attribute by this share of the strongest one's effect."""
FIRST = {"directions": 0.25, "operators": 0.5}
"""Strength with which every calibration begins."""
MOST = {"directions": 2.0, "operators": 1.0}
"""Largest strength."""
UNREADABLE = f"no effect can be read: fewer than {MIN_SAMPLES} calibration samples show it, or the edit breaks them"
DIGITS = 3
"""Digits of the spread that count, so that rounding of another batch does not change the edits."""


@dataclass(frozen=True)
class Entry:
    """The edit that a method has for an attribute.

    Attributes:
        attribute: The attribute.
        direction: Name of the direction or operator.
        change: Change of strength 1: an offset as long as the samples' spread, that moves the attribute as the method
            can, or an operator; None where the method failed.
        levels: Strengths for the effects in `SHARES`, signed as the method moves the attribute.
        candidates: Number of directions among which the annotator chose.
        seconds: Time that finding and choosing took; nan where they failed.
        fault: Reason why there is no edit, or none that can be read.
    """

    attribute: str
    direction: str = ""
    change: Change | None = None
    levels: tuple[Level, ...] = ()
    candidates: int = 1
    seconds: float = float("nan")
    fault: str = ""


@dataclass(frozen=True)
class Trial:
    """One method on one draw.

    Attributes:
        contender: The method.
        entries: Its edit for each attribute.
        readings: What the judge reads of the edits that there are, for each attribute in order at every effect; None
            where there is no edit.
    """

    contender: Contender
    entries: tuple[Entry, ...]
    readings: Readings | None

    def row(self, attribute: str, share: int) -> int | None:
        """Index of an edit in the readings; None where there is none."""
        names = [each.attribute for each in self.entries if not each.fault]
        return len(SHARES) * names.index(attribute) + share if attribute in names else None


@dataclass(frozen=True)
class Draw:
    """What all methods share on one draw of discovery samples.

    Attributes:
        lab: The run, with the draw's discovery samples.
        number: Number of the draw.
        spread: Root of the total variance of h over the edited steps.
    """

    lab: Lab
    number: int
    spread: float

    @property
    def calibration_seeds(self) -> tuple[int, ...]:
        """Seeds of the draw's own share. Directions were chosen on others."""
        evaluation = self.lab.cfg.evaluation
        n = evaluation.strength_share(self.lab.cfg.study.repeats)
        return self.lab.seeds("calibration", n, evaluation.calibration_samples + self.number * n)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Evaluation seeds of the draw's own."""
        return self.lab.seeds(start=self.number * self.lab.cfg.evaluation.num_samples)

    @property
    def encoders(self) -> list[Embedder]:
        """Encoders of a person."""
        return [each for each in (self.lab.identity, self.lab.likeness) if each is not None]


def spread_of(lab: Lab) -> float:
    """Root of the total variance of h over the edited steps, on a few calibration samples."""
    spread = h_spread(lab.model, lab.seeds("calibration", SPREAD_SAMPLES), lab.sampler)
    return float(f"{spread:.{DIGITS}g}")


def trials(draws: Sequence[Draw], contender: Contender) -> list[Trial]:
    """Finds a method's edit of every attribute on every draw, sets its strengths, and has the judge read the edits.

    A strength is set once for a method and an attribute, by what the annotator sees in all draws together.
    """
    names = draws[0].lab.cfg.study.attributes
    found = [[_entry(draw, contender, name) for draw in draws] for name in names]
    settled = [_settled(draws, entries, contender.sign) for entries in found]
    return [_read_by_judge(draw, contender, tuple(entries[i] for entries in settled)) for i, draw in enumerate(draws)]


def _entry(draw: Draw, contender: Contender, attribute: str) -> Entry:
    """The edit of one attribute, without strengths; a mistake of the method's is told and not raised."""
    started = time.perf_counter()
    try:
        found = contender.find(draw.lab, attribute)
        change, name = _chosen(draw, found, attribute, aimed=contender.aimed)
    except InputError as error:
        return Entry(attribute, fault=str(error))
    seconds = _timed(draw, contender, attribute, change, time.perf_counter() - started)
    candidates = sum(len(each.meta.names) for each in found)
    return Entry(attribute, name, change, (), candidates, seconds)


def _settled(draws: Sequence[Draw], entries: Sequence[Entry], sign: int) -> list[Entry]:
    """The edits of one attribute, one of each draw, with their strengths."""
    edits = [(draw, each.change) for draw, each in zip(draws, entries, strict=True) if each.change is not None]
    if not edits:
        return list(entries)
    try:
        reached = tuple(_calibrated(edits, entries[0].attribute, sign))
        fault = "" if np.isfinite([each.effect for each in reached]).all() else UNREADABLE
    except InputError as error:
        reached, fault = (), str(error)
    return [each if each.change is None else replace(each, levels=reached, fault=fault) for each in entries]


def edit_name(method: str, attribute: str, effect: float) -> str:
    """Name of an edit in tables of scores, by its method, its attribute and the effect in sd that it is for."""
    return f"{method}, {attribute} at {effect:g} sd"


def _read_by_judge(draw: Draw, contender: Contender, entries: tuple[Entry, ...]) -> Trial:
    target = draw.lab.cfg.study.target
    edits = {
        edit_name(contender.name, each.attribute, share * target): level.strength * each.change
        for each in entries
        if each.change is not None and not each.fault
        for share, level in zip(SHARES, each.levels, strict=True)
    }
    if not edits:
        return Trial(contender, entries, None)
    before = unedited_readings(draw.lab, draw.seeds, [draw.lab.judge, *draw.encoders])
    try:
        return Trial(contender, entries, _judged(draw, edits, before))
    except NotFinite as error:
        # The other attributes are judged without the one whose edit breaks an image.
        broken = [each.attribute for each in entries if not each.fault][error.row // len(SHARES)]
        fault = f"{list(edits)[error.row]}: {error}"
        rest = tuple(replace(each, fault=fault) if each.attribute == broken else each for each in entries)
        return _read_by_judge(draw, contender, rest)


def _chosen(draw: Draw, found: Sequence[Directions | Operator], attribute: str, *, aimed: bool) -> tuple[Change, str]:
    """The change for an attribute, and its name: the one that aims at it, or the best, turned to raise the attribute.

    One rule for all, by the annotator on calibration seeds, of offsets of one length: of those with at least half of
    the largest effect on the attribute, the most selective.
    """
    only = found[0]
    if isinstance(only, Operator):
        return only, only.meta.names[0]
    forms = [each for each in found if isinstance(each, Directions)]
    vectors = [torch.stack([scaled(draw, vector) for vector in each.directions]) for each in forms]
    if aimed:
        return vectors[0][0], forms[0].meta.names[0]
    effects = [draw.lab.odd_effects(SCREENED * each, 1.0) for each in vectors]
    form, row = best_of(effects, attribute)
    sign = 1.0 if effects[form].cell(row, attribute).value >= 0 else -1.0
    return sign * vectors[form][row], forms[form].meta.names[row]


def best_of(effects: Sequence[EffectMatrix], attribute: str) -> tuple[int, int]:
    """Matrix and row of the edit that serves an attribute best; see `_chosen`."""
    strongest = max(float(np.nanmax(np.abs(_column(each, attribute)), initial=0.0)) for each in effects)
    ranked = [
        (*_merit(matrix, row, attribute, strongest), form, row)
        for form, matrix in enumerate(effects)
        for row in range(len(matrix.edits))
    ]
    *_, form, row = max(ranked, key=lambda each: each[:2])
    return form, row


def _column(effects: EffectMatrix, attribute: str) -> np.ndarray:
    return effects.effect[:, effects.attributes.index(attribute)]


def _merit(matrix: EffectMatrix, row: int, attribute: str, strongest: float) -> tuple[bool, float]:
    """Whether a direction is strong enough, then its selectivity, or its effect where it is not."""
    size = float(np.nan_to_num(abs(matrix.cell(row, attribute).value)))
    strong = size >= STRONG * strongest
    return strong, float(np.nan_to_num(matrix.selectivity_of(row, attribute).value)) if strong else size


def scaled(draw: Draw, vector: Tensor) -> Tensor:
    """An offset as long as the samples' spread, over the edited steps.

    Raises:
        InputError: If it is zero there.
    """
    model, window = draw.lab.model, draw.lab.sampler.window(len(draw.lab.model.process.timesteps))
    terminal = tuple(vector.shape) == tuple(model.sample_shape)
    length = float((vector if terminal else vector[window.start : window.stop]).double().norm())
    if length == 0:
        raise InputError("the direction is zero over the edited steps")
    # x_T is standard normal.
    return vector * ((vector.numel() ** 0.5 if terminal else draw.spread) / length)


def _timed(draw: Draw, contender: Contender, attribute: str, change: Change, seconds: float) -> float:
    """The time that finding took at first: a later run, which finds it in the cache, is told the same."""
    key = {"contender": contender.name, "attribute": attribute, "draw": draw.number, "change": change_key(change)}
    folder = keep(draw.lab.cfg, "seconds", key, lambda folder: write_json(folder / "seconds.json", seconds))
    return float(read_json(folder / "seconds.json"))


def _calibrated(edits: Sequence[tuple[Draw, Change]], attribute: str, sign: int) -> list[Level]:
    """The strengths at which the annotator sees the target effects in all draws together, each with its own edit."""
    lab, kind = edits[0][0].lab, "operators" if isinstance(edits[0][1], Operator) else "directions"
    targets = [share * lab.cfg.study.target for share in SHARES]
    own = [(draw.calibration_seeds, change) for draw, change in edits]
    return shared_levels(lab, own, attribute, targets, first=FIRST[kind], most=MOST[kind], sign=sign)


def _judged(draw: Draw, edits: dict[str, Change], before: Tensor) -> Readings:
    """What the judge and the encoders of a person read of edits, beside what they read of the unedited samples."""
    lab, networks = draw.lab, [draw.lab.judge, *draw.encoders]
    after = kept_readings(lab, list(edits.values()), draw.seeds, networks)
    widths = [len(lab.judge.attributes), *(each.dim for each in draw.encoders)]
    scores, people, *features = torch.cat([before[:, None], after], dim=1).split(widths, dim=2)
    nothing = torch.empty(len(draw.seeds), 1 + len(edits), 0)
    return Readings(
        lab.judge, tuple(edits), draw.seeds, scores[:, 0], scores[:, 1:].transpose(0, 1), people, nothing,
        lab.unit(lab.judge), *features,
    )  # fmt: skip
