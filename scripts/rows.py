"""What the benchmark measures: one function per row."""

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from comparators import (
    ddim_pipeline,
    incremental_components,
    one_at_a_time,
    published_directions,
    randomized_components,
    svds_directions,
    two_passes,
)
from measuring import LONG_PAIRS, Row, compare, in_turns, timed, within
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import collect as collect_h
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.jacobian import DecoderJacobian
from hspace.directions.krylov import Triplets, top_triplets
from hspace.directions.solvers import GRAM_LIMIT, gram_pca, krylov_pca
from hspace.edits.sums import apply_offsets

K = 8
"""Singular vectors of the Jacobian rows."""
TOLERANCE = 3e-4
"""Residual at which ours stops there, for an angle a few times below the 1e-2 that is asked; see `top_triplets`."""
COMPONENTS = 25
"""Principal components of the PCA rows."""
GAIN_SHARE = 0.9
"""Part of what batching offers that has to be reached."""


def sampling(name: str, model: DiffusionModel, batch: int) -> Row:
    """From seeds to images, h recorded, against diffusers' DDIM pipeline at the same eta."""
    pipeline, steps = ddim_pipeline(model), len(model.process.timesteps)

    def ours() -> None:
        sample(model, model.latents(range(batch)), sampler=Sampler(eta=1.0), record_h=True)

    def other() -> None:
        pipeline(batch, torch.Generator().manual_seed(0), eta=1.0, num_inference_steps=steps, output_type="np")

    return compare(name, ours, other, 1.05, f"{steps} steps, batch {batch}, h recorded; diffusers' DDIMPipeline")


def collect(name: str, model: DiffusionModel, n: int = 32, batch: int = 16) -> Row:
    """H of n trajectories on disk against one image at a time with h in memory, as published."""
    with tempfile.TemporaryDirectory() as folder:
        row = compare(
            name,
            lambda: collect_h(model, range(n), Path(folder) / "h.npy", sampler=Sampler(batch_size=batch)),
            lambda: one_at_a_time(model, range(n)),
            batching_limit(model, batch),
            f"{n} trajectories, batch {batch}, h on disk; one image at a time, h in memory",
        )
    return row


def strip(name: str, model: DiffusionModel, samples: int = 4, strengths: int = 5) -> Row:
    """Every sample at every strength at once against an edit for each."""
    latents, batch = model.latents(range(samples)), samples * strengths
    unit = torch.randn(1, len(model.process.timesteps), *model.h_shape, generator=torch.Generator().manual_seed(0))
    offsets = torch.linspace(-1, 1, strengths).view(-1, 1, 1, 1, 1) * unit

    def ours() -> Tensor:
        return apply_offsets(model, latents, offsets, sampler=Sampler(batch_size=batch))

    def other() -> list[Tensor]:
        return [apply_offsets(model, latents.select([i]), offset[None]) for i in range(samples) for offset in offsets]

    difference = float((ours().flatten(0, 1) - torch.cat(other()).flatten(0, 1)).abs().max())
    note = f"{strengths} strengths x {samples} samples in one batch; {batch} edits; images agree to {difference:.0e}"
    return compare(name, ours, other, min(1.0, batching_limit(model, batch)), note)


@torch.no_grad()
def batching_limit(model: DiffusionModel, batch: int) -> float:
    """Time per image of a forward pass in a batch over that alone, with GAIN_SHARE of the gain."""
    many, t = model.latents(range(batch)).x_T.to(model.dtype), model.process.timesteps[0]
    pairs = in_turns(
        lambda: model.denoiser.network(many, t), lambda: model.denoiser.network(many[:1], t), 2 * LONG_PAIRS
    )
    return statistics.median(a / b for a, b in pairs[1:]) / batch / GAIN_SHARE


def asyrp(name: str, model: DiffusionModel, batch: int = 16) -> Row:
    """An Asyrp edit against two full passes per step."""
    latents, generator = model.latents(range(batch)), torch.Generator().manual_seed(0)
    delta = torch.randn(1, len(model.process.timesteps), *model.h_shape, generator=generator).to(model.device)

    def ours() -> Tensor:
        return sample(model, latents, delta_h=delta, sampler=Sampler(injection="asyrp")).x_0

    def other() -> Tensor:
        return two_passes(model, latents, delta)

    difference, share = float((ours() - other()).abs().max()), decoder_share(model)
    note = f"batch {batch}; two full passes per step; images agree to {difference:.0e}; decoder share {share:.3f}"
    return compare(name, ours, other, 1.05 * (1 + share) / 2, note)


def decoder_share(model: DiffusionModel) -> float:
    """The decoder's part of a pass's operations."""
    whole, decoder = _operations(model)
    return decoder / whole


def pass_operations(model: DiffusionModel) -> int:
    """Floating-point operations of one image's pass, two to a multiplication and addition."""
    return _operations(model)[0]


@torch.no_grad()
def _operations(model: DiffusionModel) -> tuple[int, int]:
    """Of a whole pass of one image, and of its decoder."""
    x_t = torch.zeros(1, *model.sample_shape, device=model.device)
    t = model.process.timesteps[0]
    # Fused kernels are not counted on every device.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as whole:
            encoded = model.denoiser.encode(x_t, t)
            model.denoiser.decode(encoded.h, encoded)
        with FlopCounterMode(display=False) as decoder:
            model.denoiser.decode(encoded.h, encoded)
    return whole.get_total_flops(), decoder.get_total_flops()


@dataclass(frozen=True)
class OneStep:
    """One sample, noised to the last step's level, for the Jacobian rows: the step that takes most products."""

    model: DiffusionModel
    t: float
    x_t: Tensor
    reference: Tensor

    @classmethod
    def of(cls, model: DiffusionModel) -> "OneStep":
        """Seed 0, with K reference vectors of a tenth of the usual residual."""
        latents, t = model.latents([0]), model.process.timesteps[-1]
        x_t = model.process.add_noise(sample(model, latents).x_0, latents.z[:, 0], t)
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


def _operator(model: DiffusionModel, x_t: Tensor, t: float) -> DecoderJacobian:
    with torch.no_grad():
        return DecoderJacobian(model.denoiser, model.denoiser.encode(x_t, t))


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


def pca_synthetic(name: str, model: DiffusionModel, n: int, d: int = 32_768) -> Row:
    """PCA of n samples with singular values 1 / sqrt(j), j = 1 ... 200, and random singular vectors."""
    del model
    generator, rank = np.random.default_rng(0), min(200, n - 1, d)
    scores = generator.standard_normal((n, rank), dtype=np.float32)
    scores = np.linalg.qr(scores - scores.mean(0))[0]
    axes = np.linalg.qr(generator.standard_normal((d, rank), dtype=np.float32))[0]
    features = (scores * np.sqrt(n / np.arange(1, rank + 1, dtype=np.float32))) @ axes.T
    return _pca(name, features, axes[:, : min(COMPONENTS, rank - 1)].T, f"n {n}, d {d}, singular values j^-1/2")


def pca_h(name: str, model: DiffusionModel, n: int = 256) -> Row:
    """PCA of the recorded h of one step; the reference is numpy's SVD in double precision."""
    with tempfile.TemporaryDirectory() as folder:
        features = np.array(collect_h(model, range(n), Path(folder) / "h.npy").open()[-1])
    axes = np.linalg.svd(features.astype(np.float64) - features.mean(0, dtype=np.float64), full_matrices=False)[2]
    return _pca(name, features, axes[: min(COMPONENTS, n - 1)], f"h of {n} samples, d {features.shape[1]}")


def _pca(name: str, features: np.ndarray, reference: np.ndarray, what: str) -> Row:
    """Ours against scikit-learn's IncrementalPCA; its randomized PCA is timed once beside."""
    k, solve = len(reference), gram_pca if len(features) <= GRAM_LIMIT else krylov_pca
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["ours"] = solve(features[None], k).components.numpy()

    def other() -> None:
        found["IncrementalPCA"] = incremental_components(features, k)

    def randomized() -> None:
        found["randomized PCA"] = randomized_components(features, k)

    seconds = timed(randomized)
    row = compare(name, ours, other, 1 / 5, "")
    errors = "; ".join(f"{key} {subspace_error(axes, reference):.0e}" for key, axes in found.items())
    note = f"{what}, k {k}; IncrementalPCA; randomized PCA takes {seconds:.3g} s; subspace errors: {errors}"
    return replace(row, note=note + row.note)


def subspace_error(found: np.ndarray, reference: np.ndarray) -> float:
    """Sine of the largest principal angle of two row spaces."""
    a, b = (np.linalg.qr(rows.T.astype(np.float64))[0] for rows in (found, reference))
    return float(np.linalg.norm(a - b @ (b.T @ a), 2))


def imports(name: str, model: DiffusionModel) -> Row:
    """`hspace --help` in a new process in a second, and `import hspace` in half of one."""
    del model

    def start(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    importing = statistics.median(timed(lambda: start("import hspace")) for _ in range(LONG_PAIRS))
    row = within(name, lambda: start("from hspace.cli import main; main(['--help'])"), 1.0, "")
    note = f"hspace --help, of 1 s allowed; import hspace takes {importing:.2g} s, of .5 s allowed"
    return replace(row, ratio=max(row.ratio, importing / 0.5), note=note + row.note)
