# pyright: strict, reportUnknownMemberType=false
"""The noise a sample is made of, from its seed alone.

x_T and z of a seed come from private generators keyed by (seed, role), so that a sample does not depend on other
samples, on the device or on the number of processes.
"""

import hashlib
import math
import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.provenance import Provenance
from hspace.diffusion.sampler import BLOCK, BLOCKS, FIRST_SEED, SEEDS_PER_ROLE
from hspace.system.records import (
    Rule,
    are_counts,
    check_facts,
    check_floats,
    check_names,
    load_record,
    save_record,
    tuples,
)
from hspace.types import Images, InputError, Seeds

RULES: dict[str, Rule] = {
    "seeds": (are_counts, "integers >= 0"),
    "provenance": (lambda value: value is None or isinstance(value, dict), "an object or null"),
}
"""What each fact in a file of latents may be, and how to say so."""

NEIGHBOUR_NOISE = 0.15
"""Share of the variance that is new in a neighbour's noise."""

THREADED = 2**20
"""Number of values from which on several threads draw them."""


@dataclass(frozen=True)
class Latents:
    """The noise that generates a batch of samples: x_T and the variance noise of every step.

    Attributes:
        seeds: One seed per sample.
        x_T: Terminal noise, (batch, channel, height, width), standard normal.
        z: Variance noise, (batch, steps, channel, height, width), standard normal; step 0 is the noisiest.
        residual: Part of an inverted image that no noise leads to, shaped like x_T; it is added to the last x_t.
        provenance: Model, process and eta with which inverted latents give their image back; None for drawn noise, from
            which any model may start.
    """

    seeds: tuple[int, ...]
    x_T: Images
    z: Tensor
    residual: Images | None = None
    provenance: Provenance | None = None

    @classmethod
    def from_seeds(cls, seeds: Seeds, shape: tuple[int, ...], num_steps: int) -> "Latents":
        """Draw the noise of each seed on the CPU, in float32.

        Args:
            seeds: Integers >= 0, one per sample.
            shape: (channel, height, width) of the model's samples.
            num_steps: Number of steps; the noise of the first steps does not depend on it.

        Raises:
            InputError: If there is no seed, or one is not an integer >= 0.

        Examples:
            >>> latents = Latents.from_seeds([7, 8], (3, 32, 32), num_steps=10)
            >>> latents.seeds, tuple(latents.x_T.shape), tuple(latents.z.shape)
            ((7, 8), (2, 3, 32, 32), (2, 10, 3, 32, 32))
            >>> alone = Latents.from_seeds([8], (3, 32, 32), num_steps=10)
            >>> torch.equal(alone.x_T[0], latents.x_T[1])
            True
        """
        return cls(as_seeds(seeds), draw(seeds, "x_T", shape), draw(seeds, "z", (num_steps, *shape)))

    def to(self, device: torch.device | str) -> "Latents":
        """The same noise on another device."""
        residual = None if self.residual is None else self.residual.to(device)
        return replace(self, x_T=self.x_T.to(device), z=self.z.to(device), residual=residual)

    def select(self, rows: Sequence[int]) -> "Latents":
        """The given samples, in the given order; a sample may be named more than once.

        Examples:
            >>> latents = Latents.from_seeds([7, 8], (3, 8, 8), num_steps=2)
            >>> latents.select([1, 1, 0]).seeds
            (8, 8, 7)
        """
        rows = list(rows)
        residual = None if self.residual is None else self.residual[rows]
        seeds = tuple(self.seeds[row] for row in rows)
        return replace(self, seeds=seeds, x_T=self.x_T[rows], z=self.z[rows], residual=residual)

    def fit(self, here: Provenance, allow: Sequence[str] = ()) -> "Latents":
        """The latents, for use where `here` holds; inverted latents only fit the model that they were inverted with.

        Args:
            here: `DiffusionModel.provenance` of the model that will sample them.
            allow: Fields of `Provenance` that may differ, such as `conditioning` for an edit by another prompt.

        Raises:
            InputError: Naming the first other field that differs.
        """
        if self.provenance is None or not self.provenance.check(here, "latents", allow):
            return self
        return replace(self, provenance=here)

    def save(self, path: str | Path) -> None:
        """Write the latents as safetensors, atomically.

        Raises:
            OSError: If the file cannot be written.
        """
        save_record(path, self.tensors(), self.facts())

    @classmethod
    def load(cls, path: str | Path) -> "Latents":
        """Inverse of `save`, of a file that anyone may have written.

        Raises:
            InputError: If the file is missing, or does not hold latents.
        """
        return load_record(path, "latents", cls.parse)

    def tensors(self) -> dict[str, Tensor | None]:
        """The tensors of a file."""
        return {"x_T": self.x_T, "z": self.z, "residual": self.residual}

    def facts(self) -> dict[str, Any]:
        """The facts of a file, as JSON values."""
        return {"seeds": list(self.seeds), "provenance": self.provenance and self.provenance.to_dict()}

    @classmethod
    def parse(cls, facts: dict[str, Any], tensors: dict[str, Tensor]) -> "Latents":
        """Inverse of `facts` and `tensors`, which anyone may have written.

        Raises:
            InputError: Naming what is missing or wrong.
        """
        check_facts(facts | {"seeds": tuples(facts.get("seeds"))}, RULES, "latents")
        check_names(tensors, {"x_T", "z"}, {"residual"})
        check_floats(tensors)
        seeds, x_T, z, origin = tuple(facts["seeds"]), tensors["x_T"], tensors["z"], facts["provenance"]
        one, steps = tuple(x_T.shape[1:]), z.shape[1] if z.ndim > 1 else 0
        for name, tensor in tensors.items():
            wanted = (len(seeds), steps, *one) if name == "z" else (len(seeds), *one)
            if tuple(tensor.shape) != wanted or not tensor.numel():
                raise InputError(f"{name} must be {wanted} for {len(seeds)} seeds, got {tuple(tensor.shape)}")
        return cls(seeds, x_T, z, tensors.get("residual"), None if origin is None else Provenance.from_dict(origin))

    def neighbours(self, numbers: Sequence[int]) -> "Latents":
        """Samples near the first one: sqrt(.85) x + sqrt(.15) noise, for x_T and z alike.

        Args:
            numbers: Numbers of its neighbours, integers >= 0; the seed and this number key the noise of each.

        Returns:
            As many samples as there are numbers, all with the sample's own seed.

        Source: the code of Haas et al. 2024, local PCA.

        Examples:
            >>> latents = Latents.from_seeds([7], (3, 8, 8), num_steps=2)
            >>> latents.neighbours(range(4)).seeds
            (7, 7, 7, 7)
        """
        first = self.select([0] * len(numbers))

        def perturb(x: Tensor, role: str) -> Tensor:
            noise = np.stack([_normal(self.seeds[0], f"{role} neighbour {number}", x.shape[1:]) for number in numbers])
            return math.sqrt(1 - NEIGHBOUR_NOISE) * x + math.sqrt(NEIGHBOUR_NOISE) * torch.from_numpy(noise).to(x)

        return replace(first, x_T=perturb(first.x_T, "x_T"), z=perturb(first.z, "z"))


def draw(seeds: Seeds, role: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 noise on the CPU, from one private generator for each (seed, role).

    Args:
        seeds: Integers >= 0, one per sample.
        role: Use of the noise; the streams of different roles have nothing in common.
        shape: Shape of one sample's noise.

    Returns:
        The noise, (seeds, *shape).

    Raises:
        InputError: If there is no seed, or one is not an integer >= 0.
    """
    numbers = as_seeds(seeds)
    if not numbers:
        raise InputError("seeds must name at least one sample, got none")
    noise = np.empty((len(numbers), *shape), dtype=np.float32)

    def fill(row: int) -> None:
        _generator(numbers[row], role).standard_normal(out=noise[row], dtype=np.float32)

    # The generators are independent and let other threads run while they draw.
    threads = min(torch.get_num_threads(), len(numbers)) if noise.size >= THREADED else 1
    if threads == 1:
        for row in range(len(numbers)):
            fill(row)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(len(numbers))))
    return torch.from_numpy(noise)


def as_seeds(seeds: Seeds) -> tuple[int, ...]:
    """Seeds as Python's own integers, as files need them.

    Raises:
        InputError: If one is not an integer >= 0.

    Examples:
        >>> as_seeds([np.int64(3), 5])
        (3, 5)
    """
    return tuple(map(as_seed, seeds))


def as_seed(seed: SupportsIndex) -> int:
    """One seed; see `as_seeds`.

    Raises:
        InputError: If it is not an integer >= 0.
    """
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(f"seeds must be integers >= 0, got {seed!r}")
    return number


def _normal(seed: int, role: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 values of one stream."""
    return _generator(seed, role).standard_normal(shape, dtype=np.float32)


def _generator(seed: int, role: str) -> np.random.Generator:
    """The generator of one stream, keyed by a 128-bit hash of (seed, role).

    numpy's because torch's, on the CPU, keeps only the low 32 bits of its seed: hashed keys would collide.
    """
    digest = hashlib.blake2b(f"{role}/{seed}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def seed_range(role: str, n: int, start: int = 0, block: int = 0) -> tuple[int, ...]:
    """The sample seeds start, ..., start + n - 1 of one role, or of one block of the evaluation seeds.

    Raises:
        InputError: If the role is unknown, or the seeds are not among the 1,000,000 of the role or, for evaluation,
            among the 10,000 of the block.

    Examples:
        >>> seed_range("evaluation", 3, block=2)
        (2020000, 2020001, 2020002)
    """
    if role not in FIRST_SEED:
        raise InputError(f"the role of seeds must be one of {', '.join(FIRST_SEED)}, got {role}")
    size, last = (BLOCK, BLOCKS - 1) if role == "evaluation" else (SEEDS_PER_ROLE, 0)
    if n < 1 or start < 0 or start + n > size:
        where = f"a block of {role}" if last else role
        raise InputError(f"{where} has seeds 0 to {size - 1}, got start {start} and {n} samples")
    if not 0 <= block <= last:
        raise InputError(f"{role} has blocks 0 to {last}, got {block}")
    first = FIRST_SEED[role] + block * size + start
    return tuple(range(first, first + n))


def role_of(seed: int) -> str:
    """The role of a sample seed; those after the last role's are its own.

    Examples:
        >>> role_of(3), role_of(1_000_000)
        ('discovery', 'calibration')
    """
    return next(role for role, first in reversed(FIRST_SEED.items()) if seed >= first)


def check_disjoint(**seeds: Sequence[int]) -> None:
    """Check that no seed is in two of the named lists.

    Raises:
        InputError: If one is, with the names of both lists and the smallest common seed.
    """
    names = list(seeds)
    for position, name in enumerate(names):
        for other in names[position + 1 :]:
            common = set(seeds[name]) & set(seeds[other])
            if common:
                raise InputError(f"{name} and {other} must not share samples, both have seed {min(common)}")
