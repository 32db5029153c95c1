"""The experiments that a run can do, by name, without importing them."""

from collections.abc import Callable
from typing import Any

from hspace.system.registry import Registry

PAPER = (
    "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8a", "fig8b", "fig9", "table1", "fig11", "fig13", "fig17",
    "fig18", "compare_methods",
)  # fmt: skip
"""The experiments of the paper's report, in its order."""
BEYOND = ("features", "transformer")
"""Further experiments; the last one is on models that do not come with the package."""
AGAIN = ("compare_again", "compare_latent")
"""Experiments that do what `compare_methods` does, on other samples and on another model."""
ANY_MODEL = frozenset({"fig18"})
"""Experiments that leave scores out where no scorer reads the images of the model."""
STRENGTHS = frozenset({"edit", "demo", *(name for name in PAPER if name.startswith("fig"))})
"""Experiments that edit at `edit.strengths`, in whose place effects may be given."""
AT_ONE_EFFECT = frozenset({"compare_methods", "table1", "transformer", "windows"})
"""Experiments that compare edits at `study.target`."""
OF_WINDOWS = frozenset({"windows"})
"""Experiments that try windows of steps themselves, for one attribute."""
EXPERIMENTS: Registry[Callable[..., Any]] = Registry(
    "experiment",
    Callable,
    {name: f"hspace.experiments.{name}:run" for name in ("edit", "demo", "windows", *PAPER, *BEYOND)},
)
"""Functions of a `Lab` that return a `Result`: the plain one, the demo, those of the paper and others."""
