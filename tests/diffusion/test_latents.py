"""Noise depends on the seed and its role alone."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents, as_seeds, check_disjoint, draw, seed_range
from hspace.system.shards import row_batches
from hspace.types import InputError

SHAPE = (3, 16, 16)
X_T_OF_SEED_0 = [-0.4412387, -0.3062257]
Z_OF_SEED_0 = [-1.1527224, -0.3909562]


def test_a_sample_does_not_depend_on_its_batch() -> None:
    batch = Latents.from_seeds([7, 0, 2_000_000], SHAPE, 4)
    for row, seed in enumerate(batch.seeds):
        alone = Latents.from_seeds([seed], SHAPE, 4)
        assert torch.equal(batch.x_T[row], alone.x_T[0])
        assert torch.equal(batch.z[row], alone.z[0])


def test_the_global_generators_are_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    expected = torch.get_rng_state()
    first = Latents.from_seeds([3], SHAPE, 2)
    assert torch.equal(torch.get_rng_state(), expected)
    torch.manual_seed(1)
    assert torch.equal(Latents.from_seeds([3], SHAPE, 2).z, first.z)


def test_noise_stays_what_it_was() -> None:
    """Recorded results name their samples by seed: the noise of a seed must never change."""
    latents = Latents.from_seeds([0], (1, 1, 2), 1)
    assert latents.x_T.flatten().tolist() == pytest.approx(X_T_OF_SEED_0, abs=1e-7)
    assert latents.z.flatten().tolist() == pytest.approx(Z_OF_SEED_0, abs=1e-7)


@pytest.mark.parametrize("threads", [2, 5, 99])
def test_several_threads_draw_the_same_bits(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = draw(range(7), "z", (3, *SHAPE))
    pools: list[int] = []

    class Counting(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            pools.append(workers)
            super().__init__(workers)

    monkeypatch.setattr("hspace.diffusion.latents.ThreadPoolExecutor", Counting)
    monkeypatch.setattr("hspace.diffusion.latents.THREADED", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(draw(range(7), "z", (3, *SHAPE)), alone) and pools == [min(threads, 7)]


def test_streams_do_not_meet() -> None:
    """Neighbouring seeds, the two roles, and seeds that differ by 2^32 (which torch's generator takes for one)."""
    seeds = [0, 1, 2, 2**32, 2**32 + 1]
    latents = Latents.from_seeds(seeds, SHAPE, 1)
    streams = torch.cat([latents.x_T, latents.z[:, 0]]).flatten(1)
    correlation = torch.corrcoef(streams) - torch.eye(len(streams))
    assert correlation.abs().max() < 5 / streams.shape[1] ** 0.5


def test_noise_is_standard_normal() -> None:
    values = Latents.from_seeds([5], (4, 128, 128), 2).z.flatten()
    n = len(values)
    assert abs(values.mean()) < 4 / n**0.5
    assert abs(values.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((values**4).mean() - 3) < 4 * (96 / n) ** 0.5


def test_early_noise_does_not_depend_on_the_number_of_steps() -> None:
    assert torch.equal(Latents.from_seeds([1], SHAPE, 3).z, Latents.from_seeds([1], SHAPE, 10).z[:, :3])


def test_select_and_to() -> None:
    latents = Latents.from_seeds([4, 5], SHAPE, 2)
    chosen = latents.select([1, 0, 1]).to("cpu")
    assert chosen.seeds == (5, 4, 5)
    assert torch.equal(chosen.x_T[2], latents.x_T[1])
    assert torch.equal(chosen.z[1], latents.z[0])


@pytest.mark.parametrize(("seeds", "message"), [([], "at least one"), ([-1], "got -1"), ([True], "got True")])
def test_bad_seeds(seeds: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Latents.from_seeds(seeds, SHAPE, 2)


def test_seed_ranges() -> None:
    assert seed_range("discovery", 2) == (0, 1)
    assert seed_range("calibration", 2, start=5) == (1_000_005, 1_000_006)
    assert seed_range("evaluation", 10_000, block=99)[-1] == 2_999_999
    assert seed_range("evaluation", 2, start=3, block=2) == (2_020_003, 2_020_004)
    check_disjoint(discovery=seed_range("discovery", 1_000_000), evaluation=seed_range("evaluation", 3))


@pytest.mark.parametrize(("n", "start"), [(1_000_001, 0), (1, 1_000_000), (0, 0), (1, -1)])
def test_seeds_outside_their_role(n: int, start: int) -> None:
    with pytest.raises(InputError, match="discovery has seeds 0 to 999999"):
        seed_range("discovery", n, start)


def test_unknown_role() -> None:
    with pytest.raises(InputError, match="discovery, calibration, evaluation"):
        seed_range("testing", 1)
    with pytest.raises(InputError, match="a block of evaluation has seeds 0 to 9999, got start 9000 and 1001"):
        seed_range("evaluation", 1001, 9000)
    with pytest.raises(InputError, match="evaluation has blocks 0 to 99, got 100"):
        seed_range("evaluation", 1, block=100)
    with pytest.raises(InputError, match="calibration has blocks 0 to 0, got 1"):
        seed_range("calibration", 1, block=1)


def test_overlap_is_an_error() -> None:
    with pytest.raises(InputError, match="index and evaluation must not share samples, both have seed 2"):
        check_disjoint(index=[0, 1, 2, 3], other=[9], evaluation=[3, 2])


def test_rows_come_in_batches() -> None:
    assert row_batches(5, 2) == [range(2), range(2, 4), range(4, 5)]
    assert row_batches(2, 8) == [range(2)]
    with pytest.raises(InputError, match="batch_size and the number of samples must be >= 1, got 0 and 3"):
        row_batches(3, 0)
    with pytest.raises(InputError, match="got 4 and 0"):
        row_batches(0, 4)


def test_neighbours_mix_in_noise_of_their_own() -> None:
    center = Latents.from_seeds([7], (3, 16, 16), 40)
    near = center.neighbours(range(5))
    assert near.seeds == (7,) * 5
    for ours, theirs in ((near.z, center.z), (near.x_T, center.x_T)):
        noise = (ours - math.sqrt(0.85) * theirs) / math.sqrt(0.15)
        everything = torch.cat([noise, theirs]).flatten(1)
        assert (torch.corrcoef(everything) - torch.eye(6)).abs().max() < 5 / math.sqrt(everything.shape[1])
        assert (noise.std() - 1).abs() < 0.05
    again = center.neighbours([3])
    assert torch.equal(again.x_T[0], near.x_T[3]) and torch.equal(again.z[0], near.z[3])
    other = Latents.from_seeds([8], (3, 16, 16), 40)
    assert not torch.equal(other.neighbours([0]).x_T - math.sqrt(0.85) * other.x_T, near.x_T[:1])


def test_latents_are_read_back_as_written(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    plain = Latents.from_seeds([3, 8], (3, 16, 16), 3)
    inverted = replace(plain, residual=torch.randn(2, 3, 16, 16), provenance=tiny_model.provenance(eta=0.5))
    for latents in (plain, inverted):
        latents.save(tmp_path / "latents.safetensors")
        loaded = Latents.load(tmp_path / "latents.safetensors")
        assert (loaded.seeds, loaded.provenance) == (latents.seeds, latents.provenance)
        assert torch.equal(loaded.x_T, latents.x_T) and torch.equal(loaded.z, latents.z)
        assert (loaded.residual is None) == (latents.residual is None)
        assert latents.residual is None or torch.equal(loaded.residual, latents.residual)  # pyright: ignore


@pytest.mark.parametrize(
    ("tensors", "facts", "fault"),
    [
        ({"x_T": None}, {}, "must hold the tensors 'x_T', 'z'"),
        ({"w": torch.ones(1)}, {}, "and at most residual"),
        ({"z": torch.ones(2, 3, 3, 16, 15)}, {}, r"z must be \(2, 3, 3, 16, 16\) for 2 seeds"),
        ({"z": torch.ones(2)}, {}, "z must be"),
        ({"x_T": torch.ones(1, 3, 16, 16)}, {}, "x_T must be"),
        ({"residual": torch.full((2, 3, 16, 16), torch.nan)}, {}, "residual must be finite"),
        ({"x_T": torch.ones(2, 3, 16, 16, dtype=torch.int64)}, {}, "x_T must be floating-point, got int64"),
        ({}, {"seeds": [1]}, "for 1 seeds"),
        ({}, {"seeds": "all"}, "seeds must be integers >= 0"),
        ({}, {"provenance": 3}, "provenance must be an object or null"),
        ({}, {"provenance": {"process": {}}}, "keys of a provenance"),
        ({}, {"more": 3}, "keys of latents, wrong here: .*more"),
    ],
)
def test_a_strangers_latents_are_one_clear_line(
    tmp_path: Path, tensors: dict[str, torch.Tensor | None], facts: dict[str, Any], fault: str
) -> None:
    path, ours = tmp_path / "latents.safetensors", Latents.from_seeds([3, 8], (3, 16, 16), 3)
    kept = {name: each for name, each in (ours.tensors() | tensors).items() if each is not None}
    save_file(kept, path, metadata={"hspace": json.dumps(ours.facts() | facts)})
    with pytest.raises(InputError, match=fault) as error:
        Latents.load(path)
    assert str(error.value).startswith(f"latents file {path}: ") and str(error.value).isprintable()


def test_numpy_seeds_are_seeds() -> None:
    drawn = Latents.from_seeds([np.int64(7), np.uint8(2), torch.tensor(5)], SHAPE, 2)
    assert drawn.seeds == (7, 2, 5) and {type(seed) for seed in drawn.seeds} == {int}
    assert torch.equal(drawn.z, Latents.from_seeds([7, 2, 5], SHAPE, 2).z)


@pytest.mark.parametrize("wrong", [np.int64(-1), torch.tensor(0.5), np.arange(2)])
def test_what_is_not_an_integer_is_not_a_seed(wrong: Any) -> None:
    with pytest.raises(InputError, match="seeds must be integers >= 0, got"):
        as_seeds([wrong])
