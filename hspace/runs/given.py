# pyright: strict
"""What a run is given: files of directions that were found before, which its method or its experiment takes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.method import get_method
from hspace.runs.config import Config
from hspace.runs.procedures import EXPERIMENTS

Files = Callable[[DiffusionModel], Sequence[Path]]
Run = TypeVar("Run", bound=Callable[..., Any])


def takes(files: Files) -> Callable[[Run], Run]:
    """Decorator that says which files of directions an experiment takes of a model, beside that of its method."""

    def mark(run: Run) -> Run:
        vars(run)["given"] = files
        return run

    return mark


def given_files(cfg: Config, model: DiffusionModel) -> list[Path]:
    """The files of directions that a run takes, without repetition.

    Raises:
        InputError: If the method takes one that is not there.
    """
    method = get_method(cfg.method.name)
    own = [] if method.given is None else [method.given(model, cfg.method)]
    files: Files | None = getattr(EXPERIMENTS.get(cfg.procedure), "given", None)
    return list(dict.fromkeys([*own, *(files(model) if files else ())]))
