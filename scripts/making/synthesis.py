"""Reads portraits a third time, by painting them, beside annotator and judge: on renders, samples and edited samples.

    python scripts/making/synthesis.py [--renders 32] [--samples 8] [--output outputs/synthesis]

On fresh renders, whose factors are known, the tables say what each reading recovers and which err alike. On samples of
the embedded model (evaluation seeds of block 0), unedited and edited by the ready-made directions, they say where the
readings disagree. Fits start from the judge's scores, and on renders and unedited samples from random portraits too.
Every reading of every image is written beside the tables.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.latents import seed_range
from hspace.directions.record import Directions
from hspace.directions.shipped import ready_path
from hspace.edits.sums import edit
from hspace.evaluation.readings import score
from hspace.output.tables import Cell, Table, to_markdown, write_csv
from hspace.runs.errors import guarded
from hspace.scorers.portraits import annotator, judge
from hspace.system.files import write_text
from hspace.types import Images
from hspace.worlds.attributes import Factors
from hspace.worlds.portraits.faces import JUDGED, PORTRAITS, render, sample_factors, visibility
from hspace.worlds.portraits.synthesis import Fit, fit, random_start, scored_start

log = logging.getLogger("synthesis")

Readings = dict[str, Tensor]
"""By reading: (n, judged attributes)."""
STARTS = ("from the judge", "from random")
THREE = ("annotator", "judge", "synthesis")
RENDER_SEED, SIZE, STEPS = 97, 64, 10
RENDERS, UNEDITED = "renders", "unedited"


def read(images: Images, *, random: bool) -> tuple[Readings, Tensor]:
    """All readings of some images, and the root mean square errors of the nearest renders, (n,).

    Args:
        images: (n, 3, size, size) in [-1, 1].
        random: Whether to start from random portraits too; `synthesis` is the better of all fits.
    """
    scores = {"annotator": score(annotator(), images), "judge": score(judge(), images)}
    starts = [scored_start(images, scores["judge"]), *([random_start(images)] if random else [])]
    return together(scores, dict(zip(STARTS, (fit(images, [start]) for start in starts), strict=False)))


def together(scores: Readings, fits: dict[str, Fit]) -> tuple[Readings, Tensor]:
    """Readings by scorers and by fits, and the best of the fits for each image."""
    found = {name: each.scores() for name, each in fits.items()}
    errors, values = torch.stack([each.error for each in fits.values()]), torch.stack([*found.values()])
    best = values[errors.argmin(0), torch.arange(values.shape[1])]
    return {**scores, **found, "synthesis": best}, errors.amin(0)


def recovered(found: Tensor, true: Tensor, seen: Tensor) -> list[float]:
    """By attribute: accuracy of a binary one, R² of a continuous one, where it is visible; all (n, attributes)."""
    figures = []
    for j, attribute in enumerate(JUDGED):
        ours, exact = found[seen[:, j], j], true[seen[:, j], j]
        if attribute.kind == "binary":
            figures.append(float(((ours > 0.5) == (exact > 0.5)).float().mean()))
        else:
            figures.append(float(1 - (ours - exact).square().mean() / exact.var()))
    return figures


def alike(first: Tensor, second: Tensor, seen: Tensor) -> list[float]:
    """By attribute: share of equal sides of a binary one, correlation of a continuous one, where it is visible."""
    figures = []
    for j, attribute in enumerate(JUDGED):
        a, b = first[seen[:, j], j], second[seen[:, j], j]
        same = ((a > 0.5) == (b > 0.5)).float().mean() if attribute.kind == "binary" else _correlation(a, b)
        figures.append(float(same))
    return figures


def shared(first: Tensor, second: Tensor, third: Tensor, seen: Tensor) -> list[float]:
    """By attribute: correlation of what two readings are off by from a third."""
    return [
        float(_correlation(*((each - third)[seen[:, j], j] for each in (first, second)))) for j in range(len(JUDGED))
    ]


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def recovery_table(readings: Readings, true: Tensor, seen: Tensor) -> Table:
    """What each reading recovers of known factors, and how much two of them err alike."""
    columns = {name: recovered(found, true, seen) for name, found in readings.items()}
    pairs = {f"errors of {a} and {b}": shared(readings[a], readings[b], true, seen) for a, b in combinations(THREE, 2)}
    caption = f"Accuracy (binary) or R² on {len(true)} fresh renders; correlation of errors."
    return _table("attribute", {**columns, **pairs}, [attribute.id for attribute in JUDGED], caption)


def agreement_table(readings: Readings, seen: Tensor, what: str) -> Table:
    """Where the three readings agree on images whose factors nobody knows."""
    pairs = {f"{a} and {b}": alike(readings[a], readings[b], seen) for a, b in combinations(THREE, 2)}
    both = shared(readings["annotator"], readings["judge"], readings["synthesis"], seen)
    caption = (
        f"Share of equal sides (binary) or correlation of two readings on {len(seen)} {what}, and the correlation of "
        "what annotator and judge are off by from synthesis."
    )
    return _table("attribute", {**pairs, "both from synthesis": both}, [each.id for each in JUDGED], caption)


def effect_table(before: Readings, after: dict[str, Readings]) -> Table:
    """Mean change of each edit's own attribute, in its own unit."""
    ids = [attribute.id for attribute in JUDGED]
    changes = {
        name: [
            float((readings[name] - before[name])[:, ids.index(edited)].mean()) for edited, readings in after.items()
        ]
        for name in ("annotator", "judge", STARTS[0])
    }
    return _table("edit", changes, list(after), "Mean change of the edited attribute at strength 1, by each reading.")


def _table(first: str, columns: dict[str, list[float]], names: Sequence[str], caption: str) -> Table:
    rows: list[tuple[Cell, ...]] = [tuple(row) for row in zip(names, *columns.values(), strict=True)]
    return Table((first, *columns), tuple(rows), caption)


def raw_table(parts: dict[str, tuple[Readings, Tensor]]) -> Table:
    """A row per image and reading."""
    rows = [
        (what, i, name, float(errors[i]), *values.tolist())
        for what, (readings, errors) in parts.items()
        for name, found in readings.items()
        for i, values in enumerate(found)
    ]
    return Table(("images", "row", "reading", "error", *(each.id for each in JUDGED)), tuple(rows), "Readings.")


def edited_samples(n: int) -> dict[str, Images]:
    """Samples of the embedded model, unedited and under each ready-made direction at strength 1, by name."""
    model, directions = load_model("portraits", num_steps=STEPS, device="cpu"), Directions.load(ready_path("portraits"))
    latents, images = model.latents(seed_range("evaluation", n)), dict[str, Images]()
    for j, name in enumerate(directions.meta.names):
        strengths = [1.0] if images else [0.0, 1.0]
        made = edit(model, latents, directions, component=j, strengths=strengths)
        images = {**({UNEDITED: made[:, 0]} if not images else images), name: made[:, -1]}
    return images


def read_all(renders: int, samples: int) -> dict[str, tuple[Readings, Tensor]]:
    """Readings and errors of fresh renders and of samples, by the name of the images."""
    images = {RENDERS: render(_renders(renders), SIZE), **edited_samples(samples)}
    found = dict[str, tuple[Readings, Tensor]]()
    for name, each in images.items():
        log.info("reading %s", name)
        found[name] = read(each, random=name in (RENDERS, UNEDITED))
    return found


def _renders(n: int) -> Factors:
    return sample_factors(torch.Generator().manual_seed(RENDER_SEED), n)


def tables(parts: dict[str, tuple[Readings, Tensor]]) -> list[Table]:
    """What `read_all` says."""
    readings = {name: each for name, (each, _) in parts.items()}
    true = _renders(len(parts[RENDERS][1]))
    found = [recovery_table(readings.pop(RENDERS), PORTRAITS.labels(true), visibility(true))]
    edits = {name: each for name, each in readings.items() if name != UNEDITED}
    for what, of in (("unedited samples", [readings[UNEDITED]]), ("edited samples", list(edits.values()))):
        joined = {name: torch.cat([each[name] for each in of]) for name in THREE}
        found.append(agreement_table(joined, judge().visible(joined["judge"]), what))
    figures = {"mean": torch.Tensor.mean, "largest": torch.Tensor.max}
    errors = {name: [float(of(each)) for _, each in parts.values()] for name, of in figures.items()}
    caption = "Root mean square error of the nearest render's pixels, in units of [-1, 1]."
    return [*found, effect_table(readings[UNEDITED], edits), _table("images", errors, list(parts), caption)]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("outputs/synthesis"), help="default: %(default)s")
    given = parser.parse_args(argv)
    started = time.process_time()
    parts = read_all(given.renders, given.samples)
    write_csv(raw_table(parts), given.output / "readings.csv")
    text = "\n".join(to_markdown(table) for table in tables(parts))
    write_text(given.output / "synthesis.md", text)
    log.info("%.0f s of one processor\n%s", time.process_time() - started, text)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
