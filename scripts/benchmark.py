"""Speed beside what people would otherwise use: outputs/benchmark/benchmark.json and .md.

    python scripts/benchmark.py [--rows sampling,jacobian] [--model FOLDER] [--threads N] [--docs docs]
    python scripts/benchmark.py --gpu [--limit 150] [--row-limit 45]      the rows of one large GPU

Both sides of a row run in turns in this process, on the same model, inputs and threads: 20 pairs where a pair takes
less than a second, else 5, or as many as fit into a minute. A ratio is the median of the pairs' ratios.
The model `celebahq-architecture` is that of google/ddpm-ema-celebahq-256 with random weights; `--gpu` measures it. Each
row is written as soon as it is done. `--docs` refreshes performance.md.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import rows as measured
import torch
from architectures import celebahq
from gpu_rows import GPU_ROWS, measure
from jobs import JOBS
from measuring import Row, refresh, write
from transformer_rows import sampling_dit, sampling_sd3

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.runs.errors import guarded
from hspace.system.registry import unknown
from hspace.types import InputError

ROWS: dict[str, Callable[[str, DiffusionModel], Row]] = {
    "sampling_b1": partial(measured.sampling, batch=1),
    "sampling": partial(measured.sampling, batch=16),
    "sampling_b64": partial(measured.sampling, batch=64),
    "sampling_dit": sampling_dit,
    "sampling_sd3": sampling_sd3,
    "collect": measured.collect,
    "strip": measured.strip,
    "asyrp": measured.asyrp,
    "jacobian": measured.jacobian,
    "jacobian_svds": measured.jacobian_svds,
    "pca_h": measured.pca_h,
    "pca_1k": partial(measured.pca_synthetic, n=1_000),
    "pca_10k": partial(measured.pca_synthetic, n=10_000),
    "imports": measured.imports,
    **JOBS,
}


def main() -> int:
    """Measure the chosen rows, writing the file after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", help=f"names, separated by commas; all: {','.join(ROWS)}")
    parser.add_argument("--gpu", action="store_true", help=f"the rows of a GPU; all: {','.join(GPU_ROWS)}")
    parser.add_argument("--limit", type=float, default=150.0, help="seconds of all rows of a GPU: %(default)s")
    parser.add_argument("--row-limit", type=float, default=45.0, help="seconds of one row of a GPU: %(default)s")
    parser.add_argument("--model", default="portraits", help="celebahq-architecture, or as in load_model")
    parser.add_argument("--dtype", default="float32", help="what the network computes in: float32, bfloat16, float16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    parser.add_argument("--docs", type=Path, help="folder of performance.md, whose table is put in place")
    arguments = parser.parse_args()
    known = GPU_ROWS if arguments.gpu else ROWS
    names = arguments.rows.split(",") if arguments.rows else list(known)
    for name in names:
        if name not in known:
            raise InputError(unknown("row", name, known))
    if arguments.threads < 1:
        raise InputError(f"--threads must be at least 1, got {arguments.threads}")
    torch.set_num_threads(arguments.threads)
    if arguments.gpu:
        measure(names, arguments.row_limit, arguments.limit, lambda rows: write(rows, arguments.output))
        return 0
    load = celebahq if arguments.model == "celebahq-architecture" else partial(load_model, arguments.model)
    model, rows = load(dtype=arguments.dtype), []
    for name in names:
        row = ROWS[name](name, model)
        rows.append(row)
        print(f"{name}: {row.ours_s:.3g} s, {row.other_s:.3g} s, {row.ratio:.3g} (limit {row.limit:.3g}); {row.note}")
        write(rows, arguments.output)
    if arguments.docs:
        refresh(arguments.docs / "performance.md", rows)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
