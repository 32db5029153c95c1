"""Is there an h-space in a transformer? Every place in its blocks, beside the bottleneck of U-Nets, at equal effect."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampling import h_varies
from hspace.diffusion.taps import blocks_of
from hspace.experiments.measured import SHARES, WHOLE, Figures, Measured, measure, windows
from hspace.experiments.places import Place
from hspace.metrics.interval import Interval
from hspace.output.charts import curve_grid
from hspace.output.tables import Cell, Table, format_number
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.types import InputError

TRANSFORMER = "transformer"
DRAWN = {"effect": "effect (sd)", "selectivity": "selectivity", "identity": "identity (cosine)"}
"""Figures of the picture, and what they are called there."""


def run(lab: Lab) -> Result:
    """Measures supervised directions, components and swaps of h at every place of the configured models.

    Raises:
        InputError: If a network lacks a tap, or two models are of one kind.
    """
    measured, constant = [], []
    for place in _places(lab):
        if h_varies(place.lab.model):
            measured.append(measure(place))
        else:
            constant.append(place.name)
    if not measured:
        raise InputError(f"study.taps: h is the same for every sample at {', '.join(constant) or 'no place'}")
    target = lab.cfg.study.target
    caption = f"Mean differences by block and edited steps, at the strength that reaches {target:g} sd over all steps"
    findings = {
        "places": {each.place.name: _findings(each, target) for each in measured},
        "constant": constant,
        "models": {each.place.model: each.place.lab.model.identity.sha256 for each in measured},
    }
    samples = {
        re.sub(r"\W+", "_", f"{name}_{each.place.name}"): seen.table()
        for each in measured
        for name, seen in each.readings.items()
    }
    return Result(
        _conclusion(measured, constant, target), findings,
        {caption: _picture(measured, target, lab.figures / "places.png")},
        {"places": _table(lab, measured, constant), "attributes": _by_attribute(measured)}, samples,
        lines=[_line(each, target) for each in measured],
    )  # fmt: skip


def _places(lab: Lab) -> Iterator[Place]:
    """Every place of every model; a model's samples are annotated once."""
    seen = set[str]()
    for model in (lab.model, *(_load(lab, folder) for folder in lab.cfg.study.beside)):
        name, taps = _described(lab, model)
        if name in seen:
            raise InputError(f"study.beside: two models are a {name}; leave out one of them")
        seen.add(name)
        base = replace(lab, model=model)
        annotations = base.annotations()
        units = {scorer.id: base.unit(scorer) for scorer in (lab.annotator, lab.judge)}
        for tap in taps:
            yield Place(name, tap, replace(base, model=model.tapped(tap)), annotations, units)


def _load(lab: Lab, folder: Path) -> DiffusionModel:
    diffusion, cfg = lab.cfg.diffusion, lab.cfg
    return load_model(
        str(folder), num_steps=diffusion.num_steps, spacing=diffusion.spacing, device=cfg.device, dtype=cfg.dtype
    )


def _described(lab: Lab, model: DiffusionModel) -> tuple[str, list[str]]:
    """A model's name, and its places: the configured ones in a transformer's blocks, or the h of a U-Net."""
    blocks = len(blocks_of(model.denoiser.network))
    if not blocks:
        return f"U-Net of {'pixels' if model.sample_shape == model.image_shape else 'latents'}", ["after"]
    taps = [each.replace("*", str(i)) for each in lab.cfg.study.taps for i in range(blocks if "*" in each else 1)]
    return TRANSFORMER, list(dict.fromkeys(taps))


def _table(lab: Lab, measured: Sequence[Measured], constant: Sequence[str]) -> Table:
    study, judged = lab.cfg.study, len(lab.judge.attributes)
    columns = [f"{name} at {share * study.target:g} sd" for share in SHARES for name in Figures._fields]
    same = f" The same for every sample, and so left out: {', '.join(constant)}." if constant else ""
    caption = (
        f"Mean differences of {', '.join(study.attributes)}, in the mean over these, each at the strength at which the "
        f"annotator sees the effect; reached: how many do at {study.target:g} sd. Selectivity, without an interval, is "
        f"of the effects on {judged} judged attributes (chance {format_number(1 / judged)}). Components: of the first "
        f"{lab.pca.k} of all steps together, those that move one attribute by .5 sd from -2 to +2, surely, and by 1.5 "
        "times as much as any other, and the number of these attributes. Swapped: the share of the difference of two "
        "samples that comes with the other's h, the median over judged attributes, and of the background's colours, "
        "where the judge's world shows it alone."
        f"{same}"
    )
    names = ("place", "numbers", "reached", *columns, "components", "of attributes", "swapped", "swapped background")
    return Table(names, tuple(_row(each, study.target) for each in measured), caption)


def _row(measured: Measured, target: float) -> tuple[Cell, ...]:
    figures = [cell for share in SHARES for cell in measured.means[share * target, WHOLE]]
    return (
        measured.place.name, math.prod(measured.place.lab.model.h_shape), measured.reached(target), *figures,
        len(measured.semantic), len(set(measured.semantic)), measured.median_carried,
        measured.carried.get("background"),
    )  # fmt: skip


def _by_attribute(measured: Sequence[Measured]) -> Table:
    """Every edit of every place."""
    rows: list[tuple[Cell, ...]] = []
    for each in measured:
        for key, figures in each.edits.items():
            strength = each.strengths[key.attribute, key.target]
            reached = "yes" if strength.reached else "no"
            rows.append((each.place.name, *key, strength.value, reached, *figures))
    caption = (
        "Every edit, at the strength, in spreads of the samples, at which an edit of all steps has the target in sd"
    )
    columns = ("place", "attribute", "target", "window", "strength", "reached", *Figures._fields)
    return Table(columns, tuple(rows), caption)


def _picture(measured: Sequence[Measured], target: float, path: Path) -> Path:
    """Effect, selectivity and identity by block, in a column for each window of steps."""
    parts = windows(len(measured[0].place.lab.model.process.timesteps))
    last = max((block[0] for each in measured if (block := _block(each.place.tap))), default=0)
    grid = {
        label: {window: _curves(measured, (target, window), name, last) for window in parts}
        for name, label in DRAWN.items()
    }
    return curve_grid(grid, path, x_label="block")


def _curves(
    measured: Sequence[Measured], edits: tuple[float, str], figure: str, last: int
) -> dict[str, list[list[float]]]:
    """A figure by block, for each kind of place; that of a U-Net's h is level."""
    curves: dict[str, list[list[float]]] = {}
    for each in measured:
        block, value = _block(each.place.tap), _value(getattr(each.means[edits], figure))
        label = f"{each.place.model}, {block[1]}" if block else f"{each.place.model}, h"
        places = [block[0]] if block else sorted({0, last})
        x, y = curves.setdefault(label, [[], []])
        x += places
        y += [value] * len(places)
    return curves


def _block(tap: str) -> tuple[int, str] | None:
    """Number of a block, and what is tapped there; None of a place outside the blocks."""
    found = re.fullmatch(r"block:(\d+)(?:\.(\w+))?", tap)
    return (int(found[1]), found[2] or "output") if found else None


def _findings(measured: Measured, target: float) -> dict[str, object]:
    means = {f"{wanted:g} sd, {window}": each._asdict() for (wanted, window), each in measured.means.items()}
    return {
        "reached": measured.reached(target), "semantic": list(measured.semantic), "means": means,
        "carried": dict(measured.carried), "median carried": measured.median_carried,
    }  # fmt: skip


def _line(measured: Measured, target: float) -> str:
    return (
        f"{measured.place.name}: {measured.reached(target)} of {len(measured.place.attributes)} reach {target:g} sd, "
        f"effect {format_number(measured.means[target, WHOLE].effect.value)}, {_said(measured, target)}, "
        f"{len(measured.semantic)} components, swapped {format_number(measured.median_carried)}"
    )


def _conclusion(measured: Sequence[Measured], constant: Sequence[str], target: float) -> str:
    """The places in the transformer with the highest selectivity and identity at the effect, beside the U-Nets."""
    inside = [each for each in measured if each.place.model == TRANSFORMER]
    reaching = [each for each in inside if each.reached(target) == len(each.place.attributes)]
    parts = [f"{len(reaching)} of {len(inside)} places in the transformer reach {target:g} sd of every attribute"]
    for name in ("selectivity", "identity") if reaching else ():
        best = max(reaching, key=lambda each, name=name: _ranked(getattr(each.means[target, WHOLE], name)))
        parts.append(f"{best.place.tap} has the highest {name} of these ({_said(best, target)})")
    parts += [f"{each.place.name}: {_said(each, target)}" for each in measured if each.place.model != TRANSFORMER]
    if constant:
        parts.append(f"{len(constant)} places are the same for every sample")
    return "; ".join(parts) + "."


def _said(measured: Measured, target: float) -> str:
    figures = measured.means[target, WHOLE]
    return f"selectivity {format_number(_value(figures.selectivity))}, identity {format_number(figures.identity.value)}"


def _value(cell: Interval | float) -> float:
    return cell.value if isinstance(cell, Interval) else cell


def _ranked(cell: Interval | float) -> float:
    """What is unknown comes last."""
    value = _value(cell)
    return -math.inf if math.isnan(value) else value
