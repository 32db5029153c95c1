# pyright: strict, reportUnknownMemberType=false
"""Settings of a method, and the names of the methods: what is known before any of them is imported."""

from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from hspace.system.registry import Registry

MAX_SAMPLES = 1_000_000
"""Seeds of discovery, calibration and evaluation lie this far apart."""


class Settings(BaseModel):
    """Settings of a method: what follows `method.` in a configuration, with its rules.

    Fields named attribute, balance and conditions name attributes of the scorers, and are checked against those.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    name: str = ""
    """What the configuration calls the method."""

    def count(self) -> int | None:
        """Number of directions, where the settings alone say it."""
        return None

    def check(self, num_steps: int) -> None:
        """Checks the settings against the number of sampling steps.

        Raises:
            ValueError: If they do not go with it.
        """


@runtime_checkable
class Named(Protocol):
    """A method, as far as it is known where it is chosen: what `hspace.directions.method.method` makes."""

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
            "file",
        )
    },
)
"""Ways to find directions: `@method` adds one, as does the entry-point group hspace.methods."""
