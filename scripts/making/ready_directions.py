"""Finds the ready-made directions of an embedded model: one per attribute, calibrated to 1 sd, measured by the judge.

    python scripts/making/ready_directions.py [key=value ...]    # writes weights/MODEL/directions.safetensors

Linear boundaries, and trained offsets of the smile, which no difference of samples moves alone: each at the strength at
which the annotator sees 1 sd on calibration seeds; an attribute that does not reach it is left out. Their safe ranges
are measured on calibration seeds too. The judge reads them once, on evaluation seeds of the configured block.
"""

import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from hspace.commands.run import load
from hspace.diffusion.embedded import EMBEDDED
from hspace.directions.record import Directions
from hspace.evaluation.ranges import slider_range, with_ranges
from hspace.evaluation.readings import Sweep, finite
from hspace.output.tables import Cell, Table, to_markdown
from hspace.runs.errors import guarded
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.system.files import package_path, write_text
from hspace.types import InputError

log = logging.getLogger("ready_directions")

SETTINGS = (
    "name=ready_directions", "output_dir=outputs/ready_directions", "tracking.mode=disabled",
    "study.index=600", "study.examples=60", "study.target=1",
    "study.attributes=[glasses,hat,yaw,age,smile]",
    "evaluation.strength_samples=40", "evaluation.calibration_samples=60", "evaluation.num_samples=64",
    "evaluation.block=8", "batch_size=32",
)  # fmt: skip
TRAINED = ("smile",)
"""Attributes whose directions are offsets that the annotator's gradient trains."""
RANGED = 40
"""Samples on which ranges are measured."""
TARGET = 1.0
"""Effect of strength 1 in sd: the unit that the file states."""
JUDGED = (-2.0, -1.0, 1.0, 2.0)
"""Strengths at which the judge reads the directions."""


def found(lab: Lab, attribute: str) -> Directions:
    """The direction of an attribute, by its method."""
    if attribute in TRAINED:
        return lab.discover(name="trained", attribute=attribute, num_samples=lab.cfg.study.index)
    return lab.attribute(attribute, name="boundary")


def at_target(lab: Lab, attribute: str) -> torch.Tensor | None:
    """The offset at which the annotator sees 1 sd, (steps, C, H, W); None if no strength reaches it."""
    directions = found(lab, attribute)
    calibration = lab.calibrate(directions, 0, attribute, TARGET)
    log.info("%s: %.2f sd at %.3g", attribute, calibration.effect, calibration.strength)
    return calibration.strength * directions.directions[0] if calibration.reached else None


def ready(lab: Lab) -> tuple[Directions, Table]:
    """The directions with what the judge reads of them.

    Raises:
        InputError: If the configuration asks for another effect at strength 1, or no attribute is moved by 1 sd.
    """
    study = lab.cfg.study
    if study.target != TARGET:
        raise InputError(
            f"study.target must be 1, which is what strength 1 of a ready-made direction means, got {study.target:g}"
        )
    vectors = {name: offset for name in study.attributes if (offset := at_target(lab, name)) is not None}
    if not vectors:
        raise InputError(f"no direction of study.attributes moves its own by 1 sd: {', '.join(study.attributes)}")
    sweep = lab.sweep(vectors, JUDGED, shown=1)
    methods = {name: "trained" if name in TRAINED else "boundary" for name in vectors}
    words = {"boundary": "linear boundary", "trained": "trained offsets"}
    told = [word for method, word in words.items() if method in methods.values()]
    meta = replace(
        found(lab, next(iter(vectors))).meta, names=tuple(vectors), method=" and ".join(told),
        unit="sd of the attribute, as the annotator sees it", config_sha256="", report={},
        settings={"method": methods, "target": TARGET},
        effects={"judge": lab.judge.id, "block": lab.cfg.evaluation.block, "n": len(lab.seeds()),
                 "strengths": list(JUDGED), "attributes": _effects(sweep)},
    )  # fmt: skip
    return _ranged(lab, Directions(torch.stack([*vectors.values()]).float(), meta)), _table(lab, sweep)


def _ranged(lab: Lab, directions: Directions) -> Directions:
    """The directions with the ranges in which the annotator sees that they can safely be moved."""
    seeds, unit = lab.seeds("calibration", RANGED), lab.unit(lab.annotator)
    measure = partial(
        slider_range, lab.model, directions, scorer=lab.annotator, identity=lab.identity, seeds=seeds, unit=unit,
        sampler=lab.sampler,
    )  # fmt: skip
    return with_ranges(directions, {j: measure(j) for j in range(len(directions.meta.names))})


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


def _table(lab: Lab, sweep: Sweep) -> Table:
    """A row per attribute."""
    rows: list[tuple[Cell, ...]] = []
    for j, name in enumerate(sweep.labels):
        plus, minus = sweep.effects(1.0), sweep.effects(-1.0)
        strongest, _ = plus.strongest(j)
        row = sweep.row(j, 1.0)
        cells = (minus.cell(j, name), plus.cell(j, name), strongest, plus.selectivity_of(j, name))
        rows.append((name, *cells, sweep.readings.identity(row), sweep.readings.likeness(row)))
    measured = ("effect at -1", "effect at +1", "strongest", "selectivity", "identity", "likeness")
    caption = "Ready-made directions at strength 1, where the annotator sees 1 sd; by the judge, in sd."
    return Table(("attribute", *measured), tuple(rows), caption, lab.judge_name)


def main(words: list[str]) -> int:
    """Finds, measures and writes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = parse(compose("config", overrides=[*SETTINGS, *words]))
    if cfg.model.path not in EMBEDDED:
        raise InputError(f"ready-made directions are of {' and '.join(EMBEDDED)}, got model.path={cfg.model.path}")
    lab = load(cfg)
    directions, table = ready(lab)
    path = package_path("weights") / lab.model.model_id / "directions.safetensors"
    directions.save(path)
    write_text(Path(cfg.output_dir) / "ready.md", to_markdown(table))
    log.info("%s\n%s", path, to_markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:]), __doc__))
