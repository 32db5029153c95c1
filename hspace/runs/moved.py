"""Keys and choices that have another name today; docs/migrating.md says the same."""

MOVED = {
    "model.h_space": "model.tap",
    "model=hub": "model.path=OWNER/NAME",
    "method.classifier": "method=boundary method.classifier",
    "study.pairs": "dataset=folder dataset.path",
    "size=full": "no size at all",
    "tracking=none": "tracking.mode=disabled",
}
"""What is written in the place of an old key, or of an old choice as group=name."""


def moved(old: str) -> str | None:
    """The message for an old key or choice; None for one that never was."""
    return f"{old} is not a setting any more: write {MOVED[old]}" if old in MOVED else None
