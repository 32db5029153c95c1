"""Measures what docs/scaling.md computes with: `python scripts/scaling.py [--h FILE]`. Three minutes on one core.

The network is google/ddpm-ema-celebahq-256's architecture with random weights, whose h is 512 x 8 x 8.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from hspace.diffusion.recording import Recorded
from hspace.diffusion.unet import SemanticUNet
from hspace.directions import solvers
from hspace.output.tables import Table, to_markdown
from hspace.runs.errors import guarded
from hspace.system.files import sha256_file
from hspace.system.shards import SHARD, RowWriter

SAMPLES, STEPS, DIM, COMPONENTS = 1_000_000, 50, 512 * 8 * 8, 8
MEASURED_ROWS = 16 * SHARD


def main() -> int:
    """Prints the measured unit costs, and the totals that follow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--h", type=Path, metavar="FILE", help="a recording of h, to count the passes of PCA over it")
    options = parser.parse_args()
    units = {"U-Net pass, one sample, s": network_seconds(), **disk_rates(), **product_rate()}
    units["passes over h, per step"] = passes(Recorded.load(options.h).open()) if options.h else 10
    print(to_markdown(Table(("unit", "measured"), tuple(units.items()), f"{torch.get_num_threads()} thread(s).")))
    print(to_markdown(Table(("part", "total"), tuple(totals(units).items()), "One process; processes share it.")))
    return 0


def network_seconds() -> float:
    """Seconds of one encode and decode of one sample."""
    down = ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"]
    unet = UNet2DModel(
        sample_size=256, block_out_channels=(128, 128, 256, 256, 512, 512), layers_per_block=2,
        down_block_types=tuple(down), attention_head_dim=None,
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
    )  # fmt: skip
    semantic = SemanticUNet(unet.eval().requires_grad_(False))
    assert semantic.h_shape == (512, 8, 8)
    x_t = torch.randn(1, 3, 256, 256)

    @torch.no_grad()
    def one_pass() -> None:
        encoded = semantic.encode(x_t, 500)
        semantic.decode(encoded.h, encoded)

    return seconds(one_pass, 3)


def disk_rates() -> dict[str, float]:
    """GB/s of recording h shard by shard with its journal, and of a checksum."""
    shape = (1, MEASURED_ROWS, DIM)
    block = np.random.default_rng(0).standard_normal((SHARD, 1, DIM), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h.npy"

        def write() -> None:
            with path.open("wb+") as file:
                writer = RowWriter(file, Path(folder) / "journal", shape)
                for first in range(0, MEASURED_ROWS, SHARD):
                    writer.write(first, block)
                    writer.finish(range(first, first + SHARD))

        size = 4 * MEASURED_ROWS * DIM / 1e9
        return {
            "recording h, GB/s": size / seconds(write, 3, time.perf_counter),
            "checksum, GB/s": size / seconds(lambda: sha256_file(path), 1),
        }


def product_rate() -> dict[str, float]:
    """GB/s of h that one pass of PCA goes through, from memory."""
    features = np.random.default_rng(0).standard_normal((1, MEASURED_ROWS, DIM), dtype=np.float32)
    block = torch.randn(DIM, COMPONENTS + 8, dtype=torch.float64)
    once = seconds(lambda: solvers._covariance_product(features, torch.zeros(DIM), block, solvers.CHUNK_BYTES), 3)
    return {"pass of PCA over h, GB/s": features.nbytes / 1e9 / once}


def passes(features: np.ndarray) -> float:
    """Passes over h that PCA takes at a step, the mean and the projections among them."""
    product, count = solvers._covariance_product, 0

    def counted(*arguments: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        return product(*arguments)  # pyright: ignore[reportArgumentType]

    solvers._covariance_product = counted  # pyright: ignore[reportAttributeAccessIssue]
    for step in range(len(features)):
        solvers.krylov_pca(features[step : step + 1], COMPONENTS)
    solvers._covariance_product = product
    return count / len(features) + 2


def totals(units: dict[str, float]) -> dict[str, float]:
    """What all samples and steps cost."""
    terabytes = 4 * SAMPLES * STEPS * DIM / 1e12
    read = terabytes * units["passes over h, per step"]
    hours, basis = 1000 / 3600, 24 * DIM * 16 * read / terabytes
    return {
        "U-Net passes, million": SAMPLES * STEPS / 1e6,
        "sampling, core-years": SAMPLES * STEPS * units["U-Net pass, one sample, s"] / (3600 * 24 * 365),
        "h on disk, TB": terabytes,
        "recording h, hours": terabytes * hours / units["recording h, GB/s"],
        "checksum of h, hours": terabytes * hours / units["checksum, GB/s"],
        "read by PCA, TB": read,
        "PCA, hours": read * hours / units["pass of PCA over h, GB/s"],
        "memory: a chunk of h, its basis and images, GB": (solvers.CHUNK_BYTES + basis) / 1e9,
        "memory: projections of one step, GB": 8 * SAMPLES * COMPONENTS / 1e9,
        "memory: z of a batch of 16, GB": 4 * 16 * STEPS * 3 * 256 * 256 / 1e9,
    }


def seconds(action: Callable[[], object], repetitions: int, clock: Callable[[], float] = time.process_time) -> float:
    """The least of several, in seconds of the process alone: others that share the core do not count."""
    taken = []
    for _ in range(repetitions):
        started = clock()
        action()
        taken.append(clock() - started)
    return min(taken)


if __name__ == "__main__":
    sys.exit(guarded(main))
