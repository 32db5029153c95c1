"""Your own scorer, in one file: hspace evaluation.judge=my_scorer:Brightness."""

import torch


class Brightness:
    """How light an image is, and whether it is lighter at the top."""

    id = "brightness"
    attributes = ("brightness", "light_above")
    binary = (False, True)

    def __call__(self, images):
        """(batch, 3, height, width) in [-1, 1] to (batch, 2): a value, and a probability."""
        half = images.shape[-2] // 2
        contrast = images[:, :, :half].mean(dim=(1, 2, 3)) - images[:, :, half:].mean(dim=(1, 2, 3))
        return torch.stack([images.mean(dim=(1, 2, 3)), torch.sigmoid(10 * contrast)], dim=1)

    def visible(self, scores):
        """Every image has a brightness."""
        return torch.ones_like(scores, dtype=torch.bool)
