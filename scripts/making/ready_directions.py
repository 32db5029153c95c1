"""Finds the ready-made directions of an embedded model: the best one per attribute, calibrated to 1 sd, and judged.

    python scripts/making/ready_directions.py [key=value ...]    # writes outputs/ready_directions
    python scripts/making/ready_directions.py --publish          # and weights/MODEL, docs/portraits.md, and the log
    python scripts/making/ready_directions.py --again            # measures those in weights/portraits anew
    python scripts/making/ready_directions.py --card             # docs/portraits.md alone, from the weights

For each judged attribute the annotator chooses among linear boundaries, whitened differences, regression, and trained
offsets of the smile, which no difference of samples moves alone: of those with half of the largest effect the most
selective, or the next where no strength of that one moves the attribute by 1 sd, or another attribute moves more. An
attribute that none of them moves so is left out, and of more than ten those with the narrowest safe ranges. Choice,
strengths and safe ranges are of calibration seeds. The judge reads the directions once, on evaluation seeds; published
ones on a block that was not read before, which docs/results/readings.csv logs.

Cost: some 25,000 edited samples of ten steps, two hours of one core at 28 ms a pass; it goes on where it stopped.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from card.page import WORDS, put
from hydra import compose, initialize_config_dir
from torch import Tensor

from hspace.commands.run import load
from hspace.diffusion.embedded import EMBEDDED
from hspace.directions.record import Directions
from hspace.directions.shipped import ready_path
from hspace.evaluation.ranges import range_of, with_ranges
from hspace.evaluation.readings import Sweep, finite
from hspace.evaluation.safe_ranges import slider_range
from hspace.experiments.equal_effect import SCREENED, Draw, best_of, scaled, spread_of
from hspace.metrics.interval import Interval
from hspace.output.tables import Cell, Table, to_markdown
from hspace.runs.blocks import block_for, log_reading, read_log, state
from hspace.runs.errors import guarded
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.runs.report import commit
from hspace.system import workers
from hspace.system.files import package_path, write_text
from hspace.types import InputError
from hspace.worlds.portraits.faces import JUDGED

log = logging.getLogger("ready_directions")

ROOT = Path(__file__).parents[2]
LOG = ROOT / "docs" / "results" / "readings.csv"
PAGE = ROOT / "docs" / "portraits.md"
MARKS = "<!-- ready-made directions: begin -->", "<!-- ready-made directions: end -->"
SETTINGS = (
    "name=ready_directions", "output_dir=outputs/ready_directions", "tracking.mode=disabled",
    "study.index=600", "study.examples=60", "study.target=1",
    f"study.attributes=[{','.join(attribute.id for attribute in JUDGED)}]",
    "evaluation.strength_samples=40", "evaluation.calibration_samples=24", "evaluation.num_samples=64", "batch_size=32",
)  # fmt: skip
METHODS = ("boundary", "whitened", "regression")
TRAINED = ("smile",)
"""Attributes for which offsets that the annotator's gradient trains are among the candidates."""
ROOM = 10
"""Directions that are kept, those with the widest safe ranges: more would not fit the package's 40 MB of weights."""
RANGED = 24
"""Samples on which ranges are measured."""
TARGET = 1.0
"""Effect of strength 1 in sd: the unit that the file states."""
READ = (-2.0, -1.0, 1.0, 2.0)
"""Strengths at which the judge reads the directions."""


class Chosen(NamedTuple):
    """The direction of an attribute.

    Attributes:
        method: Name of the method that found it.
        offset: Offset at which the annotator sees 1 sd, (steps, *h_shape).
    """

    method: str
    offset: Tensor


def candidates(lab: Lab, attribute: str) -> Iterator[tuple[str, Directions]]:
    """What each method finds, by its name; one that finds too few examples is left out."""
    for name in (*METHODS, *(["trained"] if attribute in TRAINED else [])):
        sizes = {"num_samples": lab.cfg.study.index}
        sizes |= {"k": lab.cfg.study.examples} if name in ("boundary", "whitened") else {}
        try:
            yield name, lab.discover(name=name, attribute=attribute, **sizes)
        except InputError as error:
            log.info("%s by %s is left out: %s", attribute, name, error)


def ranked(lab: Lab, attribute: str) -> list[tuple[str, Directions]]:
    """The candidates at one length for all, as the annotator sees them: first the one that `compare_methods` chooses.

    Each next one is what it would choose of those that are left.
    """
    found, draw = list(candidates(lab, attribute)), Draw(lab, 0, spread_of(lab))
    if not found:
        return []
    effects = lab.odd_effects(SCREENED * torch.stack([scaled(draw, each.directions[0]) for _, each in found]), 1.0)
    left, order = list(range(len(found))), list[int]()
    while left:
        _, row = best_of([effects.rows(left)], attribute)
        order.append(left.pop(row))
    return [found[row] for row in order]


def at_target(lab: Lab, attribute: str) -> Chosen | None:
    """The best direction that is fit to be shipped, at the strength at which the annotator sees 1 sd; None of none."""
    for method, directions in ranked(lab, attribute):
        calibration = lab.calibrate(directions, 0, attribute, TARGET)
        offset = calibration.strength * directions.directions[0]
        log.info("%s by %s: %.2f sd at %.3g", attribute, method, calibration.effect, calibration.strength)
        if calibration.reached and moves_most(lab, attribute, offset):
            return Chosen(method, offset)
        log.info("%s by %s is not taken", attribute, method)
    return None


def moves_most(lab: Lab, attribute: str, offset: Tensor) -> bool:
    """Whether no other attribute moves more, as the annotator sees it at strength 1."""
    return lab.odd_effects(TARGET * offset[None], 1.0).strongest(0)[0] == attribute


def ready(lab: Lab) -> Directions:
    """The directions, with their ranges and with what the judge reads of them.

    Raises:
        InputError: If the configuration asks for another effect at strength 1, or no attribute is moved by 1 sd.
    """
    study = lab.cfg.study
    if study.target != TARGET:
        raise InputError(
            f"study.target must be 1, which is what strength 1 of a ready-made direction means, got {study.target:g}"
        )
    found = {name: each for name in study.attributes if (each := at_target(lab, name)) is not None}
    if not found:
        raise InputError(f"no direction of study.attributes moves its own by 1 sd: {', '.join(study.attributes)}")
    methods = {name: each.method for name, each in found.items()}
    first = next(iter(candidates(lab, next(iter(found)))))[1]
    meta = replace(
        first.meta, names=tuple(found), method=" and ".join(WORDS[each] for each in dict.fromkeys(methods.values())),
        provenance=replace(first.meta.provenance, injection=lab.sampler.injection),
        unit="sd of the attribute, as the annotator sees it", config_sha256="", report={},
        settings={"method": methods, "candidates": list(METHODS), "target": TARGET},
    )  # fmt: skip
    return widest(measured(lab, Directions(torch.stack([each.offset for each in found.values()]).float(), meta)))


def measured(lab: Lab, directions: Directions) -> Directions:
    """The directions with what the judge reads of them, and the ranges in which they can safely be moved."""
    sweep = lab.sweep(dict(zip(directions.meta.names, directions.directions, strict=True)), READ, shown=1)
    effects = {
        "judge": lab.judge.id, "block": lab.cfg.evaluation.block, "n": len(lab.seeds()), "strengths": list(READ),
        "attributes": _effects(sweep),
    }  # fmt: skip
    return _ranged(lab, replace(directions, meta=replace(directions.meta, effects=effects)))


def _ranged(lab: Lab, directions: Directions) -> Directions:
    """The directions with the ranges in which the annotator sees that they can safely be moved."""
    seeds, unit = lab.seeds("calibration", RANGED), lab.unit(lab.annotator)
    measure = partial(
        slider_range, lab.model, directions, scorer=lab.annotator, identity=lab.identity, seeds=seeds, unit=unit,
        sampler=lab.sampler,
    )  # fmt: skip
    return with_ranges(directions, {j: measure(j) for j in range(len(directions.meta.names))})


def widest(directions: Directions, count: int = ROOM) -> Directions:
    """Those with the widest safe ranges, in their order, with the facts about them alone."""
    ranges = [range_of(directions, j) for j in range(len(directions.meta.names))]
    widths = [0.0 if found is None else found.high - found.low for found in ranges]
    chosen = directions.select(sorted(sorted(range(len(widths)), key=lambda j: -widths[j])[:count]))
    meta = chosen.meta

    def about(facts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: facts[name] for name in meta.names}

    for name in (name for name in directions.meta.names if name not in meta.names):
        log.info("%s is left out for want of room", name)
    assert meta.effects is not None and meta.calibration is not None, "both were measured"
    kept = replace(
        meta, effects=meta.effects | {"attributes": about(meta.effects["attributes"])},
        settings=meta.settings | {"method": about(meta.settings["method"])}, calibration=about(meta.calibration),
    )  # fmt: skip
    return replace(chosen, meta=kept)


def _effects(sweep: Sweep) -> dict[str, Any]:
    """By attribute: effect, selectivity, identity and likeness at each strength, as JSON values.

    Each is its value, its interval and n: of an attribute that a hat may hide, only the samples that show it.
    """
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
                found[name][key].append(None if value is None else finite(list(value)))
    return found


def card(directions: Directions) -> Table:
    """A row per direction: its method, what the judge read at strength 1 and -1, and its safe range; from the file."""
    meta, rows = directions.meta, list[tuple[Cell, ...]]()
    facts = meta.effects or {}
    minus, plus = (facts["strengths"].index(strength) for strength in (-TARGET, TARGET))
    for j, name in enumerate(meta.names):
        read, safe = facts["attributes"][name], range_of(directions, j)
        assert safe is not None, "every direction has a range"
        figures = [
            ("effect", minus),
            ("effect", plus),
            *((key, plus) for key in ("selectivity", "identity", "likeness")),
        ]
        cells = (None if read[key][i] is None else _interval(*read[key][i]) for key, i in figures)
        ends = (safe.low, safe.low_because, safe.high, safe.high_because)
        rows.append((name, WORDS[meta.settings["method"][name]], *cells, *ends))
    columns = (
        "attribute", "method", "effect at -1", "effect at +1", "selectivity", "identity", "likeness", "safe from",
        "below it", "safe to", "above it",
    )  # fmt: skip
    caption = (
        f"Ready-made directions at strength 1, where the annotator sees 1 sd; by the judge on evaluation block "
        f"{facts['block']}, in sd. Ranges by the annotator, with what changes too much beyond their ends, or untested"
    )
    return Table(columns, tuple(rows), caption, facts["judge"], counted="samples")


def _interval(value: float | None, low: float | None, high: float | None, n: int) -> Interval:
    value, low, high = (float("nan") if each is None else each for each in (value, low, high))
    return Interval(value, low, high, n)


def main(words: list[str]) -> int:
    """Finds, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings, such as study.attributes=[hat]")
    parser.add_argument("--publish", action="store_true", help="also into the package and docs, with a new block")
    parser.add_argument("--again", action="store_true", help="publish new measurements of the package's directions")
    parser.add_argument("--card", action="store_true", help="only the table in docs, from the package")
    options = parser.parse_intermixed_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.card:
        put(PAGE, MARKS, to_markdown(card(Directions.load(ready_path("portraits")))))
        return 0
    shipped = Directions.load(ready_path("portraits")) if options.again else None
    published = options.publish or shipped is not None
    if published and any(word.startswith("evaluation.block=") for word in options.words):
        raise InputError("--publish and --again take the evaluation block themselves: leave out evaluation.block")
    now = state(options.words)
    block = block_for(read_log(LOG), now) if published else 0
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = parse(compose("config", overrides=[*SETTINGS, f"evaluation.block={block}", *options.words]))
    if cfg.model.path not in EMBEDDED:
        raise InputError(f"ready-made directions are of {' and '.join(EMBEDDED)}, got model.path={cfg.model.path}")
    lab = load(cfg)
    if published:
        log_reading(LOG, commit(), block, "ready_directions", now)
    with workers.sharing(workers.processes_for(cfg.workers, lab.model.device)):
        directions = ready(lab) if shipped is None else measured(lab, shipped)
    text = to_markdown(card(directions))
    directions.save(Path(cfg.output_dir) / "directions.safetensors")
    write_text(Path(cfg.output_dir) / "ready.md", text)
    if published:
        directions.save(package_path("weights") / lab.model.model_id / "directions.safetensors")
        put(PAGE, MARKS, text)
    log.info("%s\n%s", cfg.output_dir, text)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
