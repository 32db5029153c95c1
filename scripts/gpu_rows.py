"""The rows of one large GPU: `python scripts/benchmark.py --gpu`.

The model is the architecture of google/ddpm-ema-celebahq-256 with random weights. Rows with limits in seconds stand
beside rows that say what TF32, bfloat16, channels_last and torch.compile are worth.
"""

import contextlib
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from architectures import saved_celebahq
from comparators import ddim_pipeline
from measuring import Row, in_turns, timed
from rows import TOLERANCE, pass_operations

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.jacobian import jacobian
from hspace.directions.linearised import full_precision
from hspace.types import one_line

SIDE = 8192
"""Side of the square matrices whose product gives the card's rate."""
PAIRS = 5
"""Pairs of a row."""
ALLOWED = {"trajectories": 30.0, "directions": 10.0}
"""Seconds that 1,000 trajectories with h, and ten directions at all steps, may take."""


class OutOfTime(BaseException):
    """A row took longer than it may; no handler of ordinary errors must swallow it."""


@dataclass(frozen=True)
class Form:
    """A way to compute a pass.

    Attributes:
        dtype: Of the network.
        tf32: Whether float32 products may be computed in TF32.
        channels_last: Whether the network's weights are laid out with channels last.
        compiled: Whether `torch.compile` made it.
    """

    dtype: str
    tf32: bool = True
    channels_last: bool = False
    compiled: bool = False

    @property
    def rate(self) -> str:
        """The row of the card's rate in this form."""
        return "matrix_bfloat16" if self.dtype == "bfloat16" else "matrix_tf32" if self.tf32 else "matrix_float32"


FORMS = {
    "float32": Form("float32", tf32=False), "tf32": Form("float32"), "tf32_last": Form("float32", channels_last=True),
    "bfloat16": Form("bfloat16"), "bfloat16_last": Form("bfloat16", channels_last=True),
    "bfloat16_compiled": Form("bfloat16", compiled=True),
    "bfloat16_last_compiled": Form("bfloat16", channels_last=True, compiled=True),
}  # fmt: skip


class Card:
    """The model in all forms, and the rates measured so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rates: dict[str, float] = {}
        self._models: dict[tuple[str, bool], DiffusionModel] = {}

    def model(self, form: Form) -> DiffusionModel:
        """The model of a form, loaded once."""
        key = form.dtype, form.channels_last
        if key not in self._models:
            model = load_model(str(self.folder), dtype=form.dtype)
            if form.channels_last:
                model.denoiser.network.to(memory_format=torch.channels_last)
            self._models[key] = model
        return self._models[key]

    def network(self, form: Form) -> Any:
        """The network of a form."""
        network = self.model(form).denoiser.network
        return torch.compile(network) if form.compiled else network

    @cached_property
    def operations(self) -> int:
        """Of one image's pass, two to a multiplication and addition."""
        return pass_operations(self.model(FORMS["float32"]))

    def share(self, images: float, seconds: float, form: Form) -> str:
        """What part of the card's rate so many passes of one image have reached."""
        rate = images * self.operations / seconds
        known = self.rates.get(form.rate)
        return f"{rate / 1e12:.3g} Tflop/s" + (f", {rate / known:.0%} of {form.rate}" if known else "")


@contextlib.contextmanager
def precision(tf32: bool) -> Iterator[None]:
    """Lets float32 products be computed in TF32, those of matrices too, or in full."""
    if not tf32:
        with full_precision():
            yield
        return
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@torch.no_grad()
def matrix(name: str, card: Card, dtype: torch.dtype, tf32: bool) -> Row:
    """A product of two large matrices, against one in full float32."""
    side = SIDE if torch.cuda.is_available() else min(SIDE, 512)
    device = card.model(FORMS["float32"]).device
    full = [torch.randn(side, side, device=device) for _ in range(2)]
    cast = [each.to(dtype) for each in full]

    def ours() -> None:
        with precision(tf32):
            torch.mm(*cast)

    def other() -> None:
        with precision(False):
            torch.mm(*full)

    row = compared(name, ours, other, f"{side} x {side} matrices; full float32")
    card.rates[name] = 2 * side**3 / row.ours_s
    return replace(row, note=f"{card.rates[name] / 1e12:.3g} Tflop/s; {row.note}")


@torch.no_grad()
def network_pass(name: str, card: Card, form: str, batch: int = 64) -> Row:
    """One pass of the network in a form, against float32 with TF32 and the usual layout."""
    chosen, plain, t = FORMS[form], FORMS["tf32"], torch.tensor(500)
    networks = [card.network(each) for each in (chosen, plain)]
    x_t = torch.randn(batch, *card.model(plain).sample_shape, device=card.model(plain).device)

    def run(which: int, each: Form) -> None:
        with precision(each.tf32):
            networks[which](x_t.to(networks[which].dtype), t.to(x_t.device))

    started = time.perf_counter()
    timed(lambda: run(0, chosen))
    first = time.perf_counter() - started
    row = compared(name, lambda: run(0, chosen), lambda: run(1, plain), f"batch {batch}; float32 with TF32")
    note = f"{form}: {card.share(batch, row.ours_s, chosen)}, first pass {first:.3g} s{memory()}; {row.note}"
    return replace(row, note=note)


def trajectories(name: str, card: Card, form: str, n: int = 1000, batch: int = 64) -> Row:
    """H of n trajectories on disk, against the seconds allowed for 1,000 on an H100."""
    model, steps, chosen = card.model(FORMS[form]), 10, FORMS[form]
    with tempfile.TemporaryDirectory() as folder, precision(chosen.tf32):
        sampler = Sampler(batch_size=batch)
        collect(model, range(min(n, batch)), Path(folder) / "first.npy", sampler=sampler)
        seconds = timed(lambda: collect(model, range(n), Path(folder) / "h.npy", sampler=sampler))
    note = f"{n} trajectories of {steps} steps, batch {batch}, {form}, h on disk; "
    note += card.share(n * steps, seconds, chosen) + memory()
    return once(name, seconds, ALLOWED["trajectories"] * n / 1000, note)


def directions(name: str, card: Card, k: int = 10) -> Row:
    """Top directions of one sample at every step, against the seconds allowed on an H100."""
    model = card.model(FORMS["tf32"])
    latents = model.latents([0])
    jacobian(model, latents, k=1, steps=[0], tolerance=0.5)
    found: list[Any] = []
    seconds = timed(lambda: found.append(jacobian(model, latents, k=k, tolerance=TOLERANCE)))
    residual = float(found[0].residuals.max())
    note = f"top {k} at {len(model.process.timesteps)} steps, products in float32 without TF32, largest residual "
    return once(name, seconds, ALLOWED["directions"], f"{note}{residual:.0e}{memory()}")


def sampling(name: str, card: Card, form: str, batch: int) -> Row:
    """From seeds to images, h recorded, against diffusers' DDIM pipeline, whose noise is drawn on the card."""
    chosen = FORMS[form]
    model = card.model(chosen)
    pipeline, steps = ddim_pipeline(model), len(model.process.timesteps)

    def ours() -> None:
        sample(model, model.latents(range(batch)), sampler=Sampler(eta=1.0), record_h=True)

    def other() -> None:
        generator = torch.Generator(model.device).manual_seed(0)
        pipeline(batch, generator, eta=1.0, num_inference_steps=steps, output_type="np")

    with precision(chosen.tf32):
        row = compared(name, ours, other, f"{steps} steps, batch {batch}, h recorded; DDIMPipeline", limit=1.05)
    return replace(row, note=f"{form}: {card.share(batch * steps, row.ours_s, chosen)}{memory()}; {row.note}")


GPU_ROWS: dict[str, Callable[[str, Card], Row]] = {
    "matrix_float32": partial(matrix, dtype=torch.float32, tf32=False),
    "matrix_tf32": partial(matrix, dtype=torch.float32, tf32=True),
    "matrix_bfloat16": partial(matrix, dtype=torch.bfloat16, tf32=True),
    "pass_float32": partial(network_pass, form="float32"),
    "pass_tf32_last": partial(network_pass, form="tf32_last"),
    "pass_bfloat16": partial(network_pass, form="bfloat16"),
    "pass_bfloat16_last": partial(network_pass, form="bfloat16_last"),
    "trajectories": partial(trajectories, form="bfloat16"),
    "directions": directions,
    "sampling_b1": partial(sampling, form="tf32", batch=1),
    "sampling_b16": partial(sampling, form="tf32", batch=16),
    "sampling_b64": partial(sampling, form="tf32", batch=64),
    "trajectories_last": partial(trajectories, form="bfloat16_last", n=256),
    "trajectories_tf32": partial(trajectories, form="tf32", n=256),
    "pass_bfloat16_compiled": partial(network_pass, form="bfloat16_compiled"),
    "pass_bfloat16_last_compiled": partial(network_pass, form="bfloat16_last_compiled"),
}
"""In the order in which they are run: what matters most first, what compiles last."""


def compared(name: str, ours: Callable[[], Any], other: Callable[[], Any], note: str, limit: float = 1.0) -> Row:
    """Both in turns, a few times, after one pair to warm up."""
    in_turns(ours, other, 1)
    reset_memory()
    pairs = in_turns(ours, other, PAIRS)
    ours_s, other_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    spread = f"; ratios {ratios[0]:.3g} to {ratios[-1]:.3g}"
    return Row(name, ours_s, other_s, statistics.median(ratios), len(pairs), limit, note + spread)


def once(name: str, seconds: float, allowed: float, note: str) -> Row:
    """A job that was timed once, against the seconds allowed."""
    return Row(name, seconds, allowed, seconds / allowed, 1, 1.0, f"{note}; once, after a short one")


def reset_memory() -> None:
    """Forgets the peak of memory so far."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def memory() -> str:
    """The peak of memory since it was forgotten."""
    return f", peak {torch.cuda.max_memory_allocated() / 2**30:.3g} GiB" if torch.cuda.is_available() else ""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in a block that takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(names: Sequence[str], row_limit: float, limit: float, done: Callable[[list[Row]], None]) -> None:
    """Measures rows one after another; a row that fails or takes too long is said and left out.

    Args:
        names: Of GPU_ROWS.
        row_limit: Seconds of one row.
        limit: Seconds of all rows; what would begin later is left out.
        done: Is given all rows so far after each.
    """
    started, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        card = Card(saved_celebahq(Path(folder)))
        for name in names:
            left = limit - (time.perf_counter() - started)
            if left < 1:
                print(f"{name}: left out, {limit:g} s are over", flush=True)
                continue
            row = _measured(name, card, min(row_limit, left))
            if row is not None:
                rows.append(row)
                done(rows)


def _measured(name: str, card: Card, limit: float) -> Row | None:
    started = time.perf_counter()
    reset_memory()
    try:
        with time_limit(limit):
            row = GPU_ROWS[name](name, card)
    except OutOfTime:
        print(f"{name}: not done in {limit:.0f} s", flush=True)
        return None
    # Whatever a kernel, a compiler or a full memory raises: the other rows go on.
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {one_line(error)}", flush=True)
        torch.cuda.empty_cache()
        return None
    took = time.perf_counter() - started
    print(f"{name}: {row.ours_s:.3g} s, {row.other_s:.3g} s, {row.ratio:.3g}; {row.note} [{took:.1f} s]", flush=True)
    return row
