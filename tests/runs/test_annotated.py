"""Samples that a method both records and annotates are drawn once, and come out as if they had been drawn twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from hspace.commands.run import load
from hspace.diffusion import recording
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions import annotations as annotating
from hspace.directions import examples
from hspace.directions.method import get_method
from hspace.directions.record import Directions
from hspace.runs import discovery
from hspace.runs.discovery import RunSources, discover
from hspace.runs.parsing import parse, settings_of
from hspace.system.files import package_path

N = 70
"""More than a shard."""


@pytest.fixture
def sources(tiny_pipeline_dir: Path, tmp_path: Path) -> RunSources:
    words = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", "diffusion.num_steps=2"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        lab = load(parse(compose("config", overrides=[*words, "method=regression", "batch_size=16", "device=cpu"])))
    return RunSources(lab.cfg, lab.model, lab.annotator, get_method("regression"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of each pass through the process."""
    counts: list[int] = []

    def counted(model, latents, **options):
        counts.append(len(latents.seeds))
        return sample(model, latents, **options)

    for module in (recording, annotating):
        monkeypatch.setattr(module, "sample", counted)
    return counts


def test_one_drawing_of_the_samples_has_the_bits_of_two(sources: RunSources, drawn: list[int], tmp_path: Path) -> None:
    found, scores = sources.annotated(N)
    assert sum(drawn) == N
    apart = replace(sources, cfg=replace(sources.cfg, cache_dir=tmp_path / "other"))
    plain, twice = apart.recorded(N), apart.annotations(N)
    assert sum(drawn) == 3 * N and plain.images((3, 16, 16)) is None
    assert np.array_equal(found.open(), plain.open()) and found.seeds == plain.seeds == scores.seeds
    assert torch.equal(scores.scores, twice.scores) and torch.equal(scores.sort_keys, twice.sort_keys)
    assert torch.equal(scores.visible, twice.visible) and scores.provenance == twice.provenance


def test_h_that_was_recorded_before_is_used_and_its_samples_are_annotated(
    sources: RunSources, drawn: list[int]
) -> None:
    path = sources.recorded(N).path
    found, scores = sources.annotated(N)
    assert found.path == path and len(scores.seeds) == N and sum(drawn) == 2 * N
    sources.annotated(N)
    assert sum(drawn) == 2 * N


@pytest.mark.parametrize("method", ["supervised", "boundary", "whitened"])
def test_examples_are_read_from_h_that_was_kept_and_others_drawn_again(
    sources: RunSources, drawn: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Both ways find the same to 1e-4; the second attribute takes no pass where h was kept."""
    monkeypatch.setattr(examples, "sample", recording.sample)

    def found(cache: Path, attribute: str) -> torch.Tensor:
        settings = settings_of({"name": method, "attribute": attribute, "k": 5, "num_samples": N})
        cfg = replace(sources.cfg, cache_dir=cache, method=settings)
        directions = discover(cfg, sources.model, sources.scorer)
        assert isinstance(directions, Directions)
        return directions.directions

    kept = [found(tmp_path / "kept", name) for name in ("glasses", "age")]
    assert sum(drawn) == N
    monkeypatch.setattr(discovery, "MOST_KEPT", 0)
    again = [found(tmp_path / "again", name) for name in ("glasses", "age")]
    assert sum(drawn) == 2 * N + 2 * 10
    for a, b in zip(kept, again, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm() and a.abs().max() > 0


def test_little_is_kept_of_what_takes_much(sources: RunSources, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4 * N * (2 * np.prod(sources.model.h_shape) + np.prod(sources.model.image_shape))
    for most, kept in ((size, True), (size - 1, False)):
        monkeypatch.setattr(discovery, "MOST_KEPT", most)
        scores, found = sources.index(N)
        assert len(scores.seeds) == N and (found is not None) == kept


def test_images_go_on_with_h_where_a_recording_was_stopped(
    tiny_model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def stopped(model, latents, **options):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(len(latents.seeds))
        return sample(model, latents, **options)

    path, sampler = tmp_path / "h.npy", Sampler(batch_size=16)
    with monkeypatch.context() as patch:
        patch.setattr(recording, "sample", stopped)
        with pytest.raises(KeyboardInterrupt):
            collect(tiny_model, range(N), path, sampler=sampler, shards=tmp_path / "shards", images=True)
    assert not path.exists() and calls == [16] * 4
    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(recording, "sample", lambda *given, **options: calls.append(1) or sample(*given, **options))
        found = collect(tiny_model, range(N), path, sampler=sampler, shards=tmp_path / "shards", images=True)
    assert len(calls) == 1
    images = found.images(tiny_model.image_shape)
    assert images is not None
    expected = [sample(tiny_model, tiny_model.latents(rows), sampler=sampler).x_0 for rows in (range(16), range(64, N))]
    assert torch.equal(images[:16], expected[0]) and torch.equal(images[64:], expected[1])
