"""Time and memory of loading a large checkpoint, beside diffusers' own loading of the same file.

    python scripts/large.py [--folder FOLDER] [--gigabytes 3.5] [--pairs 3] [--stored bfloat16]

makes a U-Net of random weights, loads it in new processes in turns, says seconds, and the peak of the memory over the
weights, and removes it. diffusers maps the file and reads nothing until it is used; so one pass of the network belongs
to each way, as ours checks a model by one. Ours also reads every number to see that it is finite, and hashes it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

WAYS = ("diffusers", "ours", "ours again", "bfloat16")
"""Ways of loading: the second of ours remembers the hash."""
LEVELS = (1, 2, 4, 4)
"""Channels of the levels, in multiples of the first's."""
SIDE = 16
"""Of the images, so that a pass is short."""
BYTES = 4
"""Of a float32."""


def make(folder: Path, gigabytes: float, stored: str) -> int:
    """A pipeline whose network would take about so many gigabytes in float32; returns its bytes there."""
    width = 32
    while BYTES * _weights(width + 32) <= gigabytes * 1e9:
        width += 32
    network = UNet2DModel(**_config(width)).to(getattr(torch, stored))
    network.save_pretrained(folder / "unet", max_shard_size="100GB")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDIMPipeline", "scheduler": ["diffusers", "DDIMScheduler"], "unet": ["diffusers", "UNet2DModel"]
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return BYTES * _weights(width)


def _config(width: int) -> dict[str, Any]:
    """Of the network."""
    return {
        "sample_size": SIDE, "block_out_channels": tuple(width * level for level in LEVELS),
        "down_block_types": ("DownBlock2D",) * 4, "up_block_types": ("UpBlock2D",) * 4,
    }  # fmt: skip


def _weights(width: int) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in UNet2DModel(**_config(width)).parameters())


def load(way: str, folder: Path) -> dict[str, float]:
    """Seconds of one loading in this process, and what its memory grew to above that of the imports, in bytes."""
    from hspace.diffusion.checkpoints import load_model

    before, started = _peak(), (time.perf_counter(), time.process_time())
    if way == "diffusers":
        network: Any = UNet2DModel.from_pretrained(folder / "unet")
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, SIDE, SIDE), 1)
    else:
        load_model(str(folder), dtype="bfloat16" if way == "bfloat16" else "float32")
    return {
        "wall": time.perf_counter() - started[0], "cpu": time.process_time() - started[1], "grown": _peak() - before
    }  # fmt: skip


def _peak() -> int:
    """Largest resident memory of this process so far, in bytes; rusage would count that of the parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> int:
    """Measures all ways, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is made and removed")
    parser.add_argument("--gigabytes", type=float, default=3.5)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--stored", choices=("float32", "bfloat16"), default="float32", help="dtype of its file")
    parser.add_argument("--load", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(options.load, options.folder)))
        return 0
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        size = make(folder, options.gigabytes, options.stored)
        # Hashes are remembered only of files that are older than the process.
        rounds = [_round(folder) for _ in range(options.pairs)]
        given = f"{size / 1e9:.3g} GB in float32, stored in {options.stored}"
        print(f"{given}, {torch.get_num_threads()} thread(s), median of {options.pairs}:")
        for way in WAYS:
            told = {key: statistics.median(each[way][key] for each in rounds) for key in ("wall", "cpu", "grown")}
            ratio = statistics.median(each[way]["cpu"] / each["diffusers"]["cpu"] for each in rounds)
            print(
                f"{way:<10} {told['wall']:.2f} s, {told['cpu']:.2f} CPU s, {ratio:.2f} times diffusers' CPU time; "
                f"memory {told['grown'] / size:.2f} times the weights"
            )
    finally:
        shutil.rmtree(folder)
    return 0


def _round(folder: Path) -> dict[str, dict[str, float]]:
    """Every way once, the hashes forgotten before."""
    with tempfile.TemporaryDirectory() as cache:
        return {way: _in_a_process(way, folder, cache) for way in WAYS}


def _in_a_process(way: str, folder: Path, cache: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--load", way, "--folder", str(folder)]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"XDG_CACHE_HOME": cache}
    )
    return json.loads(run.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
