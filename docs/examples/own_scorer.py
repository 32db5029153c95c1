"""Bring your own scorer: any callable object with `id`, `attributes`, `binary` and `visible`."""

import sys

import torch
from torch import Tensor

import hspace


class Brightness:
    """Scores how light an image is, and whether it is lighter at the top."""

    id = "brightness"
    attributes = ("brightness", "light_above")
    binary = (False, True)

    def __call__(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) in [-1, 1] to (batch, 2)."""
        half = images.shape[-2] // 2
        contrast = images[:, :, :half].mean(dim=(1, 2, 3)) - images[:, :, half:].mean(dim=(1, 2, 3))
        return torch.stack([images.mean(dim=(1, 2, 3)), torch.sigmoid(10 * contrast)], dim=1)

    def visible(self, scores: Tensor) -> Tensor:
        """Every image has a brightness."""
        return torch.ones_like(scores, dtype=torch.bool)


def main(checkpoint: str, directions_file: str) -> None:
    """Judges the directions of a file, found on a checkpoint at four steps, by brightness."""
    model = hspace.load_model(checkpoint, num_steps=4)
    directions = hspace.Directions.load(directions_file)
    edits = hspace.edit_samples(model, directions, range(2_000_000, 2_000_008), strengths=[-2, 2])
    effects = hspace.evaluate(edits, Brightness(), hspace.load_identity(), bootstrap=200).effects(2.0)
    for name, effect in zip(effects.edits, effects.effect, strict=True):
        print(f"{name}: brightness {effect[0]:+.2f} sd at strength 2")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
