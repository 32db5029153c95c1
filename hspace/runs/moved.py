"""Old names of keys and choices, and their present ones; docs/migrating.md lists them too."""

MOVED = {
    "model.h_space": "model.tap",
    "model=hub": "model.path=OWNER/NAME",
    "method.classifier": "method=boundary method.classifier",
    "method=varimax": "method=pca",
    "method.balance": "method.match=[ATTRIBUTE]",
    "study.pairs": "dataset=folder dataset.path",
    "size=full": "no size at all",
    "tracking=none": "tracking.mode=disabled",
}
"""Present form of each old key, and of each old choice as group=name."""


def moved(old: str) -> str | None:
    """The message for an old key or choice; None for one that never existed."""
    return f"{old} is not a setting any more: write {MOVED[old]}" if old in MOVED else None
