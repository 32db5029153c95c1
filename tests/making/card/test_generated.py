from typing import Any

import pytest
import torch
from card.generated import attribute_figures, decided_share, displayed, distances, generate, nearest, untrained

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampling import sample
from hspace.scorers.embedded import WorldFeatures, WorldScorer, load_annotator, load_judge
from hspace.worlds.portraits.faces import PORTRAITS, render, sample_factors, visibility
from hspace.worlds.rendered import Rendered, from_bytes


@pytest.fixture(scope="module")
def scorers() -> tuple[WorldScorer, WorldScorer]:
    return load_judge("portraits"), load_annotator("portraits")


def make_renders(n: int, seed: int, **fixed: float) -> Rendered:
    factors = sample_factors(torch.Generator().manual_seed(seed), n)
    factors |= {name: torch.full((n,), value) for name, value in fixed.items()}
    images = ((render(factors, 64) + 1) * 127.5).round().to(torch.uint8)
    return Rendered(images, PORTRAITS.labels(factors), visibility(factors))


def test_renders_in_the_place_of_samples_are_without_fault(scorers: tuple[WorldScorer, WorldScorer]) -> None:
    renders = make_renders(128, 5)
    figures = attribute_figures(*scorers, renders.batch(torch.arange(128)), renders)
    assert set(figures) == set(scorers[0].attributes)
    for name, row in figures.items():
        assert row["judge"] > 0.93 and row["error"] < 0.1, name
        assert ("decided" in row) == (name in ("glasses", "hat", "beard", "gender"))
        assert row.get("decided", 1) == 1 and row.get("agreement", 1) > 0.98


def test_a_population_that_differs_is_told_by_how_much(scorers: tuple[WorldScorer, WorldScorer]) -> None:
    renders, others = make_renders(128, 5), make_renders(64, 6, glasses=1.0, yaw=0.9)
    figures = attribute_figures(*scorers, others.batch(torch.arange(64)), renders)
    true = dict(zip(scorers[0].attributes, renders.labels.T, strict=True))
    assert figures["glasses"]["error"] == pytest.approx(1 - float(true["glasses"].mean()), abs=0.01)
    assert figures["yaw"]["error"] == pytest.approx(float((0.9 - true["yaw"].mean()) / true["yaw"].std()), abs=0.1)
    assert figures["pitch"]["error"] < 0.4


def test_a_probability_in_between_is_undecided() -> None:
    assert decided_share(torch.tensor([0.01, 0.2, 0.5, 0.95])) == 0.5


def test_fid_grows_with_the_difference(scorers: tuple[WorldScorer, WorldScorer]) -> None:
    features: Any = WorldFeatures(scorers[0])
    real, fresh = (make_renders(64, seed).batch(torch.arange(64)) for seed in (5, 6))
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = distances(features, real, {"real": real, "fresh": fresh, "noise": noise})
    assert abs(found["real"]) < 1e-6 < found["fresh"] < 0.5 * found["noise"]


def test_the_nearest_render_is_found() -> None:
    renders = make_renders(40, 5)
    images = renders.batch(torch.tensor([30, 3]))
    images[0] += 0.1
    rows, distances = nearest(images, renders.images)
    assert rows.tolist() == [30, 3]
    assert (distances - torch.tensor([0.1, 0.0])).abs().max() < 1e-3


def test_large_pictures_are_compared_without_what_reducing_them_takes_away() -> None:
    coarse = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    renders = (200 * coarse).round().byte().repeat_interleave(2, -1).repeat_interleave(2, -2)
    stripes = 0.2 * (-1) ** torch.arange(128)
    rows, distances = nearest(from_bytes(renders[[2, 0]]) + stripes, renders)
    assert rows.tolist() == [2, 0] and distances.max() < 0.02
    assert nearest(from_bytes(renders[[1]]) + 0.1, renders)[1].item() == pytest.approx(0.1, abs=1e-3)


def test_samples_are_generated_as_they_are_displayed(tiny_model: DiffusionModel) -> None:
    images = displayed(generate(tiny_model, range(5), batch_size=2))
    assert images.dtype == torch.uint8 and images.shape == (5, 3, 16, 16)
    exact = sample(tiny_model, tiny_model.latents(range(5))).x_0.clamp(-1, 1)
    assert (images / 127.5 - 1 - exact).abs().max() < 1.01 / 127.5


def test_the_untrained_model_is_the_same_but_for_its_weights(tiny_model: DiffusionModel) -> None:
    state = torch.get_rng_state()
    fresh, again = untrained(tiny_model), untrained(tiny_model)
    assert torch.equal(torch.get_rng_state(), state)
    assert fresh.sample_shape == tiny_model.sample_shape and fresh.process == tiny_model.process
    weights, same = (model.denoiser.network.conv_in.weight for model in (fresh, again))
    assert torch.equal(weights, same) and not fresh.denoiser.network.training
    assert sum(p.numel() for p in fresh.denoiser.network.parameters()) == sum(
        p.numel() for p in tiny_model.denoiser.network.parameters()
    )
