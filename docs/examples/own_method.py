"""Bring your own way to find directions: a function that returns `Directions`.

Save what it returns, and the runner names, measures, draws and tracks it like any other:

    hspace method=file method.path=difference.safetensors
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

import hspace


def late_minus_early(recorded, model) -> hspace.Directions:
    """One direction: the mean h of the second half of the samples minus that of the first half.

    Args:
        recorded: h of n samples, from `hspace.collect`.
        model: The model that they were recorded on.
    """
    h = torch.from_numpy(recorded.open().copy())
    half = h.shape[1] // 2
    difference = (h[:, half:].mean(dim=1) - h[:, :half].mean(dim=1)).unflatten(-1, recorded.h_shape)
    # A method says which model, tap and steps its directions fit; those of a PCA on the same samples are right.
    meta = hspace.pca(recorded, model, k=1).meta
    meta = replace(meta, method="late-minus-early", names=("late minus early",), unit="difference")
    return hspace.Directions(difference[None], meta)


def main(checkpoint: str, output: Path) -> None:
    """Finds the direction on eight samples and saves it."""
    model = hspace.load_model(checkpoint, num_steps=4)
    recorded = hspace.collect(model, range(8), output / "h.npy")
    late_minus_early(recorded, model).save(output / "difference.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
