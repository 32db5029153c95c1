"""Why an edit of one attribute moves another: what the model's samples have together, and what h has of each alone.

python scripts/making/entangled.py                 # smile and gender; 16,800 passes of one image, 5 minutes of a core
python scripts/making/entangled.py age glasses

Prints JSON: the correlation of the two in the samples, by the annotator; and the judge's effects, on evaluation samples
of block 0, of three directions of h: the mean difference of the first attribute, the mean of its differences within
either side of the second, of the same number of examples, and the difference of the sides. Docs: docs/portraits.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.latents import seed_range
from hspace.diffusion.recording import collect
from hspace.directions.annotations import Annotations, annotate
from hspace.edits.sums import apply_offsets
from hspace.evaluation.readings import score
from hspace.metrics.correlation import correlation
from hspace.metrics.effect import effect_matrix, score_unit
from hspace.metrics.interval import Interval
from hspace.runs.errors import guarded
from hspace.scorers.factory import load_scorer
from hspace.types import InputError

SAMPLES, RECORDED, READ = 1000, 200, 48
"""Annotated samples, those whose h is read, and evaluation samples."""
EXAMPLES = 20
"""On each side of a difference in each of two groups, of the recorded samples; twice as many without groups."""
STRENGTHS = (0.25, 0.5, 1.0)
"""Lengths of the edits, in spreads of h: the root of its total variance."""
SHOWN = ("smile", "gender", "beard", "hair_length")
"""Attributes whose effects are printed, beside the two."""


def within(h: Tensor, scores: np.ndarray, groups: list[np.ndarray], k: int) -> Tensor:
    """Mean over groups of the difference of h between the k samples with most and with least of a score in each.

    Args:
        h: h of the samples, (steps, n, d).
        scores: Scores, (n,).
        groups: Whether each sample is in the group, bool (n,), for each group.
        k: Samples on each side in each group.

    Returns:
        The direction, (steps, d).

    Raises:
        InputError: If a group has fewer than 2 k samples.
    """
    found = []
    for group in groups:
        rows = np.flatnonzero(group)[np.argsort(scores[group], kind="stable")]
        if len(rows) < 2 * k:
            raise InputError(f"a group must have at least {2 * k} samples, got {len(rows)}")
        found.append(h[:, rows[-k:]].mean(1) - h[:, rows[:k]].mean(1))
    return torch.stack(found).mean(0)


def directions(h: Tensor, scores: np.ndarray, first: int, second: int) -> dict[str, Tensor]:
    """Three directions of one length, (steps, d) each: the spread of h."""
    side, everyone = scores[:, second] > 0.5, np.ones(len(scores), dtype=bool)
    found = {
        "mean difference": within(h, scores[:, first], [everyone], 2 * EXAMPLES),
        "within each side of the other": within(h, scores[:, first], [side, ~side], EXAMPLES),
        "difference of the sides": h[:, np.flatnonzero(~side)].mean(1) - h[:, np.flatnonzero(side)].mean(1),
    }
    spread = h.var(dim=1).sum().sqrt()
    return {name: vector / vector.norm() * spread for name, vector in found.items()}


def measured(model: DiffusionModel, annotations: Annotations, h: Tensor, names: tuple[str, str]) -> dict[str, Any]:
    """Everything that is printed."""
    first, second = (annotations.column(name) for name in names)
    scores, n = annotations.scores.double().numpy(), h.shape[1]
    found = directions(h, scores[:n], first, second)
    judge = load_scorer("portraits-judge")
    unit = score_unit(annotations.scores, annotations.visible)[[annotations.column(name) for name in judge.attributes]]
    edits = {f"{name}, {s:g}": (s * vector).float() for name, vector in found.items() for s in STRENGTHS}
    offsets = torch.stack(
        [vector.unflatten(-1, model.h_shape) for vector in [0 * next(iter(edits.values())), *edits.values()]]
    )
    images = apply_offsets(model, model.latents(seed_range("evaluation", READ)), offsets).float()
    read = torch.stack([score(judge, batch) for batch in images.unbind(1)])
    visible = torch.stack([judge.visible(each) for each in read])
    effects = effect_matrix(
        read[0], read[1:], attributes=judge.attributes, binary=judge.binary, edits=tuple(edits),
        visible=visible[1:] & visible[0], unit=unit,
    )  # fmt: skip
    shown = tuple(dict.fromkeys((*names, *SHOWN)))
    return {
        f"correlation of {names[0]} and {names[1]}": _rounded(correlation(scores[:, first], scores[:, second])),
        "cosine of the mean difference with the difference of the sides": _cosine(found, "mean difference"),
        "cosine of that within": _cosine(found, "within each side of the other"),
        "effects": {
            name: {attribute: _rounded(effects.cell(row, attribute)) for attribute in shown}
            for row, name in enumerate(edits)
        },
    }


def _cosine(found: dict[str, Tensor], name: str) -> float:
    pair = (found[each].flatten() for each in (name, "difference of the sides"))
    return round(float(torch.cosine_similarity(*pair, dim=0)), 3)


def _rounded(found: Interval) -> list[float]:
    return [round(float(value), 3) for value in (found.value, found.low, found.high)]


def main(arguments: list[str] | None = None) -> int:
    """Samples, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["smile", "gender"], help="two attributes; the second is binary")
    names = parser.parse_args(arguments).names
    if len(names) != 2:
        raise InputError(f"two attributes are needed, got {len(names)}")
    model, annotator = load_model("portraits"), load_scorer("portraits-annotator")
    annotations = annotate(model, seed_range("discovery", SAMPLES), annotator)
    with tempfile.TemporaryDirectory() as folder:
        recorded = collect(model, seed_range("discovery", RECORDED), Path(folder) / "h.npy")
        h = torch.from_numpy(np.array(recorded.open())).double()
    print(json.dumps(measured(model, annotations, h, (names[0], names[1])), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
