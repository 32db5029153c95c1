"""A measure of one's own: hspace evaluation.measures=[effect,identity,my_measure:contrast]."""

from hspace.evaluation.measures import Edited, measure
from hspace.metrics.interval import Interval, mean_interval


@measure("contrast", unit="sd of pixels in [-1, 1]", higher_is_better=None, needs=("images",))
def contrast(edited: Edited) -> Interval:
    """How much an edit raises the contrast of the image."""
    after, before = (images.std(dim=(1, 2, 3)) for images in (edited.edited, edited.original))
    return mean_interval((after - before).numpy())
