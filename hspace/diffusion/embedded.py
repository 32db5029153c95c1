"""Names of the models that come with the package; nothing slow is loaded to know them."""

from hspace.system.files import package_path

EMBEDDED = {"portraits": "portraits/ddpm", "portraits-128": "portraits/ldm", "rooms": "rooms/ddpm"}
"""Models that come with the package, by name: their folder under the packaged weights, in that of their world."""


def embedded_models() -> list[str]:
    """Names of the embedded models whose weights are installed."""
    return [model for model, folder in EMBEDDED.items() if (package_path("weights") / folder).is_dir()]


def drawn_world(model: str) -> str | None:
    """The world whose pictures an embedded model draws; None of other models."""
    return EMBEDDED[model].partition("/")[0] if model in EMBEDDED else None
