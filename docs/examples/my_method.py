"""Your own method, in one file: hspace method=my_method:find method.num_samples=200."""

from dataclasses import replace

import torch
from pydantic import Field

import hspace


class Settings(hspace.Settings):
    """What follows `method.` on the command line."""

    num_samples: int = Field(100, ge=4)
    """Samples generated to discover with."""


@hspace.method("late_minus_early", settings=Settings, varying=True)
def find(model, sources, settings):
    """The mean h of the second half of the samples minus that of the first half."""
    recorded = sources.recorded(settings.num_samples)
    h = torch.from_numpy(recorded.open().copy())
    half = h.shape[1] // 2
    difference = (h[:, half:].mean(dim=1) - h[:, :half].mean(dim=1)).unflatten(-1, recorded.h_shape)
    # A method says which model, tap and steps its directions fit; those of a PCA on the same samples are right.
    fits = hspace.pca(recorded, model, k=1).meta
    meta = replace(fits, method="late minus early", names=("late minus early",), unit="difference")
    return hspace.Directions(difference[None], meta)
