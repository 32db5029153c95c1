"""Edit samples of your own checkpoint: any folder that diffusers' `save_pretrained` wrote.

The command line takes the same folder:  hspace model.path=FOLDER evaluation=clip
"""

import sys
from pathlib import Path

import hspace


def main(checkpoint: str, output: Path) -> None:
    """Finds two principal components of a checkpoint's h-space and draws the first.

    Args:
        checkpoint: Folder of a pixel-space pipeline or a bare `UNet2DModel`, or a hub id.
        output: Folder for h, the directions and the picture.
    """
    model = hspace.load_model(checkpoint, num_steps=4)
    recorded = hspace.collect(model, range(8), output / "h.npy")
    directions = hspace.pca(recorded, model, k=2)
    directions.save(output / "directions.safetensors")
    images = hspace.edit(model, model.latents([2_000_000]), directions, component=0, strengths=[-2, 0, 2])
    hspace.grid_figure(images[0], 3, output / "edited.png")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
