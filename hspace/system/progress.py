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
    """A bar that goes away when it is full; none where stderr is not a terminal, or under `hspace --quiet`.

    Args:
        over: What is gone through; None for a bar that is updated by hand.
        stage: What is being done: the label.
        total: How much there is, where `over` does not say it.
    """
    quiet = logging.getLogger("hspace").level > logging.INFO
    return tqdm(over, desc=stage, total=total, disable=True if quiet else None, leave=False)
