"""The noise levels and the generative process: eqs. 1-5 of the paper, each in one place, for sampling and inversion.

`alpha_bar` is the cumulative product of the forward process. The DDIM paper, and this project's, write it alpha;
diffusers calls it `alphas_cumprod`. The predicted image is never clipped, even if a checkpoint's scheduler asks for it.

A variance that a network has learnt is passed over: sigma is a number of the process and eta, the same for every pixel,
and inversion solves for the noise with it. Only DDPM's step, at eta 1, could use a learnt one (Nichol & Dhariwal 2021,
arXiv 2102.09672, eq. 15); DDIM's has none.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from hspace.diffusion.sampler import check_eta
from hspace.types import Images, InputError, one_line

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")
SPACINGS = ("leading", "trailing", "linspace")

FAINT = 0.1
"""Factor between a / b of a step and of the next one below which x_t holds next to nothing of the image."""

MAX_TRAIN_STEPS = 100_000
"""More model times than any checkpoint has; their noise levels would fill the memory."""


@dataclass(frozen=True)
class Process(ABC):
    """How a clean image becomes noise, x_t = a x_0 + b eps, and the model times that are visited on the way back.

    Every equation is written in a and b, so that diffusion (`Schedule`) and flow matching (`FlowMatching`) share it.

    Attributes:
        timesteps: Model times visited, descending; step index i = 0 is the noisiest.
        prediction_type: Kind of the network's output: `epsilon`, `v_prediction`, `sample` or `flow`.
    """

    timesteps: tuple[float, ...]
    prediction_type: str

    def __post_init__(self) -> None:
        """Raises InputError where eqs. 2-5 would be undefined."""
        if self.prediction_type not in PREDICTION_TYPES:
            raise InputError(
                f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {self.prediction_type}"
            )
        for t in self.timesteps:
            a, b = self.level(t)
            if b <= 0:
                raise InputError(f"there must be noise at every model time, got none at t={t}; use leading spacing")
            if a <= 0 and self.prediction_type == "epsilon":
                raise InputError(
                    f"predicted noise says nothing where there is only noise (t={t}, alpha_bar 0); use leading spacing"
                )

    @staticmethod
    def from_scheduler(
        scheduler: Any,
        num_steps: int,
        spacing: str | None = None,
        image_tokens: int | None = None,
        own_range: bool = False,
    ) -> "Process":
        """Take over a diffusers scheduler's noise levels, model times and prediction type.

        Args:
            scheduler: A DDPM-, DDIM- or PNDM-like scheduler of diffusers, a flow-matching Euler scheduler, or the
                configuration of one.
            num_steps: Number of steps, 1 to the number the model was trained with.
            spacing: `leading`, `trailing` or `linspace` (Lin et al. 2023, table 2); None takes the scheduler's own.
                Flow matching has its own.
            image_tokens: Number of tokens of an image, where the noise levels depend on it.
            own_range: Whether flow matching goes over the scheduler's own range of noise levels, as the pipeline of
                Stable Diffusion 3 does; else from 1 to 1 / num_steps before the shift, as that of FLUX does.

        Raises:
            InputError: If the scheduler is of another kind, or a value is out of range.
        """
        if isinstance(scheduler, Mapping):
            scheduler = build_scheduler(scheduler)
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            return FlowMatching.of(scheduler, num_steps, spacing, image_tokens, own_range)
        return Schedule.of(scheduler, num_steps, spacing)

    @abstractmethod
    def level(self, t: float) -> tuple[float, float]:
        """(a, b) of a model time; t = -1 is the clean end."""

    def levels(self) -> tuple[tuple[float, float], ...]:
        """(a, b) of every visited step, noisiest first, and of the clean end."""
        return tuple(self.level(t) for t in (*self.timesteps, -1))

    def pairs(self) -> list[tuple[float, float]]:
        """The (t, t_prev) of every step, noisiest first; t_prev = -1 is clean."""
        return list(zip(self.timesteps, (*self.timesteps[1:], -1), strict=True))

    def etas(self, eta: float | Sequence[float]) -> tuple[float, ...]:
        """One eta per step.

        Args:
            eta: One value for all steps or one per step, in [0, 1].

        Raises:
            InputError: If a value is outside [0, 1] or their number is not the number of steps.
        """
        values = tuple(eta) if isinstance(eta, Sequence) else (eta,) * len(self.timesteps)
        if len(values) != len(self.timesteps):
            raise InputError(f"eta must be one value or {len(self.timesteps)} (one per step), got {len(values)}")
        for value in values:
            check_eta(value)
        return tuple(float(value) for value in values)

    def add_noise(self, x_0: Images, noise: Images, t: float) -> Images:
        """Forward process, eq. 1: x_t = a x_0 + b noise."""
        a, b = self.level(t)
        return a * x_0 + b * noise

    def to_eps(self, output: Images, x_t: Images, t: float) -> Images:
        """The predicted noise, from the network's raw output.

        Args:
            output: Output of the network at (x_t, t), (batch, channel, height, width).
            x_t: Noisy image that the network saw, of the same shape.
            t: Model time of a step.

        Source: Salimans & Ho 2022 (arXiv 2202.00512), sec. 4 and appendix D, for v; Lipman et al. 2023 (arXiv
        2210.02747) for flow, output = noise - x_0.
        """
        a, b = self.level(t)
        if self.prediction_type == "epsilon":
            return output
        if self.prediction_type == "v_prediction":
            return a * output + b * x_t
        if self.prediction_type == "flow":
            return x_t + a * output
        return (x_t - a * output) / b

    def to_x0(self, output: Images, x_t: Images, t: float) -> Images:
        """The predicted clean image P_t, from the network's raw output; defined at a = 0 too. Not clipped.

        For Args and Source see `to_eps`.
        """
        a, b = self.level(t)
        if self.prediction_type == "epsilon":
            return self.predict_x0(x_t, output, t)
        if self.prediction_type == "v_prediction":
            return a * x_t - b * output
        if self.prediction_type == "flow":
            return x_t - b * output
        return output

    def predict_x0(self, x_t: Images, eps: Images, t: float) -> Images:
        """Predicted clean image P_t, not clipped, shaped like `x_t`; undefined where a is 0.

        Source: Haas et al. 2024 (arXiv 2303.11073), eq. 3.
        """
        a, b = self.level(t)
        return (x_t - b * eps) / a

    def posterior(self, x0_hat: Images, eps: Images, t: float, t_prev: float, eta: float) -> tuple[Images, float]:
        """Mean and noise scale of q(x_{t_prev} | x_t, x_0) in the DDIM family.

        Args:
            x0_hat: Predicted clean image P_t, (batch, channel, height, width), in [-1, 1].
            eps: Predicted noise of the direction term D_t; the unedited one for Asyrp.
            t: Model time of a step.
            t_prev: The less noisy model time; -1 means clean.
            eta: 0 is DDIM, 1 is DDPM.

        Returns:
            The mean, shaped like `x0_hat`, and sigma >= 0 in units of x_t. Where `t_prev` is -1 and the clean end has
            no noise, sigma and D_t are exactly 0: the mean is P_t, eta is inert, and z cannot be solved for.

        Raises:
            InputError: If not -1 <= t_prev < t, or `eta` is outside [0, 1].

        Source: Song et al. 2021 (arXiv 2010.02502), eqs. 12 and 16; their alpha is our a². Haas et al. 2024, eqs. 2, 4
        and 5. For flow matching, sigma is that of the same Gaussian posterior; ours.
        """
        if not -1 <= t_prev < t:
            raise InputError(f"t_prev must be in [-1, t), got t={t} and t_prev={t_prev}")
        check_eta(eta)
        (a, b), (a_prev, b_prev) = self.level(t), self.level(t_prev)
        # Where eta = 1 makes the differences vanish, rounding can make them slightly negative.
        variance = (eta * b_prev) ** 2 * max(1 - (a * b_prev / (a_prev * b)) ** 2, 0.0)
        return a_prev * x0_hat + math.sqrt(max(b_prev**2 - variance, 0.0)) * eps, math.sqrt(variance)

    def step_input(self, x_prev: Images, x0_hat: Images, eps: Images, t: float, t_prev: float) -> Images:
        """The x_t from which a step of eta 0 gives x_prev, for a prediction of which eps, or P_t, is held fixed.

        Where x_t is next to noise alone, eps is x_t itself for any prediction, and only P_t distinguishes one from
        another: it is held. Of predicted noise P_t is a quotient by a, and eps is held at all steps.

        Raises:
            InputError: If x_t is only noise and x_prev is clean: no image can be recovered from such a step.
        """
        (a, b), (a_prev, b_prev) = self.level(t), self.level(t_prev)
        if a <= 0 and b_prev <= 0:
            raise InputError("a single step from noise to image cannot be inverted; use more steps")
        # An error of P_t must not grow, as it would towards a clean end that has little noise.
        faint = a * b_prev < FAINT * a_prev * b and a_prev * b <= b_prev
        if a <= 0 or (faint and self.prediction_type != "epsilon"):
            return a * x0_hat + b * (x_prev - a_prev * x0_hat) / b_prev
        return a * (x_prev - b_prev * eps) / a_prev + b * eps


@dataclass(frozen=True)
class Schedule(Process):
    """Diffusion: a² + b² = 1, with a² the cumulative product alpha_bar at each model time.

    Attributes:
        alpha_bar: Cumulative product in [0, 1) by model time, t = 0 is the least noisy.
        final_alpha_bar: alpha_bar of the clean end, t = -1; 1 unless the checkpoint says otherwise.

    Examples:
        >>> from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
        >>> process = Schedule.of(DDPMScheduler(), num_steps=4)
        >>> process.timesteps
        (750, 500, 250, 0)
        >>> process.pairs()[-1]
        (0, -1)
        >>> a, b = process.level(750)
        >>> round(a**2 + b**2, 9)
        1.0
    """

    timesteps: tuple[int, ...]
    alpha_bar: tuple[float, ...] = ()
    final_alpha_bar: float = 1.0

    @classmethod
    def of(cls, scheduler: Any, num_steps: int, spacing: str | None = None) -> "Schedule":
        """See `Process.from_scheduler`.

        Raises:
            InputError: If the scheduler has no `alphas_cumprod`, or the number of steps does not fit.
        """
        if not hasattr(scheduler, "alphas_cumprod"):
            name = type(scheduler).__name__
            raise InputError(f"{name} has no alphas_cumprod; give a DDPM, DDIM, PNDM or flow-matching Euler scheduler")
        config = scheduler.config
        alpha_bar = tuple(scheduler.alphas_cumprod.tolist())
        spacing = config.get("timestep_spacing", "leading") if spacing is None else spacing
        return cls(
            timesteps=_timesteps(len(alpha_bar), num_steps, str(spacing), config.get("steps_offset", 0)),
            prediction_type=config.get("prediction_type", "epsilon"),
            alpha_bar=alpha_bar,
            final_alpha_bar=float(getattr(scheduler, "final_alpha_cumprod", 1.0)),
        )

    def level(self, t: float) -> tuple[float, float]:
        """(sqrt(alpha_bar), sqrt(1 - alpha_bar)) of a model time.

        Raises:
            InputError: If the scheduler does not have that model time.
        """
        if not -1 <= t < len(self.alpha_bar):
            raise InputError(f"t must be in [0, {len(self.alpha_bar)}), or -1 for clean, got {t}; use fewer steps")
        alpha_bar = self.alpha_bar[int(t)] if t >= 0 else self.final_alpha_bar
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


@dataclass(frozen=True)
class FlowMatching(Process):
    """Flow matching on straight paths: a = 1 - sigma, b = sigma, with sigma the model time over its range.

    Attributes:
        num_train_timesteps: Model time of sigma 1.

    Source: Lipman et al. 2023 (arXiv 2210.02747); Esser et al. 2024 (arXiv 2403.03206).
    """

    num_train_timesteps: int = 1000

    @classmethod
    def of(
        cls,
        scheduler: Any,
        num_steps: int,
        spacing: str | None = None,
        image_tokens: int | None = None,
        own_range: bool = False,
    ) -> "FlowMatching":
        """See `Process.from_scheduler`; the sigmas are the scheduler's, with its shift.

        Raises:
            InputError: If `spacing` is given, the number of steps does not fit, or sigma grows towards the image.
        """
        if spacing is not None:
            raise InputError(f"spacing belongs to diffusion, and this is flow matching: leave it out, got {spacing}")
        config = scheduler.config
        if not 1 <= num_steps <= config["num_train_timesteps"]:
            raise InputError(f"num_steps must be in [1, {config['num_train_timesteps']}], got {num_steps}")
        if config.get("invert_sigmas", False):
            raise InputError("flow matching whose sigma grows towards the image (invert_sigmas) is not supported")
        dynamic = {"mu": _dynamic_shift(config, image_tokens)} if config["use_dynamic_shifting"] else {}
        levels = {"sigmas": np.linspace(1.0, 1 / num_steps, num_steps).tolist()}
        scheduler.set_timesteps(**({"num_inference_steps": num_steps} if own_range else levels), **dynamic)
        if not scheduler.sigmas.isfinite().all():
            raise InputError(f"the scheduler has no noise levels for {num_steps} step; use more")
        count = config["num_train_timesteps"]
        return cls(tuple(float(sigma) * count for sigma in scheduler.sigmas[:-1]), "flow", count)

    def level(self, t: float) -> tuple[float, float]:
        """(1 - sigma, sigma) of a model time.

        Raises:
            InputError: If the scheduler does not have that model time.
        """
        if not -1 <= t <= self.num_train_timesteps:
            raise InputError(f"t must be in [0, {self.num_train_timesteps}], or -1 for clean, got {t}")
        sigma = max(t, 0) / self.num_train_timesteps
        return 1 - sigma, sigma


def _dynamic_shift(config: Mapping[str, Any], image_tokens: int | None) -> float:
    """Mu of the time shift, which grows with the number of tokens.

    Source: Esser et al. 2024, sec. 5.3.2, with the line of the published FLUX models.
    """
    if image_tokens is None:
        raise InputError("the scheduler shifts its times by the number of image tokens, which this model does not have")
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (high - low) * (image_tokens - few) / (many - few)


def build_scheduler(config: Mapping[str, Any]) -> SchedulerMixin:
    """The diffusers scheduler that a `scheduler_config.json` names.

    Raises:
        InputError: If diffusers has no scheduler of the name, or it does not take the configuration.
    """
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise InputError(f"unknown scheduler {name}; give a DDPM, DDIM or PNDM scheduler of diffusers")
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MAX_TRAIN_STEPS:
        raise InputError(f"num_train_timesteps must be a whole number from 1 to {MAX_TRAIN_STEPS}, got {steps!r}")
    try:
        return kind.from_config(dict(config))  # pyright: ignore[reportAttributeAccessIssue]
    # For unknown choices and wrong types diffusers raises whatever error its arithmetic meets.
    except Exception as error:
        raise InputError(f"the configuration of the {name} cannot be used: {one_line(error)}") from error


def _timesteps(num_train_steps: int, num_steps: int, spacing: str, steps_offset: int) -> tuple[int, ...]:
    """Descending model times, exactly as `DDIMScheduler.set_timesteps` of diffusers gives them.

    Source: Lin et al. 2023 (arXiv 2305.08891), table 2; rounding and the offset of leading spacing as in diffusers.
    """
    if not 1 <= num_steps <= num_train_steps:
        raise InputError(f"num_steps must be in [1, {num_train_steps}], got {num_steps}")
    if spacing == "leading":
        times = np.arange(num_steps) * (num_train_steps // num_steps) + steps_offset
    elif spacing == "trailing":
        # diffusers' own list sometimes runs one step past the end, to t = -1.
        times = np.round(np.arange(num_train_steps, 0, -num_train_steps / num_steps))[:num_steps][::-1] - 1
    elif spacing == "linspace":
        times = np.linspace(0, num_train_steps - 1, num_steps).round()
    else:
        raise InputError(f"spacing must be one of {', '.join(SPACINGS)}, got {spacing}")
    return tuple(int(t) for t in times[::-1])
