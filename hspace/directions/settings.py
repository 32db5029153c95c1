# pyright: strict, reportUnknownMemberType=false
"""Settings of a method, and the names of the methods, which are known before any of them is imported."""

from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, model_validator

from hspace.diffusion.sampler import SEEDS_PER_ROLE
from hspace.system.registry import Registry

MAX_SAMPLES = SEEDS_PER_ROLE
"""A method reads no more samples than there are discovery seeds."""


class Settings(BaseModel):
    """Settings of a method: the keys below `method.` in a configuration, with their rules.

    Fields named attribute, target, match and conditions name attributes of the scorers and are checked; the last three
    must not name the first.
    """

    strengths: ClassVar[tuple[float, float] | None] = None
    """Smallest and largest strength of an edit; None sets no limit."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    name: str = ""
    """What the configuration calls the method."""

    @model_validator(mode="after")
    def _check_others(self) -> "Settings":
        attribute = getattr(self, "attribute", None)
        for field in ("target", "match", "conditions"):
            named = getattr(self, field, None) or ()
            if attribute in ((named,) if isinstance(named, str) else named):
                raise ValueError(f"{field} must not name method.attribute itself, got {attribute}")
        return self

    def count(self) -> int | None:
        """Number of directions, where the settings alone say it."""
        return None

    def check(self, num_steps: int) -> None:
        """Checks the settings against the number of sampling steps.

        Raises:
            ValueError: If they do not fit.
        """


def check_sides(k: int, num_samples: int) -> None:
    """Checks that there are samples for k examples on each side.

    Raises:
        ValueError: If there are not.
    """
    if 2 * k > num_samples:
        raise ValueError(f"k must be at most half of method.num_samples={num_samples} (k on each side), got {k}")


@runtime_checkable
class Named(Protocol):
    """The part of a method that choosing it needs; `hspace.directions.method.method` makes such objects."""

    name: str
    settings: type[Settings]


METHODS: Registry[Named] = Registry(
    "method",
    Named,
    {
        name: f"hspace.directions.{name}:find"
        for name in (
            "pca",
            "local_pca",
            "random",
            "jacobian",
            "supervised",
            "boundary",
            "whitened",
            "regression",
            "counter",
            "erase",
            "switch",
            "transport",
            "self_discovered",
            "trained",
            "trained_network",
            "sae",
            "pullback",
            "prompt_pairs",
            "file",
            "ready",
        )
    },
)
"""Methods by name; `@method` adds one, and so does the entry-point group hspace.methods."""
