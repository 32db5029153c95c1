"""Measures every figure of docs/portraits.md on the embedded weights, and refreshes the page.

    python scripts/making/model_card.py        # writes outputs/model_card/metrics.json, docs/portraits.md, docs/images/

Sections that were measured on the same weights before are read from outputs/model_card.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from card.base import Sizes
from card.page import refresh
from card.sections import measure

from hspace.runs.errors import guarded

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="portraits", help="name, folder or hub id (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "model_card", help="folder of all results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of portraits.md and images/")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    started = time.perf_counter()
    metrics = measure(arguments.model, Sizes(), arguments.output, ROOT / ".train" / "data")
    refresh(arguments.docs, metrics, arguments.output / "images")
    logging.info("%s in %.1f minutes", arguments.output / "metrics.json", (time.perf_counter() - started) / 60)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
