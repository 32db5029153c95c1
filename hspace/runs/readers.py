# pyright: strict
"""Which networks read the images of which model: one rule for runs, named masks, `hspace edit` and the studio."""

import logging
from typing import Literal

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.embedded import EMBEDDED, drawn_world
from hspace.runs.config import Config
from hspace.scorers.embedded import world_of
from hspace.scorers.factory import NOT_MEANT

log: logging.Logger = logging.getLogger(__name__)

Role = Literal["annotator", "judge", "identity", "likeness", "regions"]
"""Networks of a configuration, by their keys below `evaluation`."""
OWN = ("local", "hub")
"""Models whose images nobody knows: checkpoints of one's own."""


def refusal(cfg: Config, role: Role) -> str | None:
    """Why the network of a role does not read the model's images, in one line; None if it does.

    An embedded network reads the images of its own world, which it resizes with antialiasing, whatever their size. It
    is also tried on a checkpoint of one's own, which may be of that world. Other networks read every model.
    """
    network: str | None = getattr(cfg.evaluation, role)
    world, drawn = world_of(network or ""), drawn_world(cfg.model.path)
    if world in (None, drawn):
        return None
    if drawn is not None:
        return (
            f"model={cfg.model.name} makes {drawn}, and evaluation.{role}={network} reads {world}: "
            f"set evaluation={drawn}"
        )
    if cfg.model.name in (*EMBEDDED, *OWN):
        return None
    return (
        f"model={cfg.model.name} makes photographs, and evaluation.{role}={network} reads the embedded {world} "
        "only: set evaluation=clip, evaluation=hub or evaluation=faceapi"
    )


def warn_of(name: str, model: DiffusionModel) -> None:
    """Warns where a scorer, by its name in tables, was made for the images of another model."""
    if NOT_MEANT in name:
        log.warning(
            "%s for %s: its names and grades may mean nothing; evaluation=clip, hub and faceapi name others",
            name, model.model_id,
        )  # fmt: skip
