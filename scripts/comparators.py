"""What the benchmark compares with: the best ordinary use of other libraries, and the published way."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from sklearn.decomposition import PCA, IncrementalPCA
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.process import Schedule
from hspace.diffusion.sampling import sample
from hspace.directions.krylov import LinearMap

SVDS_TOLERANCE = 3e-2
"""ARPACK's residual relative to each eigenvalue, for about the angle that ours has; its default takes longer."""


def ddim_pipeline(model: DiffusionModel) -> DDIMPipeline:
    """Diffusers' own pipeline of the same network, noise levels and steps."""
    schedule = model.process
    assert isinstance(schedule, Schedule), "of diffusion"
    alpha_bar = np.array(schedule.alpha_bar)
    config: dict[str, Any] = {
        "num_train_timesteps": len(alpha_bar),
        "trained_betas": 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]]),
        "clip_sample": False,
        "set_alpha_to_one": schedule.final_alpha_bar == 1,
        "steps_offset": schedule.timesteps[-1],
        "prediction_type": schedule.prediction_type,
    }
    unet: Any = model.denoiser.network
    pipeline = DDIMPipeline(unet=unet, scheduler=DDIMScheduler(**config))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def one_at_a_time(model: DiffusionModel, seeds: Sequence[int]) -> list[Tensor]:
    """H of each sample, (steps, channel, height, width), kept in memory in full precision."""
    trajectories = []
    for seed in seeds:
        h = sample(model, model.latents([seed]), record_h=True).h
        assert h is not None
        trajectories.append(h[0].float().cpu())
    return trajectories


def full_pass(model: DiffusionModel, x_t: Tensor, t: float, delta_h: Tensor) -> Tensor:
    """The unsplit U-Net with an offset of the mid block's output, by a hook, as the published code has it."""
    mid: Any = model.denoiser.network.mid_block
    handle = mid.register_forward_hook(lambda module, inputs, h: h + delta_h)
    try:
        return model.denoiser.network(x_t, t).sample
    finally:
        handle.remove()


@torch.no_grad()
def two_passes(model: DiffusionModel, latents: Latents, delta_h: Tensor) -> Tensor:
    """An Asyrp edit at eta 1 by two full passes per step, one of them with the offset."""
    schedule, x_t = model.process, latents.x_T
    for i, (t, t_prev) in enumerate(schedule.pairs()):
        plain = schedule.to_eps(model.denoiser.network(x_t, t).sample, x_t, t)
        edited = schedule.to_eps(full_pass(model, x_t, t, delta_h[:, i]), x_t, t)
        mean, sigma = schedule.posterior(schedule.predict_x0(x_t, edited, t), plain, t, t_prev, 1.0)
        x_t = mean + sigma * latents.z[:, i]
    return x_t


def published_directions(
    model: DiffusionModel, x_t: Tensor, t: float, k: int, iterations: int = 50, tolerance: float = 1e-5
) -> Tensor:
    """K singular vectors one after the other, by power iteration on the image side through the whole U-Net.

    A vector is done when the eigenvalue has changed by less than `tolerance` more than ten times.

    Source: the released code of Haas et al. 2024.
    """
    # Forward derivatives of torch's group norm need it row by row in memory, as the published code has it.
    denoiser: Any = copy.deepcopy(model.denoiser)
    model = replace(model, denoiser=denoiser.to(memory_format=torch.contiguous_format))
    found_u, found_v = torch.empty(0, x_t.numel(), device=x_t.device), []
    generator = torch.Generator().manual_seed(0)
    offset = torch.zeros(1, *model.h_shape, device=x_t.device, requires_grad=True)

    def eps(delta_h: Tensor) -> Tensor:
        output = full_pass(model, x_t, t, delta_h)
        return model.process.to_eps(output, x_t, t)

    for _ in range(k):
        prediction, eigenvalue, calm = eps(offset).flatten(), torch.tensor(999.0), 0
        u = torch.randn(prediction.shape, generator=generator).to(prediction)
        u = u / u.norm()
        for _ in range(iterations):
            (pulled,) = torch.autograd.grad(prediction @ u, offset, retain_graph=True)
            with sdpa_kernel(SDPBackend.MATH):
                pushed = torch.func.jvp(eps, (offset.detach(),), (pulled,))[1].flatten()
            pushed = pushed - found_u.T @ (found_u @ pushed)
            previous, eigenvalue = eigenvalue, pushed.norm().cpu()
            u = pushed / pushed.norm()
            calm += int(abs(eigenvalue - previous) < tolerance)
            if calm > 10:
                break
        found_u = torch.cat([found_u, u[None].detach()])
        found_v.append(pulled / pulled.norm())
    return torch.cat(found_v)


def svds_directions(operator: LinearMap, k: int) -> tuple[Tensor, int]:
    """K right singular vectors, (k, n), by scipy's ARPACK on the same products, and how many it took."""
    count = 0

    def apply(product: Callable[[Tensor], Tensor], vector: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        nonlocal count
        count += 1
        block = torch.from_numpy(vector.reshape(1, *shape)).to(operator.device, operator.dtype)
        return product(block).flatten().cpu().numpy()

    p, n = math.prod(operator.out_shape), math.prod(operator.in_shape)
    options: dict[str, Any] = {
        "matvec": lambda v: apply(operator.jvp, v, operator.in_shape),
        "rmatvec": lambda u: apply(operator.vjp, u, operator.out_shape),
        "dtype": np.float32,
    }
    start = np.random.default_rng(0).standard_normal(min(p, n), dtype=np.float32)
    linear: Any = scipy.sparse.linalg.LinearOperator((p, n), **options)
    tolerance: Any = SVDS_TOLERANCE
    _, _, vh = scipy.sparse.linalg.svds(linear, k=k, tol=tolerance, v0=start)
    return torch.from_numpy(np.array(vh)), count


def incremental_components(features: np.ndarray, k: int) -> np.ndarray:
    """K components, (k, d), in batches of 1,000 samples; with smaller ones it is as slow and less exact."""
    return np.asarray(IncrementalPCA(k, batch_size=1000).fit(features).components_)


def randomized_components(features: np.ndarray, k: int) -> np.ndarray:
    """K components, (k, d), by scikit-learn's randomized solver as it comes."""
    return np.asarray(PCA(k, svd_solver="randomized", random_state=0).fit(features).components_)
