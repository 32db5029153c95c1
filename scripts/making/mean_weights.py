"""Writes the weighted mean of two trained U-Nets as a pipeline: between a network and what further training made of it.

    python scripts/making/mean_weights.py FIRST SECOND SHARE OUTPUT     # SHARE: of the second, in [0, 1]

Source: Wortsman et al. 2022 (arXiv 2109.01903), for a network and its fine-tuned self.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

from hspace.runs.errors import guarded
from hspace.types import InputError


def mean_weights(first: Path, second: Path, share: float, output: Path) -> None:
    """Writes the pipeline of the first network with the mean of both weights, in half precision.

    Args:
        first: Folder of a DDPM pipeline.
        second: Folder of another whose network and scheduler have the same configuration.
        share: Of the second network, in [0, 1].
        output: Folder to write.

    Raises:
        InputError: If a folder holds no pipeline, the networks or the schedulers differ, or the share is out of range.
    """
    if not 0 <= share <= 1:
        raise InputError(f"SHARE must be in [0, 1], got {share}")
    for folder in (first, second):
        if not (folder / "model_index.json").is_file():
            raise InputError(f"{folder} is not the folder of a pipeline")
    pipeline, other = (cast(Any, DDPMPipeline.from_pretrained(folder)) for folder in (first, second))
    for part in ("unet", "scheduler"):
        _check_same(part, *(_settings(getattr(each, part)) for each in (pipeline, other)), folders=(first, second))
    weights, others = pipeline.unet.state_dict(), other.unet.state_dict()
    mean = {name: torch.lerp(value.float(), others[name].float(), share) for name, value in weights.items()}
    pipeline.unet.load_state_dict(mean)
    pipeline.to(dtype=torch.float16).save_pretrained(output)


def _settings(part: Any) -> dict[str, Any]:
    """The configuration of a network or a scheduler, but for notes such as the version that wrote it."""
    return {key: value for key, value in part.config.items() if not key.startswith("_")}


def _check_same(part: str, ours: dict[str, Any], theirs: dict[str, Any], *, folders: tuple[Path, Path]) -> None:
    """Raises InputError with the first setting of a part that differs; equal networks have weights of equal shapes."""
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            raise InputError(f"{part}: {folders[0]} and {folders[1]} differ in {key}, and have no mean")


def main(arguments: list[str]) -> int:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("output", type=Path)
    given = parser.parse_args(arguments)
    mean_weights(given.first, given.second, given.share, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
