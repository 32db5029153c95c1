"""Windows of steps in which one edit is applied, compared at equal effect by the annotator on calibration seeds.

The judge reads nothing here: a run with the window that is found, on evaluation seeds, says what it is worth.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hspace.diffusion.latents import check_disjoint
from hspace.directions.operators import Found, Operator
from hspace.edits.changes import changes
from hspace.evaluation.calibration import SPREAD_SAMPLES, spread_strength
from hspace.evaluation.levels import Level
from hspace.evaluation.readings import Readings, finite
from hspace.experiments.equal_effect import FIRST, MOST
from hspace.experiments.strengths import shared_levels
from hspace.metrics.interval import Interval
from hspace.output.figures import strip_figure
from hspace.output.tables import Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result

PARTS = 3
"""Parts of the trajectory; a window is one of them, or several that follow each other."""
TAKEN_OFF = ("erase", "switch")
"""Kinds of operators that take their attribute off."""


class Window(NamedTuple):
    """One window of steps.

    Attributes:
        start: First edited step.
        stop: First step that is not edited any more.
        level: Strength at which the annotator sees the target effect, or the nearest.
        readings: What the annotator and the encoders of a person read of the edit at this strength.
    """

    start: int
    stop: int
    level: Level
    readings: Readings

    def selectivity(self, attribute: str) -> Interval:
        """Share of the edit's effects that falls on its attribute."""
        return self.readings.effects().selectivity_of(0, attribute)


def run(lab: Lab) -> Result:
    """Sets the strength of the configured method's edit in every window, and compares what else each changes.

    Raises:
        InputError: If the attribute does not vary over the unedited samples, so that effects have no unit.
    """
    attribute, found = str(lab.cfg.method.model_dump()["attribute"]), lab.found()
    evaluation = lab.cfg.evaluation
    seeds = lab.seeds("calibration", evaluation.strength_samples, evaluation.calibration_samples)
    check_disjoint(discovery=found.meta.seeds, calibration=(*lab.seeds("calibration"), *seeds))
    tried = [_window(lab, found, attribute, *ends, seeds) for ends in windows(len(lab.model.process.timesteps))]
    return _result(lab, attribute, tried)


def windows(steps: int) -> list[tuple[int, int]]:
    """First step, and the one to stop before, of every window.

    Examples:
        >>> windows(10)
        [(0, 3), (0, 7), (0, 10), (3, 7), (3, 10), (7, 10)]
    """
    cuts = sorted({round(part * steps / PARTS) for part in range(PARTS + 1)})
    return [(start, stop) for i, start in enumerate(cuts) for stop in cuts[i + 1 :]]


def best(tried: list[Window], attribute: str) -> Window | None:
    """The most selective of the windows that reach the target; None where none does or no selectivity is known."""
    known = [each for each in tried if each.level.reached and math.isfinite(each.selectivity(attribute).value)]
    return max(known, key=lambda each: each.selectivity(attribute).value, default=None)


def _window(lab: Lab, found: Found, attribute: str, start: int, stop: int, seeds: tuple[int, ...]) -> Window:
    """The edit in one window: its strength on some seeds, its readings on the calibration seeds of names."""
    lab = replace(lab, cfg=replace(lab.cfg, edit=replace(lab.cfg.edit, start=start, stop=stop)))
    change = next(iter(changes(found).values()))
    if isinstance(found, Operator):
        scale, kind, sign = 1.0, "operators", -1 if found.kind in TAKEN_OFF else 1
    else:
        scale, kind, sign = spread_strength(lab.model, found, 0, seeds[:SPREAD_SAMPLES], lab.sampler), "directions", 1
    (level,) = shared_levels(
        lab, [(seeds, change)], attribute, [lab.cfg.study.target], first=FIRST[kind] * scale, most=MOST[kind] * scale,
        sign=sign,
    )  # fmt: skip
    readings = lab.read(
        {_name(start, stop): level.strength * change}, lab.seeds("calibration"), by=lab.annotator, shown=1
    )
    return Window(start, stop, level, readings)


def _name(start: int, stop: int) -> str:
    return f"steps {start} to {stop - 1}"


def _result(lab: Lab, attribute: str, tried: list[Window]) -> Result:
    """The table of all windows, one sample in each, and the window that is best."""
    target, chosen = lab.cfg.study.target, best(tried, attribute)
    rows = tuple(
        (
            each.start, each.stop, each.level.strength, "yes" if each.level.reached else "no",
            each.readings.effects().cell(0, attribute), each.selectivity(attribute), each.readings.identity(0),
        )
        for each in tried
    )  # fmt: skip
    columns = ("start", "stop", "strength", "reached", "effect", "selectivity", "identity")
    caption = (
        f"An edit of {attribute} in windows of steps, at the strength at which the annotator sees {target:g} sd, or "
        f"the nearest; read by {lab.annotator.id} on other calibration seeds. The judge has read nothing"
    )
    table = Table(columns, rows, caption)
    findings = {
        "attribute": attribute,
        "best": None if chosen is None else [chosen.start, chosen.stop],
        "windows": [finite(list(row)) for row in rows],
    }
    pictures: Tensor = torch.stack([each.readings.images[0] for each in tried])
    figure = strip_figure(
        pictures, [_name(each.start, each.stop) for each in tried], ["unedited", f"{attribute} at {target:g} sd"],
        "One calibration sample, edited in each window of steps", lab.figures / "windows.png",
    )  # fmt: skip
    return Result(_conclusion(attribute, target, tried, chosen), findings, {"One sample by window": figure},
                  {"windows": table})  # fmt: skip


def _conclusion(attribute: str, target: float, tried: list[Window], chosen: Window | None) -> str:
    if chosen is None:
        return f"In no window of steps does the annotator see {attribute} move by {target:g} sd and what else moves."
    (whole,) = (each for each in tried if (each.start, each.stop) == (0, max(other.stop for other in tried)))
    values = [format_number(value) for each in (chosen, whole)
              for value in (each.selectivity(attribute).value, each.readings.identity(0).value)]  # fmt: skip
    return (
        f"Where the annotator sees {attribute} move by {target:g} sd it finds the edit of {_name(*chosen[:2])} most "
        f"selective, {values[0]} at an identity of {values[1]} (of all steps {values[2]} at {values[3]}): "
        f"edit.start={chosen.start} edit.stop={chosen.stop}. The judge has not read it."
    )
