"""Which form of principal components moves one attribute at a time: per step as in the paper, joint, or rotated.

python scripts/making/component_forms.py           # 80,000 passes of one image, 40 minutes of a core at 28 ms

Prints a table, a row for each form: how many of its first ten components, found on 300 samples, the annotator names on
calibration samples, how many it finds semantic there (by which a form is chosen), how many the judge finds semantic on
evaluation samples of block 0, of which attributes, and the median identity at -2 and +2. Docs: docs/portraits.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from card.base import Sizes
from card.semantics import VARIMAX, component_readings, components, end_to_end, names_of, semantic_components

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.latents import seed_range
from hspace.directions.record import Directions
from hspace.runs.errors import guarded
from hspace.scorers.factory import load_identity, load_scorer
from hspace.types import Embedder, Scorer

FORMS: Mapping[str, Mapping[str, Any]] = {
    "per step": {},
    "joint": {"joint": True},
    "joint, varimax": VARIMAX,
    "joint, ICA": {"joint": True, "rotation": "ica"},
}
"""What is compared, with its arguments of `pca`."""
COLUMNS = ("form", "named", "semantic, by the annotator", "semantic, by the judge", "of", "identity")


def row(
    model: DiffusionModel,
    form: str,
    directions: Directions,
    annotator: Scorer,
    judge: Scorer,
    identity: Embedder,
    sizes: Sizes,
) -> tuple[str, ...]:
    """The cells of one form."""
    seeds = seed_range("calibration", sizes.calibration)
    annotated = component_readings(model, directions, annotator, identity, seeds, sizes)
    names = names_of(annotated)
    chosen = semantic_components(names, end_to_end(annotated.odd_effects()))
    seeds = seed_range("evaluation", sizes.judged)
    judged = component_readings(model, directions, judge, identity, seeds, sizes)
    semantic = [each for each in semantic_components(names, end_to_end(judged.odd_effects())) if each["semantic"]]
    kept = judged.readings.cosine.mean(dim=1)
    return (
        form,
        str(sum(name is not None for name in names)),
        str(sum(each["semantic"] for each in chosen)),
        str(len(semantic)),
        ", ".join(sorted({each["attribute"] for each in semantic})),
        f"{float(kept.median()):.2f}",
    )


def main(arguments: list[str] | None = None) -> int:
    """Finds, reads and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    model, sizes = load_model("portraits"), Sizes()
    annotator, judge, identity = load_scorer("portraits-annotator"), load_scorer("portraits-judge"), load_identity()
    with tempfile.TemporaryDirectory() as folder:
        found = components(model, sizes, Path(folder), tuple(FORMS.values()))
    print(f"| {' | '.join(COLUMNS)} |\n| :-- | --: | --: | --: | :-- | --: |", flush=True)
    for form, directions in zip(FORMS, found, strict=True):
        print(f"| {' | '.join(row(model, form, directions, annotator, judge, identity, sizes))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
