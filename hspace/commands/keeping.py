"""`hspace cache`: what is kept of earlier runs, whether it is whole, and what can go."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig

from hspace.system.cache import damage, entries, prune
from hspace.system.hashes import forget
from hspace.system.registry import unknown
from hspace.types import InputError

CACHE_ACTIONS = {"ls": "kept in", "verify": "compared in", "prune": "removed from"}
"""What `hspace cache` can do, and how it says what it did."""


def cache(words: list[str], compose: Callable[[list[str]], DictConfig]) -> int:
    """Lists, verifies or prunes a cache; 1 if a result is damaged.

    Raises:
        InputError: If there is no such action, or a setting is wrong.
    """
    action, *settings = words or ["ls"]
    if action not in CACHE_ACTIONS:
        raise InputError(unknown("cache command", action, CACHE_ACTIONS))
    days = [word for word in settings if word.startswith("days=") and action == "prune"]
    if len(days) > 1:
        raise InputError(f"hspace cache prune takes one number of days, got {' '.join(days)}")
    place = compose([word for word in settings if word not in days]).cache_dir
    if not isinstance(place, str) or not place:
        raise InputError(f"cache_dir must be the path of a folder, got {place}")
    cache_dir = Path(place)
    if action == "verify":
        count, changed = forget()
        for file in changed:
            print(f"{file} has changed since it was hashed")
        print(f"{count} remembered hashes of checkpoints are forgotten: each is read again when it is used next")
    found = prune(cache_dir, *map(_days, days)) if action == "prune" else entries(cache_dir)
    checked = [entry for entry in found if action == "verify" and entry.state == "whole"]
    faults = {entry.folder: damage(entry.folder) for entry in checked}
    for entry in found:
        used = datetime.fromtimestamp(entry.used).isoformat(" ", "minutes")
        state = faults.get(entry.folder) or entry.state
        print(f"{entry.folder.relative_to(cache_dir)}  {entry.size / 1e6:.1f} MB  {used}  {state}")
    print(
        f"{len(found)} results, {sum(entry.size for entry in found) / 1e6:.1f} MB {CACHE_ACTIONS[action]} {cache_dir}"
    )
    return int(any(faults.values()))


def _days(word: str) -> float:
    key, _, value = word.partition("=")
    try:
        days = float(value)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise InputError(f"{key} must be a number of at least 0, got {value!r}")
    return days
