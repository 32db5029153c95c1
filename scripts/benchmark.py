"""Speed beside what people would otherwise use: outputs/benchmark/benchmark.json and .md.

    python scripts/benchmark.py [--rows sampling,jacobian] [--model FOLDER] [--threads N] [--output FOLDER]

Both sides of a row run in turns in this process, on the same model, inputs and threads: at least 20 pairs where a pair
takes less than a second, 5 where more, one where it takes over a minute. A ratio is the median of the pairs' ratios.
"""

import argparse
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import scipy
import torch
from comparators import ddim_pipeline, published_directions, svds_directions, two_passes
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hspace.checkpoints import DiffusionModel, load_model
from hspace.directions.jacobian import DecoderJacobian
from hspace.files import write_json
from hspace.krylov import Triplets, top_triplets
from hspace.sampling import sample
from hspace.tables import Table, write_markdown

SHORT_PAIRS, LONG_PAIRS = 20, 5
"""Pairs of a row under a second, and of a longer one."""
K = 8
"""Singular vectors of the Jacobian rows."""
TOLERANCE = 3e-4
"""Residual at which ours stops there, for an angle a few times below the 1e-2 that is asked; see `top_triplets`."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: The row.
        ours_s: Median seconds of ours.
        other_s: Median seconds of the other.
        ratio: Median of ours / other over the pairs.
        repetitions: Number of pairs.
        limit: The ratio to reach.
        note: What was compared, the spread, and how exact either was.
    """

    name: str
    ours_s: float
    other_s: float
    ratio: float
    repetitions: int
    limit: float
    note: str


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes, on a GPU until it is done."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def compare(name: str, ours: Callable[[], Any], other: Callable[[], Any], limit: float, note: str) -> Row:
    """Time both in turns, after one run of ours and, where it is no matter of minutes, one pair to warm up."""
    ours()
    pairs = [(timed(ours), timed(other))]
    if sum(pairs[0]) < 60:
        count = SHORT_PAIRS if sum(pairs[0]) < 1 else LONG_PAIRS
        pairs = [_pair(ours, other, swapped=i % 2 == 1) for i in range(count)]
    ratios = sorted(a / b for a, b in pairs)
    spread = f"ratios {ratios[0]:.3g} to {ratios[-1]:.3g}" if len(pairs) > 1 else "one repetition, for its length"
    ours_s, other_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(name, ours_s, other_s, statistics.median(ratios), len(pairs), limit, f"{note}; {spread}")


def _pair(ours: Callable[[], Any], other: Callable[[], Any], swapped: bool) -> tuple[float, float]:
    if swapped:
        other_s = timed(other)
        return timed(ours), other_s
    return timed(ours), timed(other)


def sampling(name: str, model: DiffusionModel, batch: int) -> Row:
    """From seeds to images, h recorded, against diffusers' DDIM pipeline at the same eta."""
    pipeline, steps = ddim_pipeline(model), len(model.schedule.timesteps)

    def ours() -> None:
        sample(model, model.latents(range(batch)), eta=1.0, record_h=True)

    def other() -> None:
        pipeline(batch, torch.Generator().manual_seed(0), eta=1.0, num_inference_steps=steps, output_type="np")

    return compare(name, ours, other, 1.05, f"{steps} steps, batch {batch}, h recorded; diffusers' DDIMPipeline")


def asyrp(name: str, model: DiffusionModel) -> Row:
    """An Asyrp edit against two full passes per step."""
    latents, generator = model.latents(range(16)), torch.Generator().manual_seed(0)
    delta = torch.randn(1, len(model.schedule.timesteps), *model.h_shape, generator=generator).to(model.device)

    def ours() -> Tensor:
        return sample(model, latents, delta_h=delta, injection="asyrp").x_0

    def other() -> Tensor:
        return two_passes(model, latents, delta)

    difference, share = float((ours() - other()).abs().max()), decoder_share(model)
    note = f"batch 16; two full passes per step; images agree to {difference:.0e}; decoder share {share:.3f}"
    return compare(name, ours, other, 1.05 * (1 + share) / 2, note)


@torch.no_grad()
def decoder_share(model: DiffusionModel) -> float:
    """The decoder's part of a pass's multiply-accumulates."""
    x_t = torch.zeros(1, *model.sample_shape, device=model.device)
    t = model.schedule.timesteps[0]
    # Fused kernels are not counted on every device.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as whole:
            encoded = model.unet.encode(x_t, t)
            model.unet.decode(encoded.h, encoded)
        with FlopCounterMode(display=False) as decoder:
            model.unet.decode(encoded.h, encoded)
    return decoder.get_total_flops() / whole.get_total_flops()


@dataclass(frozen=True)
class OneStep:
    """One sample, noised to the last step's level, for the Jacobian rows; the published stop works best there."""

    model: DiffusionModel
    t: int
    x_t: Tensor
    reference: Tensor

    @classmethod
    def of(cls, model: DiffusionModel) -> "OneStep":
        """Seed 0, with K reference vectors of a tenth of the usual residual."""
        latents, t = model.latents([0]), model.schedule.timesteps[-1]
        x_t = model.schedule.add_noise(sample(model, latents).x_0, latents.z[:, 0], t)
        return cls(model, t, x_t, top_triplets(_operator(model, x_t, t), K, tolerance=1e-5).v)

    def operator(self) -> DecoderJacobian:
        """The Jacobian, from the encoder's pass on."""
        return _operator(self.model, self.x_t, self.t)

    def solve(self) -> Triplets:
        """Ours, the encoder's pass included."""
        return top_triplets(self.operator(), K, tolerance=TOLERANCE)

    def angle(self, v: Tensor) -> float:
        """Largest principal angle of K vectors to the reference, in radians."""
        found, reference = (torch.linalg.qr(a.reshape(K, -1).double().T).Q for a in (v, self.reference))
        outside = found - reference @ (reference.T @ found)
        return float(torch.linalg.matrix_norm(outside, ord=2).clamp(max=1).asin())


def _operator(model: DiffusionModel, x_t: Tensor, t: int) -> DecoderJacobian:
    with torch.no_grad():
        return DecoderJacobian(model.unet, model.unet.encode(x_t, t))


def jacobian(name: str, model: DiffusionModel) -> Row:
    """Top K directions of one step against the published way."""
    step = OneStep.of(model)
    found = step.solve()
    published: list[Tensor] = []

    def other() -> None:
        published.append(published_directions(model, step.x_t, step.t, K))

    row = compare(name, step.solve, other, 1 / 25, "")
    note = (
        f"top {K} at t={step.t}: {found.products} products, angle {step.angle(found.v):.0e}; the published way (whole "
        f"U-Net, one vector at a time, at most 50 iterations, its own stop), angle {step.angle(published[0]):.0e}"
    )
    return replace(row, note=note + row.note)


def jacobian_svds(name: str, model: DiffusionModel) -> Row:
    """Top K directions of one step against scipy's ARPACK on the same products."""
    step = OneStep.of(model)
    found = step.solve()
    theirs, products = svds_directions(step.operator(), K)
    note = (
        f"top {K} at t={step.t}: {found.products} products, angle {step.angle(found.v):.0e}; scipy svds, "
        f"{products} products, angle {step.angle(theirs):.0e}"
    )
    return compare(name, step.solve, lambda: svds_directions(step.operator(), K), 1 / 3, note)


ROWS: dict[str, Callable[[str, DiffusionModel], Row]] = {
    "sampling_b1": partial(sampling, batch=1),
    "sampling": partial(sampling, batch=16),
    "sampling_b64": partial(sampling, batch=64),
    "asyrp": asyrp,
    "jacobian": jacobian,
    "jacobian_svds": jacobian_svds,
}


def machine() -> str:
    """What it ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The commit of this checkout, with a plus sign if it was changed since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return described.stdout.strip() or "unknown"


def write(rows: Sequence[Row], output: Path) -> None:
    """The file and its table."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "diffusers": diffusers.__version__}
    facts = {"machine": machine(), "versions": versions | {"scipy": scipy.__version__}, "commit": commit()}
    write_json(output / "benchmark.json", facts | {"rows": [asdict(row) for row in rows]})
    columns = tuple(Row.__dataclass_fields__)
    caption = f"{facts['machine']}; torch {torch.__version__}; commit {facts['commit']}. Ratio is ours / other."
    table = Table(columns, tuple(tuple(asdict(row).values()) for row in rows), caption)
    write_markdown(table, output / "benchmark.md")


def main() -> None:
    """Measure the chosen rows, writing the file after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default=",".join(ROWS), help="names, separated by commas; all: %(default)s")
    parser.add_argument("--model", default="portraits", help="an embedded model, a folder or a hub id")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    arguments = parser.parse_args()
    names = arguments.rows.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no row {unknown[0]}; rows are {', '.join(ROWS)}")
    torch.set_num_threads(arguments.threads)
    model, rows = load_model(arguments.model), []
    for name in names:
        row = ROWS[name](name, model)
        rows.append(row)
        print(f"{name}: {row.ours_s:.3g} s, {row.other_s:.3g} s, {row.ratio:.3g} (limit {row.limit:.3g}); {row.note}")
        write(rows, arguments.output)


if __name__ == "__main__":
    main()
