"""Where the ready-made directions of the embedded models lie."""

from pathlib import Path

from hspace.system.files import package_path
from hspace.types import InputError

READY = "ready:"
"""In place of a file: `ready:portraits` is that of the embedded model of this name."""
FILES: dict[str, str] = {"portraits": "portraits/directions.safetensors"}
"""Files below the packaged weights, by the name that `model=` takes."""


def ready_models() -> list[str]:
    """Names of the embedded models that have ready-made directions."""
    return [model for model, file in FILES.items() if (package_path("weights") / file).is_file()]


def ready_path(model: str) -> Path:
    """File of the ready-made directions of an embedded model.

    Raises:
        InputError: If the model has none.
    """
    known = ready_models()
    if model not in known:
        raise InputError(f"ready-made directions are of {' and '.join(known)}, got model {model!r}")
    return package_path("weights") / FILES[model]
