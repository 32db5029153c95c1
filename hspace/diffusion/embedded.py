"""Names of the models that come with the package; nothing slow is loaded to know them."""

from pathlib import Path

from hspace.system.files import package_path

EMBEDDED = {"portraits": "portraits/ddpm", "portraits-128": "portraits/ldm", "rooms": "rooms/ddpm"}
"""Models that come with the package, by name: their folder under the packaged weights, in that of their world."""


def embedded_models() -> list[str]:
    """Names of the embedded models whose weights are installed."""
    return [model for model, folder in EMBEDDED.items() if (package_path("weights") / folder).is_dir()]


def drawn_world(model: str) -> str | None:
    """The world whose pictures an embedded model draws; None of other models."""
    return EMBEDDED[model].partition("/")[0] if model in EMBEDDED else None


def model_id_of(model: str) -> str:
    """The id of a model: an embedded name or hub id as it is; a folder's name, with `./` if that is embedded."""
    folder = Path(model).expanduser()
    if model in EMBEDDED or not folder.is_dir():
        return model
    name = folder.resolve().name
    # A folder of one's own is never taken for the embedded model of its name.
    return f"./{name}" if name in EMBEDDED else name
