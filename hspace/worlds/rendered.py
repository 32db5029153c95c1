"""Rendered data sets, painted once and kept on disk: training reads them many times."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hspace.system.files import write_atomic
from hspace.system.progress import bar
from hspace.types import Images
from hspace.worlds.attributes import Factors
from hspace.worlds.world import World

log: logging.Logger = logging.getLogger(__name__)

CHUNK = 256
NOISE_SEED = 200


@dataclass(frozen=True)
class Rendered:
    """Pictures of a world in memory.

    Attributes:
        images: Images, (n, 3, size, size) uint8.
        labels: Exact values of the judged attributes, (n, judged attributes) float32.
        visible: Visibility of the judged attributes, (n, judged attributes) bool.
    """

    images: Tensor
    labels: Tensor
    visible: Tensor

    def batch(self, index: Tensor) -> Tensor:
        """Images of the given rows, (batch, 3, size, size) float32 in [-1, 1]."""
        return from_bytes(self.images[index.to(self.images.device)])

    def to(self, device: torch.device) -> "Rendered":
        """The same on a device."""
        return Rendered(self.images.to(device), self.labels.to(device), self.visible.to(device))


def rendered(
    world: World, n: int, size: int, seed: int, cache_dir: Path, *, correlated: bool = True, varied: bool = False
) -> Rendered:
    """Pictures of one private stream of factors; painted on first use, read from `cache_dir` later.

    A GPU paints if there is one, equal to the CPU's painting up to rounding.

    Args:
        world: What is painted.
        n: Number of pictures.
        size: Height and width in pixels.
        seed: Seed of the stream.
        cache_dir: Folder of the cached images.
        correlated: Whether factors are correlated.
        varied: Whether to paint another view of the same pictures, see `World.vary`.
    """
    generator = torch.Generator().manual_seed(seed)
    factors = world.sample_factors(generator, n, correlated=correlated)
    if varied:
        factors = world.vary(factors, generator)
    kind = f"{'' if correlated else '_independent'}{'_varied' if varied else ''}"
    path = cache_dir / f"{world.id}_v{world.version}_{size}px_{n}_seed{seed}{kind}.npy"
    if not path.exists():
        log.info("painting %d %s at %d pixels into %s", n, world.id, size, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        images = _paint(world, factors, size)
        with write_atomic(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, images)
    images = torch.from_numpy(np.load(path, allow_pickle=False))
    return Rendered(images, world.labels(factors), world.visibility(factors))


def rendered_pairs(world: World, n: int, size: int, seed: int, encoder: str) -> tuple[Tensor, Tensor]:
    """Two images each of n things, with all drawn anew that an encoder does not read.

    Args:
        world: What is painted.
        n: Number of pairs.
        size: Height and width in pixels.
        seed: Seed of what stays, and of what is drawn anew.
        encoder: One of the world's `pairs`.

    Returns:
        Two (n, 3, size, size) uint8; row i of both shows the same.
    """
    generator = torch.Generator().manual_seed(seed)
    things = world.sample_factors(generator, n)
    scenes = [world.pairs[encoder](things, generator) for _ in range(2)]
    first, second = (torch.from_numpy(_paint(world, scene, size)) for scene in scenes)
    return first, second


def painting_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _paint(world: World, factors: Factors, size: int) -> np.ndarray:
    """Images as uint8, (n, 3, size, size)."""
    images = (world.render(chunk, size) for chunk in chunks_to_paint(factors))
    return np.concatenate([to_bytes(image).cpu().numpy() for image in images])


def chunks_to_paint(factors: Factors) -> Iterator[Factors]:
    """The factors of many pictures in chunks, on the painting device."""
    device, n = painting_device(), len(next(iter(factors.values())))
    for start in bar(range(0, n, CHUNK), stage="paint"):
        yield {name: value[start : start + CHUNK].to(device) for name, value in factors.items()}


def to_bytes(images: Images) -> Tensor:
    """Images in [-1, 1] as uint8; beyond, they are clipped."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(images: Tensor) -> Images:
    """uint8 images as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one training step, so that a resumed training draws the same batches as an unbroken one.

    Torch's CPU generator keeps the low 32 bits of a seed: seeds under 400 and steps under 10,000,000 do not collide.
    """
    return torch.Generator(device).manual_seed(seed * 10_000_000 + step)


def step_noise(shape: torch.Size, seed: int, step: int, device: torch.device) -> Tensor:
    """The normal noise of one training step, drawn on the device that computes the step.

    Args:
        shape: Of the noise.
        seed: Of the training, under 200: the noise has a stream of its own, apart from that of `step_generator`.
        step: Of the training.
        device: On which the numbers depend.
    """
    generator = torch.Generator(device).manual_seed((seed + NOISE_SEED) * 10_000_000 + step)
    return torch.randn(shape, generator=generator, device=device)
