"""The reverse process, with an optional edit of h at every step, and a stream of recorded h to disk."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.denoiser import Encoded
from hspace.diffusion.latents import Latents
from hspace.diffusion.provenance import INJECTIONS, Provenance
from hspace.system.files import read_json, write_json
from hspace.system.progress import bar
from hspace.system.shards import SHARD, Batches, row_batches, row_writer
from hspace.system.stopping import uninterrupted
from hspace.types import HForBatch, HTrajectory, Images, InputError


@dataclass(frozen=True)
class Samples:
    """What the reverse process gave.

    Attributes:
        x_0: Images, (batch, channel, height, width), about [-1, 1], not clipped.
        h: The h that the network computed at every step, without any edit, (batch, steps, *h_shape); None if not
            recorded.
    """

    x_0: Images
    h: HTrajectory | None


Edit = Callable[[int, Encoded], Tensor]
"""An edit: what takes the place of the h of a step, (batch, *h_shape), as a function of the step and its h."""


@dataclass(frozen=True)
class Step:
    """What one step of the reverse process gave.

    Attributes:
        index: Of the step; 0 is the noisiest.
        encoded: What the network gave at the step's x_t up to the tap, without any edit.
        x0_hat: Predicted clean image P_t, edited, in the model's space.
        x_t: The less noisy sample that the step leads to; of the last step the clean one.
    """

    index: int
    encoded: Encoded
    x0_hat: Tensor
    x_t: Tensor


def adding(offsets: HForBatch) -> Edit:
    """The edit that adds offsets of h, (1 or batch, steps, *h_shape), to the h that its own trajectory computes."""
    return lambda step, encoded: encoded.h + offsets[:, step]


def replacing(h: HForBatch) -> Edit:
    """The edit that puts other features, (1 or batch, steps, *h_shape), in the place of h."""
    return lambda step, encoded: h[:, step].expand_as(encoded.h)


def reverse(
    model: DiffusionModel,
    latents: Latents,
    *,
    eta: float | Sequence[float] = 1.0,
    edit: Edit | None = None,
    injection: str = "symmetric",
) -> Iterator[Step]:
    """The reverse process, step by step; it can be differentiated, and ended at any step.

    The network computes in the model's dtype, the process around it in float32 or better.

    Args:
        model: The model; its process says which steps are taken.
        latents: x_T and z of the batch. Where sigma is 0 (eta 0, or the last step) z is not read.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        edit: Of h at every step; None leaves it.
        injection: `symmetric` puts the edited eps into P_t and D_t; `asyrp` into P_t only.

    Source: Haas et al. 2024 (arXiv 2303.11073), eqs. 2-5; Kwon et al. 2023 (arXiv 2210.10960), eq. 5, for Asyrp.
    """
    process, denoiser = model.process, model.denoiser
    etas, dtype = process.etas(eta), torch.promote_types(model.dtype, torch.float32)
    x_t, z = latents.x_T.to(model.device, dtype), latents.z.to(model.device)
    for i, (t, t_prev) in enumerate(process.pairs()):
        encoded = denoiser.encode(x_t, t, model.cond)
        h = encoded.h if edit is None else edit(i, encoded)
        output = usual = denoiser.decode(h, encoded).to(dtype)
        if injection == "asyrp" and h is not encoded.h:
            usual = denoiser.decode(encoded.h, encoded).to(dtype)
        x0_hat = process.to_x0(output, x_t, t)
        mean, sigma = process.posterior(x0_hat, process.to_eps(usual, x_t, t), t, t_prev, etas[i])
        x_t = mean + sigma * z[:, i] if sigma > 0 else mean
        yield Step(i, encoded, x0_hat, x_t)
        # What a step has encoded is let go before the next one is.
        del encoded, h


@torch.no_grad()
def sample(
    model: DiffusionModel,
    latents: Latents,
    *,
    eta: float | Sequence[float] = 1.0,
    edit: Edit | None = None,
    delta_h: HForBatch | None = None,
    replace_h: HForBatch | None = None,
    injection: str = "symmetric",
    record_h: bool = False,
    observe: Callable[[int, Encoded], None] | None = None,
) -> Samples:
    """Run the reverse process to images; see `reverse`.

    Args:
        model: The model; its process says which steps are taken.
        latents: x_T and z of the batch. Where sigma is 0 (eta 0, or the last step) z is not read.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        edit: Of h at every step, a function of the step and what was encoded; None leaves h.
        delta_h: Short for an edit that adds offsets, (1 or batch, steps, *h_shape).
        replace_h: Short for an edit that replaces h, shaped the same; `delta_h` is added to it.
        injection: `symmetric` puts the edited eps into P_t and D_t; `asyrp` into P_t only.
        record_h: Whether to return h.
        observe: Called with every step's index and what the encoder gave at its x_t.

    Raises:
        InputError: If a shape or choice is wrong, or h is edited in two ways.
        NotFinite: If an image becomes NaN or infinite; step and seed are named.
    """
    latents.fit(model.provenance(eta=eta, tap=False))
    _check_inputs(model, latents, {"delta_h": delta_h, "replace_h": replace_h}, injection)
    if edit is not None and (delta_h is not None or replace_h is not None):
        raise InputError("give an edit, or delta_h and replace_h, not both")
    delta_h, replace_h = (h if h is None else h.to(model.device, model.dtype) for h in (delta_h, replace_h))
    trajectory, finite, x_t = [], [], latents.x_T
    for step in reverse(model, latents, eta=eta, edit=edit or _edit(delta_h, replace_h), injection=injection):
        x_t = step.x_t
        if observe is not None:
            observe(step.index, step.encoded)
        # Read once after the loop, so that a GPU need not wait at every step.
        finite.append(x_t.isfinite().flatten(1).all(dim=1))
        if record_h:
            trajectory.append(step.encoded.h)
        del step
    _check_finite(torch.stack(finite).cpu(), model.process.timesteps, latents.seeds)
    if latents.residual is not None:
        x_t = x_t + latents.residual.to(x_t)
    return Samples(model.codec.decode(x_t), torch.stack(trajectory, dim=1) if record_h else None)


def _edit(delta_h: Tensor | None, replace_h: Tensor | None) -> Edit | None:
    """The edit that the short forms mean."""
    if replace_h is None:
        return None if delta_h is None else adding(delta_h)
    return replacing(replace_h) if delta_h is None else replacing(replace_h + delta_h)


def _check_inputs(
    model: DiffusionModel, latents: Latents, trajectories: Mapping[str, Tensor | None], injection: str
) -> None:
    batch, steps = len(latents.x_T), len(model.process.timesteps)
    if injection not in INJECTIONS:
        raise InputError(f"injection must be one of {', '.join(INJECTIONS)}, got {injection}")
    if tuple(latents.x_T.shape[1:]) != model.sample_shape:
        raise InputError(f"x_T must be samples of shape {model.sample_shape}, got {tuple(latents.x_T.shape[1:])}")
    if tuple(latents.z.shape) != (batch, steps, *model.sample_shape):
        raise InputError(f"z must have shape {(batch, steps, *model.sample_shape)}, got {tuple(latents.z.shape)}")
    expected = (batch, steps, *model.h_shape)
    for name, h in trajectories.items():
        if h is not None and (len(h) not in (1, batch) or tuple(h.shape[1:]) != expected[1:]):
            raise InputError(f"{name} must have shape {expected}, or 1 in place of {batch}, got {tuple(h.shape)}")


class NotFinite(InputError):
    """A sample became NaN or infinite; `row` says which of the batch."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def _check_finite(finite: Tensor, timesteps: Sequence[float], seeds: Sequence[int]) -> None:
    """Raises NotFinite for the first step, and the first sample at it, that is not: (steps, batch) bool."""
    if not finite.all():
        step, row = torch.nonzero(~finite)[0].tolist()
        where = f"at step {step} (t={timesteps[step]:g})"
        hint = "use smaller strengths, or dtype=float32"
        raise NotFinite(row, f"the image of seed {seeds[row]} became NaN or infinite {where}; {hint}")


@dataclass(frozen=True)
class Recorded:
    """Recorded h on disk: `path` is a `.npy` of float32 (steps, samples, d), and these facts lie beside it as JSON.

    Attributes:
        path: The `.npy` file.
        seeds: Seed of each sample.
        h_shape: Shape of one h; d is the product of its sides.
        provenance: Model, tap, conditioning, process and eta.
    """

    path: Path
    seeds: tuple[int, ...]
    h_shape: tuple[int, ...]
    provenance: Provenance

    @property
    def timesteps(self) -> tuple[float, ...]:
        """Model time of each step, descending."""
        return self.provenance.process.timesteps

    def save(self) -> None:
        """Write the facts beside the array, as JSON."""
        facts = {"seeds": self.seeds, "h_shape": self.h_shape, "provenance": self.provenance.to_dict()}
        write_json(self.path.with_suffix(".json"), facts)

    @classmethod
    def load(cls, path: str | Path) -> "Recorded":
        """Find a recording again.

        Raises:
            InputError: If the array or the facts beside it are missing, broken, or do not fit together.
        """
        path = Path(path)
        try:
            recorded = cls(path, **_parse_facts(read_json(path.with_suffix(".json"))))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path.with_suffix('.json')} does not describe a recording of h: {error}") from error
        recorded.open()
        return recorded

    def open(self) -> np.memmap:
        """The array, (steps, samples, d), read from disk as it is used.

        Raises:
            InputError: If the file is missing, no plain float32 array, or of another shape.
        """
        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is no readable .npy file: {error}") from error
        expected = (len(self.timesteps), len(self.seeds), int(np.prod(self.h_shape)))
        if array.shape != expected or array.dtype != np.float32:
            raise InputError(f"{self.path} must hold float32 {expected}, got {array.dtype} {array.shape}")
        return array


def _parse_facts(facts: dict[str, Any]) -> dict[str, Any]:
    parsed = {key: tuple(int(value) for value in facts[key]) for key in ("seeds", "h_shape")}
    return parsed | {"provenance": Provenance.from_dict(facts["provenance"])}


def collect(
    model: DiffusionModel,
    seeds: Sequence[int],
    path: str | Path,
    *,
    eta: float | Sequence[float] = 1.0,
    batch_size: int = 16,
    shards: Path | None = None,
) -> Recorded:
    """Sample without an edit and stream h to disk; memory holds one batch.

    Args:
        model: The model to sample.
        seeds: One seed per sample.
        path: The `.npy` to write, complete or not at all; 4 · steps · samples · d bytes.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        batch_size: Samples per batch; noise does not depend on it.
        shards: Folder that keeps what is finished for a later process to continue; none but this recording's.

    Raises:
        InputError: If the seeds, eta or batch size are wrong.
        OSError: If the file cannot be written.
    """
    seeds, steps = tuple(seeds), len(model.process.timesteps)

    def draw(rows: range) -> Latents:
        return Latents.from_seeds(seeds[rows.start : rows.stop], model.sample_shape, steps)

    return _collect(model, seeds, draw, path, eta, batch_size, shards)


def collect_around(
    model: DiffusionModel,
    center: Latents,
    n: int,
    path: str | Path,
    *,
    first: int = 0,
    eta: float | Sequence[float] = 1.0,
    batch_size: int = 16,
    shards: Path | None = None,
) -> Recorded:
    """Like `collect`, for n neighbours of one sample, whose seed all of them carry.

    Args:
        model: The model to sample.
        center: One sample, generated or inverted; see `Latents.neighbours`.
        n: Number of neighbours.
        path: The `.npy` to write, complete or not at all; 4 · steps · n · d bytes.
        first: Number of the first neighbour, of an endless row of them.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        batch_size: Samples per batch; noise does not depend on it.
        shards: Folder that keeps what is finished for a later process to continue; none but this recording's.

    Raises:
        InputError: If `center` is not one sample, or eta, n or the batch size is wrong.
        OSError: If the file cannot be written.

    Source: the code of Haas et al. 2024, local PCA.
    """
    if len(center.seeds) != 1 or n < 1:
        raise InputError(f"neighbours need one sample and n >= 1, got {len(center.seeds)} samples and n={n}")

    def draw(rows: range) -> Latents:
        return center.neighbours(range(first + rows.start, first + rows.stop))

    return _collect(model, center.seeds * n, draw, path, eta, batch_size, shards)


def _collect(
    model: DiffusionModel,
    seeds: tuple[int, ...],
    draw: Callable[[range], Latents],
    path: str | Path,
    eta: float | Sequence[float],
    batch_size: int,
    shards: Path | None,
) -> Recorded:
    """Stream h of the samples that `draw` gives for ranges of rows."""
    path, timesteps, etas = Path(path), model.process.timesteps, model.process.etas(eta)
    recorded = Recorded(path, seeds, model.h_shape, model.provenance(eta=etas))
    batches = Batches(batch_size)

    def make(rows: range) -> np.ndarray:
        h = sample(model, draw(rows), eta=etas, record_h=True).h
        assert h is not None
        return h.flatten(start_dim=2).float().cpu().numpy()

    with row_writer(path, (len(timesteps), len(seeds), int(np.prod(model.h_shape))), shards) as writer:
        for rows in bar(row_batches(len(seeds), SHARD), stage="collect h"):
            if writer.has(rows):
                continue
            with uninterrupted():
                for batch, h in batches(rows, make):
                    writer.write(batch.start, h)
                writer.finish(rows)
        # Facts of an older recording must not describe the new array.
        path.with_suffix(".json").unlink(missing_ok=True)
    recorded.save()
    return recorded
