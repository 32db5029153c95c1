"""Trained offsets: what they were trained for happens to samples that they were not trained on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.aims import Aim, score_aim
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.random import random
from hspace.directions.record import Directions
from hspace.directions.trained import offsets, trained
from hspace.directions.trained_network import trained_network
from hspace.directions.training import TrainingTask, moments
from hspace.runs.config import Config
from hspace.runs.discovery import warn_of_injection
from hspace.runs.parsing import settings_of
from hspace.scorers.clip import load_clip
from hspace.types import InputError

FRESH = range(100, 112)


class Colors:
    """Mean of each colour."""

    id = "colors"
    attributes: tuple[str, ...] = ("red", "green", "blue")
    binary: tuple[bool, ...] = (False, False, False)

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


class Blind(Colors):
    """The same without gradients."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images.detach())


@pytest.fixture(scope="module")
def model(make_unet: Callable[..., UNet2DModel], tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """Two steps, both of which change the image."""
    folder = tmp_path_factory.mktemp("tiny") / "eight"
    DDPMPipeline(unet=make_unet(sample_size=8), scheduler=DDPMScheduler()).save_pretrained(folder)
    return load_model(str(folder), num_steps=2, spacing="trailing", device="cpu")


@pytest.fixture(scope="module")
def annotations(model: DiffusionModel) -> Annotations:
    return annotate(model, range(24), Colors())


@pytest.fixture(scope="module")
def reds(model: DiffusionModel, annotations: Annotations) -> dict[float, Directions]:
    """Offsets for red, by the weight of what is held."""
    return {
        hold: trained(
            model, Colors(), annotations, "red", updates=8, rate=0.7, batch=2,
            aim=score_aim(Colors(), annotations, "red", hold=hold, likeness=0.0),
        )
        for hold in (0.0, 3.0)
    }  # fmt: skip


def changes(model: DiffusionModel, offset: Tensor, unit: Tensor) -> Tensor:
    """Mean change of each colour of fresh samples, in the unit."""
    latents = model.latents(FRESH)
    edited, plain = (sample(model, latents, delta_h=delta).x_0 for delta in (offset[None], None))
    return (Colors()(edited) - Colors()(plain)).mean(dim=0) / unit


def test_the_score_rises_on_fresh_samples_more_than_by_a_random_offset_of_the_same_norm(
    model: DiffusionModel, annotations: Annotations, reds: dict[float, Directions]
) -> None:
    unit, found = annotations.scores.std(dim=0), reds[3.0]
    found.check(model, eta=1.0)
    ours = changes(model, found.directions[0], unit)
    assert 0.7 < ours[0] < 1.3  # one standard deviation was asked for
    others = torch.stack([changes(model, random(found, seed=seed).directions[0], unit) for seed in range(3)])
    assert ours[0] > 2 * others[:, 0].max()


def test_what_is_held_stays_nearer(
    model: DiffusionModel, annotations: Annotations, reds: dict[float, Directions]
) -> None:
    unit = annotations.scores.std(dim=0)
    loose, tight = (changes(model, reds[hold].directions[0], unit) for hold in (0.0, 3.0))
    assert (tight[1:] / tight[0]).square().sum() < 0.5 * (loose[1:] / loose[0]).square().sum()


def test_the_report_holds_what_the_annotator_sees(annotations: Annotations, reds: dict[float, Directions]) -> None:
    meta = reds[3.0].meta
    report = meta.report
    assert report["annotator"] == "colors" and report["loss_last"] < report["loss_first"]
    assert set(report["effects"]) == set(Colors.attributes)
    value, low, high = report["effects"]["red"]
    assert low < value < high and 0.7 < value < 1.3
    assert (meta.names, meta.unit, meta.annotator) == (("red",), "target", annotations.provenance.annotator)


@pytest.mark.parametrize("injection", ["symmetric", "asyrp"])
def test_the_gradient_of_the_last_step_is_that_of_finite_differences(model: DiffusionModel, injection: str) -> None:
    # Earlier offsets also move later steps, which their gradient leaves out.
    aim = Aim(Colors(), 0, (1, 2), torch.tensor([1.0, 2.0, 3.0]), target=0.7, hold=0.5, likeness=0.3)
    task = TrainingTask(model, aim, offsets(0.5), Sampler(injection=injection, batch_size=2))
    latents, generator = model.latents([3, 4, 5]), torch.Generator().manual_seed(0)
    given = torch.randn(2, *model.h_shape, generator=generator)
    _, slope = task.gradient(given, latents)
    along = torch.stack([0 * slope[1], slope[1] / slope[1].norm()])
    # The loss, near 3 in float32, has no finer steps than the difference over a shorter way would need.
    ahead, behind = (task.gradient(given + e * along, latents)[0] for e in (8.0, -8.0))
    assert float(slope[1].norm()) == pytest.approx((ahead - behind) / 16, rel=0.002)


def test_the_loss_of_no_offset_is_that_of_the_target_alone(model: DiffusionModel) -> None:
    aim = Aim(Colors(), 0, (1, 2), torch.ones(3), target=0.7, hold=0.5, likeness=0.3)
    task = TrainingTask(model, aim, offsets(1.0), Sampler())
    loss, _ = task.gradient(torch.zeros(2, *model.h_shape), model.latents([3]))
    assert loss == pytest.approx(0.7**2, rel=1e-5)


def test_the_moments_of_h_are_those_of_all_samples_whatever_the_batch_size(model: DiffusionModel) -> None:
    latents = model.latents(range(5))
    (mean, whole), (same, parts) = (moments(model, latents, Sampler(batch_size=size)) for size in (5, 2))
    h = sample(model, latents, record_h=True).h
    assert h is not None
    torch.testing.assert_close(mean, h.mean(dim=0))
    torch.testing.assert_close(same, mean, atol=1e-5, rtol=1e-4)
    expected = h.transpose(0, 1).flatten(1).var(dim=1).mean().sqrt()
    assert whole == pytest.approx(float(expected), rel=1e-5) and parts == pytest.approx(whole, rel=1e-5)


def test_offsets_belong_to_the_eta_that_they_were_trained_at(model: DiffusionModel, annotations: Annotations) -> None:
    found = trained(model, Colors(), annotations, "red", updates=1, batch=1, sampler=Sampler(eta=0.25))
    assert found.meta.provenance.eta == (0.25, 0.25)


def test_what_was_trained_for_one_injection_says_so_when_a_run_edits_by_the_other(
    model: DiffusionModel, annotations: Annotations, default_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    asyrp = Sampler(injection="asyrp")
    offset = trained(model, Colors(), annotations, "red", updates=1, batch=1, sampler=asyrp)
    network = trained_network(model, Colors(), annotations, "red", updates=1, batch=1, sampler=asyrp)
    assert default_config.diffusion.injection == "symmetric"
    same = replace(default_config, diffusion=replace(default_config.diffusion, injection="asyrp"))
    for found in (offset, network):
        caplog.clear()
        warn_of_injection(found.meta, default_config)
        assert "trained or measured with diffusion.injection=asyrp; effects differ with symmetric" in caplog.text
        caplog.clear()
        warn_of_injection(found.meta, same)
        assert not caplog.text


def test_gradients_pass_through_clip(tiny_clip_dir: Path) -> None:
    scorer = load_clip(str(tiny_clip_dir))
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(scorer.logits(images)[:, 0].sum(), images)
    assert slope.abs().max() > 0
    assert not scorer(images.detach()).requires_grad


def test_what_cannot_be_trained_is_refused(model: DiffusionModel, annotations: Annotations) -> None:
    with pytest.raises(InputError, match="colors gives none"):
        trained(model, Blind(), annotations, "red")
    few = annotate(model, range(4), Colors())
    with pytest.raises(InputError, match="at least 20 annotated samples, got 4"):
        trained(model, Colors(), few, "red")
    with pytest.raises(InputError, match="conditions must not name"):
        settings_of({"name": "trained", "attribute": "smile", "conditions": ["smile"]})
