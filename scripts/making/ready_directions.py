"""Finds the ready-made directions of an embedded model: one per attribute, calibrated to 1 sd, measured by the judge.

    python scripts/making/ready_directions.py [key=value ...]    # writes weights/portraits/directions.safetensors

Linear boundaries, each at the strength at which the annotator sees 1 sd on calibration seeds; an attribute that does
not reach it is left out. The judge reads them once, on evaluation seeds of the configured block.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from hspace.commands.run import load
from hspace.directions.record import Directions
from hspace.evaluation.readings import Sweep, finite
from hspace.output.tables import Cell, Table, to_markdown
from hspace.runs.errors import guarded
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.system.files import package_path, write_text

log = logging.getLogger("ready_directions")

SETTINGS = (
    "name=ready_directions", "output_dir=outputs/ready_directions", "tracking.mode=disabled",
    "study.index=600", "study.examples=60", "study.target=1",
    "study.attributes=[glasses,hat,yaw,age]",
    "evaluation.strength_samples=40", "evaluation.calibration_samples=60", "evaluation.num_samples=64",
    "evaluation.block=2", "batch_size=32",
)  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "boundary": {"name": "boundary"},
}
JUDGED = (-2.0, -1.0, 1.0, 2.0)
"""Strengths in sd at which the judge reads the chosen directions."""


def candidates(lab: Lab, attribute: str) -> dict[str, torch.Tensor]:
    """By method: the offset at which the annotator sees the target, where it is reached."""
    found = {}
    for method, settings in METHODS.items():
        directions = lab.attribute(attribute, **settings)
        calibration = lab.calibrate(directions, 0, attribute, lab.cfg.study.target)
        log.info("%s by %s: %.2f sd at %.3g", attribute, method, calibration.effect, calibration.strength)
        if calibration.reached:
            found[method] = calibration.strength * directions.directions[0]
    return found


def chosen(lab: Lab, attribute: str) -> tuple[str, torch.Tensor] | None:
    """The method of an attribute and its offset at 1 sd; None if no method reaches it."""
    found = candidates(lab, attribute)
    if not found:
        return None
    target = lab.cfg.study.target
    sweep = lab.sweep(found, (-target, target), seeds=lab.seeds("calibration"), by=lab.annotator)
    effects = sweep.odd_effects()
    merits = {method: effects.selectivity_of(j, attribute).value for j, method in enumerate(found)}
    best = max(merits, key=merits.__getitem__)
    log.info("%s: %s, selectivity %s", attribute, best, {method: round(value, 2) for method, value in merits.items()})
    return best, found[best] / target


def ready(lab: Lab) -> tuple[Directions, Table]:
    """The chosen directions with what the judge reads of them."""
    found = {name: each for name in lab.cfg.study.attributes if (each := chosen(lab, name)) is not None}
    vectors = {name: vector for name, (_, vector) in found.items()}
    sweep = lab.sweep(vectors, JUDGED, shown=1)
    template = lab.attribute(next(iter(found)))
    meta = replace(
        template.meta, names=tuple(found), method="linear boundary",
        unit="sd of the attribute, as the annotator sees it", config_sha256="",
        settings={"method": {name: method for name, (method, _) in found.items()}, "target": lab.cfg.study.target},
        effects={"judge": lab.judge.id, "block": lab.cfg.evaluation.block, "n": len(lab.seeds()),
                 "strengths": list(JUDGED), "attributes": _effects(sweep)},
    )  # fmt: skip
    return Directions(torch.stack([*vectors.values()]).float(), meta), _table(
        lab, sweep, [m for m, _ in found.values()]
    )


def _effects(sweep: Sweep) -> dict[str, Any]:
    """By attribute: effect with its interval, selectivity, identity and likeness at each strength, as JSON values."""
    found: dict[str, Any] = {}
    for j, name in enumerate(sweep.labels):
        found[name] = {key: [] for key in ("effect", "selectivity", "identity", "likeness")}
        for strength in sweep.strengths:
            effects, row = sweep.effects(strength), sweep.row(j, strength)
            values = {
                "effect": effects.cell(j, name), "selectivity": effects.selectivity_of(j, name),
                "identity": sweep.readings.identity(row), "likeness": sweep.readings.likeness(row),
            }  # fmt: skip
            for key, value in values.items():
                found[name][key].append(None if value is None else finite([value.value, value.low, value.high]))
    return found


def _table(lab: Lab, sweep: Sweep, methods: Sequence[str]) -> Table:
    """A row per attribute."""
    rows: list[tuple[Cell, ...]] = []
    for j, (name, method) in enumerate(zip(sweep.labels, methods, strict=True)):
        plus, minus = sweep.effects(1.0), sweep.effects(-1.0)
        strongest, _ = plus.strongest(j)
        row = sweep.row(j, 1.0)
        cells = (minus.cell(j, name), plus.cell(j, name), strongest, plus.selectivity_of(j, name))
        rows.append((name, method, *cells, sweep.readings.identity(row), sweep.readings.likeness(row)))
    measured = ("effect at -1", "effect at +1", "strongest", "selectivity", "identity", "likeness")
    caption = "Ready-made directions at strength 1, where the annotator sees 1 sd; by the judge, in sd."
    return Table(("attribute", "method", *measured), tuple(rows), caption, lab.judge_name)


def main(words: list[str]) -> int:
    """Finds, measures and writes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = parse(compose("config", overrides=[*SETTINGS, *words]))
    lab = load(cfg)
    directions, table = ready(lab)
    path = package_path("weights") / lab.model.model_id / "directions.safetensors"
    directions.save(path)
    write_text(Path(cfg.output_dir) / "ready.md", to_markdown(table))
    log.info("%s\n%s", path, to_markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
