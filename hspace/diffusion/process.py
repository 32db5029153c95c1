"""The noise schedule and the generative process: eqs. 1-5 of the paper, each in one place and used both ways.

`alpha_bar` is the cumulative product of the forward process. The DDIM paper, and this project's, write it alpha;
diffusers calls it `alphas_cumprod`. The predicted image is never clipped, whatever a checkpoint's scheduler says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from hspace.types import Images, InputError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")


@dataclass(frozen=True)
class Schedule:
    """How much noise there is at each model time, and which model times are visited.

    Attributes:
        alpha_bar: Cumulative product in (0, 1) by model time, t = 0 is the least noisy.
        timesteps: Model times visited, descending; step index i = 0 is the noisiest.
        final_alpha_bar: alpha_bar of the clean end, t = -1; 1 unless the checkpoint says otherwise.
        prediction_type: What the network returns: `epsilon`, `v_prediction` or `sample`.
    """

    alpha_bar: tuple[float, ...]
    timesteps: tuple[int, ...]
    final_alpha_bar: float
    prediction_type: str

    def __post_init__(self) -> None:
        """Raises InputError where eqs. 2-5 would be undefined."""
        if self.prediction_type not in PREDICTION_TYPES:
            raise InputError(
                f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {self.prediction_type}"
            )
        for t in self.timesteps:
            if not 0 <= t < len(self.alpha_bar):
                raise InputError(f"model time {t} is outside [0, {len(self.alpha_bar)}); use fewer steps")
            if not 0 < self.alpha_bar[t] < 1:
                raise InputError(f"alpha_bar must be in (0, 1), got {self.alpha_bar[t]} at t={t}; use leading spacing")

    @classmethod
    def from_scheduler(cls, scheduler: Any, num_steps: int, spacing: str | None = None) -> "Schedule":
        """Take over a diffusers scheduler's noise levels, final alpha_bar, offset and prediction type.

        Args:
            scheduler: A DDPM-, DDIM- or PNDM-like scheduler of diffusers, or its configuration.
            num_steps: Number of steps, 1 to the number the model was trained with.
            spacing: `leading`, `trailing` or `linspace` (Lin et al. 2023, table 2); None takes the scheduler's own.

        Raises:
            InputError: If the scheduler has no cumulative product, or a value is out of range.
        """
        if isinstance(scheduler, Mapping):
            scheduler = build_scheduler(scheduler)
        if not hasattr(scheduler, "alphas_cumprod"):
            raise InputError(f"{type(scheduler).__name__} has no alphas_cumprod; give a DDPM, DDIM or PNDM scheduler")
        config = scheduler.config
        alpha_bar = tuple(scheduler.alphas_cumprod.tolist())
        spacing = config.get("timestep_spacing", "leading") if spacing is None else spacing
        return cls(
            alpha_bar=alpha_bar,
            timesteps=_timesteps(len(alpha_bar), num_steps, str(spacing), config.get("steps_offset", 0)),
            final_alpha_bar=float(getattr(scheduler, "final_alpha_cumprod", 1.0)),
            prediction_type=config.get("prediction_type", "epsilon"),
        )

    def pairs(self) -> list[tuple[int, int]]:
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
            _check_eta(value)
        return tuple(float(value) for value in values)

    def add_noise(self, x_0: Images, noise: Images, t: int) -> Images:
        """Forward process, eq. 1: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise."""
        alpha_bar = self._alpha_bar(t)
        return math.sqrt(alpha_bar) * x_0 + math.sqrt(1 - alpha_bar) * noise

    def to_eps(self, output: Images, x_t: Images, t: int) -> Images:
        """The predicted noise, from the network's raw output; the one place that knows prediction types.

        Args:
            output: What the network returned at (x_t, t), (batch, channel, height, width).
            x_t: The noisy image the network saw, same shape.
            t: Model time, in [0, num_train_steps).

        Source: Salimans & Ho 2022 (arXiv 2202.00512), sec. 4 and appendix D, for v.
        """
        alpha_bar = self._alpha_bar(t)
        if self.prediction_type == "epsilon":
            return output
        if self.prediction_type == "v_prediction":
            return math.sqrt(alpha_bar) * output + math.sqrt(1 - alpha_bar) * x_t
        return (x_t - math.sqrt(alpha_bar) * output) / math.sqrt(1 - alpha_bar)

    def predict_x0(self, x_t: Images, eps: Images, t: int) -> Images:
        """Predicted clean image P_t, not clipped, shaped like `x_t`.

        Source: Haas et al. 2024 (arXiv 2303.11073), eq. 3.
        """
        alpha_bar = self._alpha_bar(t)
        return (x_t - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar)

    def posterior(self, x0_hat: Images, eps: Images, t: int, t_prev: int, eta: float) -> tuple[Images, float]:
        """Mean and noise scale of q(x_{t_prev} | x_t, x_0) in the DDIM family.

        Args:
            x0_hat: Predicted clean image P_t, (batch, channel, height, width), in [-1, 1].
            eps: Predicted noise of the direction term D_t; the unedited one for Asyrp.
            t: Model time, in [0, num_train_steps).
            t_prev: The less noisy model time; -1 means clean.
            eta: 0 is DDIM, 1 is DDPM.

        Returns:
            The mean, shaped like `x0_hat`, and sigma >= 0 in units of x_t. Where `t_prev` is -1 and the final
            alpha_bar is 1, sigma and D_t are exactly 0: the mean is P_t, eta is inert, and z cannot be solved for.

        Raises:
            InputError: If not -1 <= t_prev < t < num_train_steps, or `eta` is outside [0, 1].

        Source: Song et al. 2021 (arXiv 2010.02502), eqs. 12 and 16; their alpha is our alpha_bar. Haas et al. 2024,
        eqs. 2, 4 and 5.
        """
        if not -1 <= t_prev < t:
            raise InputError(f"t_prev must be in [-1, t), got t={t} and t_prev={t_prev}")
        _check_eta(eta)
        alpha_bar, alpha_bar_prev = self._alpha_bar(t), self._alpha_bar(t_prev)
        # Rounding can take the difference a hair below 0, where eta = 1 makes it vanish.
        variance = eta**2 * (1 - alpha_bar_prev) / (1 - alpha_bar) * max(1 - alpha_bar / alpha_bar_prev, 0.0)
        direction = math.sqrt(max(1 - alpha_bar_prev - variance, 0.0)) * eps
        return math.sqrt(alpha_bar_prev) * x0_hat + direction, math.sqrt(variance)

    def _alpha_bar(self, t: int) -> float:
        if not -1 <= t < len(self.alpha_bar):
            raise InputError(f"t must be in [0, {len(self.alpha_bar)}), or -1 for clean, got {t}")
        return self.alpha_bar[t] if t >= 0 else self.final_alpha_bar


def _check_eta(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise InputError(f"eta must be in [0, 1], got {eta}")


def build_scheduler(config: Mapping[str, Any]) -> SchedulerMixin:
    """The diffusers scheduler that a `scheduler_config.json` names.

    Raises:
        InputError: If diffusers has none of the name.
    """
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise InputError(f"unknown scheduler {name}; give a DDPM, DDIM or PNDM scheduler of diffusers")
    return kind.from_config(dict(config))  # pyright: ignore[reportAttributeAccessIssue]


def _timesteps(num_train_steps: int, num_steps: int, spacing: str, steps_offset: int) -> tuple[int, ...]:
    """Descending model times, exactly as `DDIMScheduler.set_timesteps` of diffusers has them.

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
