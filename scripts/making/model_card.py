"""Measures every figure of docs/portraits.md or docs/rooms.md on the embedded weights.

    python scripts/making/model_card.py [portraits-128 | rooms]                # writes outputs/model_card/NAME/
    python scripts/making/model_card.py [portraits-128 | rooms] --docs docs    # and refreshes the page and docs/images/

Sections that were measured on the same weights before are read from the folder of results.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from card.base import Sizes
from card.page import refresh
from card.sections import measure
from card.subject import SUBJECTS

from hspace.runs.errors import guarded

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="portraits", choices=SUBJECTS, help="default: %(default)s")
    parser.add_argument("--model", help="name, folder or hub id of another network to measure in its place")
    parser.add_argument("--output", type=Path, help="folder of all results (default: outputs/model_card/NAME)")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="also refresh the page and images/ there")
    arguments = parser.parse_args()
    output = arguments.output or ROOT / "outputs" / "model_card" / arguments.name
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    started = time.perf_counter()
    metrics = measure(arguments.model or arguments.name, arguments.name, Sizes(), output, ROOT / ".train" / "data")
    if arguments.docs:
        refresh(arguments.docs, metrics, output / "images")
    logging.info("%s in %.1f minutes", output / "metrics.json", (time.perf_counter() - started) / 60)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
