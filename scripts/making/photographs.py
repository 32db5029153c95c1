"""Measures `hspace edit` on pictures of known origin, and prints the table of docs/howto/photographs.md.

python scripts/making/photographs.py [folder]      # two minutes of one CPU core

The pictures are renders of portraits, which the embedded model's training did not see, and the astronaut of
scikit-image (NASA, public domain), whom a tiny network with random weights "edits".
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image
from skimage import data

from hspace.cli import main as hspace
from hspace.diffusion.checkpoints import load_model
from hspace.directions.record import Directions
from hspace.output.animation import to_pixels
from hspace.runs.errors import guarded
from hspace.types import InputError
from hspace.worlds.portraits.faces import render, sample_factors

RENDERS, SEED = 20, 22
COLUMNS = (
    "pictures", "inverted", "n", "reconstruction error: median", "largest", "largest change outside the mask, of 255",
    "identity after the edit: mean",
)  # fmt: skip


def renders(folder: Path) -> Path:
    """Writes the renders, at the size of the model's images."""
    folder.mkdir(parents=True, exist_ok=True)
    images = render(sample_factors(torch.Generator().manual_seed(SEED), RENDERS), 64)
    for i, picture in enumerate(to_pixels(images)):
        Image.fromarray(picture).save(folder / f"render-{i:02}.png")
    return folder


def astronaut(folder: Path) -> tuple[Path, Path, Path]:
    """Writes the photograph, a tiny network with random weights, and a random direction in it."""
    folder.mkdir(parents=True, exist_ok=True)
    photograph, model, directions = folder / "astronaut.png", folder / "tiny", folder / "random.safetensors"
    Image.fromarray(data.astronaut()).save(photograph)
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=32, block_out_channels=(8, 16), down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler()).save_pretrained(model)
    tiny = load_model(str(model), device="cpu")
    vectors = 3 * torch.randn((1, len(tiny.process.timesteps), *tiny.h_shape))
    made = Directions.of(tiny, vectors, names=("random",), unit="norm", method="random", eta=1.0)
    made.save(directions)
    return photograph, model, directions


def edited(words: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """The records that `hspace edit` leaves.

    Raises:
        InputError: If it fails.
    """
    places = ["--output", str(folder / "edit"), "--inversions", str(folder / "inversions")]
    if hspace(["edit", *words, *places, "--animation", "none", "--samples", "0"]):
        raise InputError(f"hspace edit {' '.join(words)} failed")
    return [json.loads(path.read_text()) for path in sorted((folder / "edit").glob("*/edit.json"))]


def row(pictures: str, inverted: str, records: Sequence[dict[str, Any]], *, drawn: bool = True) -> tuple[str, ...]:
    """A line of the table; the embedded encoder of identity reads drawn faces only."""
    errors = [record["reconstruction_error"] for record in records]
    outside = max(record["largest_change_outside"] for record in records)
    same = np.mean([record["identity"] for record in records] if drawn else np.nan)
    numbers = f"{np.median(errors):.1e}", f"{max(errors):.1e}", f"{outside}", "n/a" if np.isnan(same) else f"{same:.2f}"
    return (pictures, inverted, str(len(records)), *numbers)


def main(words: Sequence[str]) -> int:
    """Edits all, and prints the table in Markdown."""
    folder = Path(words[0] if words else "outputs/photographs")
    faces, glasses = str(renders(folder / "renders")), ["--direction", "ready:portraits:glasses"]
    photograph, tiny, direction = astronaut(folder / "astronaut")
    rows = [
        row("renders, model=portraits, --keep-outside eyes", "edit-friendly (eta 1)",
            edited([faces, *glasses, "--keep-outside", "eyes"], folder / "friendly")),
        row("renders, model=portraits, --keep-outside eyes", "DDIM (eta 0)",
            edited([faces, *glasses, "--keep-outside", "eyes", "diffusion.eta=0", "allow=[eta]"], folder / "ddim")),
        row("the astronaut, random weights, --keep-outside 0.1,0.3,0.5,0.6", "edit-friendly (eta 1)",
            edited([str(photograph), "--direction", str(direction), "--strength", "2", "--keep-outside",
                    "0.1,0.3,0.5,0.6", f"model.path={tiny}"], folder / "random"), drawn=False),
    ]  # fmt: skip
    for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:]), __doc__))
