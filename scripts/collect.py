"""Makes one table of many finished runs: `python scripts/collect.py FOLDER ... [--output FOLDER]`.

Sources are folders, searched to the bottom, or projects of Weights & Biases: wandb:ENTITY/PROJECT[/GROUP].
Writes collected.csv and collected.md, and the means over seeds as collected_seeds.csv and collected_seeds.md.
"""

import argparse
import sys
from pathlib import Path

from hspace.output.tables import write_table
from hspace.runs.collecting import Record, collected_tables, read_folders
from hspace.runs.errors import guarded
from hspace.runs.tracking import read_project


def main() -> int:
    """Reads the sources, writes the table, prints where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a folder, or wandb:ENTITY/PROJECT[/GROUP]")
    parser.add_argument("--output", type=Path, default=Path("outputs"), metavar="FOLDER", help="default: outputs")
    options = parser.parse_args()
    tables = collected_tables([record for source in options.sources for record in _read(source)])
    for name, table in tables.items():
        print(*write_table(table, options.output / name), sep="\n")
    return 0


def _read(source: str) -> list[Record]:
    kind, _, name = source.partition(":")
    return read_project(name) if kind == "wandb" else read_folders([Path(source)])


if __name__ == "__main__":
    sys.exit(guarded(main))
