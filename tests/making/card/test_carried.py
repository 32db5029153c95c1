from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
from card.carried import carried_by_h, counterfactuals, encoded, predictions
from card.subject import subject_of
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.denoiser import Denoiser
from hspace.scorers.embedded import WorldScorer, load_judge
from hspace.worlds.portraits.faces import ATTRIBUTES, JUDGED

PORTRAITS = subject_of("portraits")


@pytest.fixture(scope="module")
def judge() -> WorldScorer:
    return load_judge("portraits")


@dataclass(frozen=True)
class Known:
    """h, and what the skips carry."""

    h: Tensor
    skips: Tensor

    def select(self, rows: Sequence[int]) -> "Known":
        return Known(self.h[list(rows)], self.skips[list(rows)])


class Clean:
    """Knows the clean image of everything that is hardly noisy; h and the skips carry a set share of it each."""

    def __init__(self, usual: Denoiser, known: Tensor, by_h: float, first_unknown: int) -> None:
        self.network, self.tap = usual.network, usual.tap
        self.sample_shape = self.h_shape = usual.sample_shape
        self.known, self.by_h, self.first_unknown = known, by_h, first_unknown

    def encode(self, x_t: Tensor, t: float, cond: Any = None) -> Known:
        known = self.known if t < self.first_unknown else torch.zeros_like(self.known)
        return Known(self.by_h * known, (1 - self.by_h) * known)

    def decode(self, h: Tensor, encoded: Known) -> Tensor:
        return h + encoded.skips


class Level:
    """Reads the mean of an image as every attribute."""

    id = "level"
    attributes: tuple[str, ...] = tuple(attribute.id for attribute in JUDGED)
    binary: tuple[bool, ...] = (False,) * len(JUDGED)

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None].expand(-1, len(JUDGED))

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


def make_model(tiny_model: DiffusionModel, by_h: float, first_unknown: int) -> DiffusionModel:
    unet = Clean(
        tiny_model.denoiser, torch.cat([torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 16, 16)]), by_h, first_unknown
    )
    return replace(tiny_model, denoiser=unet, process=replace(tiny_model.process, prediction_type="sample"))


@pytest.fixture
def black_and_white(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = torch.stack([torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 16, 16)])
    monkeypatch.setattr("card.carried.counterfactuals", lambda *_: pairs)


@pytest.mark.usefixtures("black_and_white")
@pytest.mark.parametrize("by_h", [0.0, 0.3, 1.0])
def test_the_share_of_h_and_the_noise_level_are_found(tiny_model: DiffusionModel, by_h: float) -> None:
    figures = carried_by_h(make_model(tiny_model, by_h, 300), Level(), PORTRAITS, 2, seed=0)
    process: Any = tiny_model.process
    log_snr = float(torch.logit(torch.tensor(process.alpha_bar[299])))
    assert set(figures) == {attribute.id for attribute in JUDGED}
    for row in figures.values():
        assert row["by_h"] == pytest.approx(by_h, abs=1e-5) and row["log_snr"] == pytest.approx(log_snr, abs=1e-4)


@pytest.mark.parametrize("swap", [False, True])
def test_a_latent_model_gets_the_latents_of_renders_and_is_read_as_images(swap: bool, tmp_path: Path) -> None:
    latent = load_model(str(pipelines.save("latent", tmp_path / "latent")))
    pairs = torch.rand(2, 3, *latent.image_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    clean = encoded(latent, pairs)
    assert clean.shape == (2, 3, *latent.sample_shape) and latent.sample_shape != latent.image_shape
    low, high = (latent.codec.encode(images) for images in pairs)
    unet = Clean(latent.denoiser, torch.cat([low, high]), 0.25, 300)
    model = replace(latent, denoiser=unet, process=replace(latent.process, prediction_type="sample"))
    found = predictions(model, clean, torch.randn(3, *latent.sample_shape), 100, swap=swap)
    by_h = 0.25 if swap else 0.0
    expected = [latent.codec.decode((1 - by_h) * own + by_h * other) for own, other in ((low, high), (high, low))]
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


@pytest.mark.usefixtures("black_and_white")
def test_what_is_never_decided_has_no_figure(tiny_model: DiffusionModel) -> None:
    figures = carried_by_h(make_model(tiny_model, 0.5, 0), Level(), PORTRAITS, 2, seed=0)
    assert all(row == {"log_snr": None, "by_h": None} for row in figures.values())


def test_pairs_differ_in_one_attribute_that_the_judge_reads(judge: WorldScorer) -> None:
    for attribute in JUDGED:
        low, high = (judge(images) for images in counterfactuals(PORTRAITS, attribute, 16, 32, seed=0))
        change = (high - low).mean(0) / torch.tensor([each.high - each.low for each in JUDGED])
        column = judge.attributes.index(attribute.id)
        assert change[column] > 0.6, attribute.id
        assert change.abs().argmax() == column, attribute.id
    assert len(JUDGED) < len(ATTRIBUTES)


def test_pairs_of_rooms_hide_nothing() -> None:
    rooms = subject_of("rooms")
    world = rooms.world
    factors = rooms.shown(world.sample_factors(torch.Generator().manual_seed(0), 16))
    assert world.visibility(factors).all()
    for attribute in world.judged:
        low, high = counterfactuals(rooms, attribute, 4, 32, seed=0)
        assert ((high - low).abs().amax((1, 2, 3)) > 0.1).all(), attribute.id


def test_with_the_same_h_nothing_is_swapped(tiny_model: DiffusionModel) -> None:
    one = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.zeros(2, 3, 16, 16)
    same = one.expand(2, -1, -1, -1, -1)
    own, swapped = (predictions(tiny_model, same, noise, 500, swap=swap) for swap in (False, True))
    assert torch.allclose(own, swapped, atol=1e-5) and own.shape == (2, 2, 3, 16, 16)
    different = torch.cat([one, -one])
    own, swapped = (predictions(tiny_model, different, noise, 500, swap=swap) for swap in (False, True))
    assert not torch.allclose(own, swapped, atol=1e-3)
