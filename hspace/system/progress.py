"""Progress bars, which a terminal shows and a file does not."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    Bar = tqdm[Any]
else:
    # At run time tqdm is not generic.
    Bar = tqdm


def bar(over: Iterable[Any] | None = None, *, stage: str, total: int | None = None) -> Bar:
    """A bar that disappears when it is full; it is hidden if stderr is not a terminal, and under `hspace --quiet`.

    Args:
        over: Items to go through; None for a bar that is updated by hand.
        stage: Name of the stage, which labels the bar.
        total: Number of items, if `over` does not give it.
    """
    quiet = logging.getLogger("hspace").level > logging.INFO
    return tqdm(over, desc=stage, total=total, disable=True if quiet else None, leave=False)
