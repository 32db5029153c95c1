"""Training by other aims than a score's rise, and the network that is added to h, against references of torch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import getattr_static
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from hspace.cli import main
from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.aims import SHORT, score_aim, text_aim
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.operators import NETWORK, Operator, network_shapes
from hspace.directions.trained import trained
from hspace.directions.trained_network import _delta, _start, trained_network
from hspace.directions.training import TrainingTask
from hspace.edits.changes import operate
from hspace.runs.parsing import settings_of
from hspace.scorers.clip import load_clip
from hspace.types import InputError, TextScorer

FRESH = range(100, 112)


class Words:
    """Colours in a space of texts: an image is embedded by its mean colour, and a word as that colour."""

    id = "words"
    attributes: tuple[str, ...] = ("red", "green", "blue")
    binary: tuple[bool, ...] = (False, False, False)
    prompts: Tensor = torch.stack([torch.stack([axis, -axis]) for axis in torch.eye(4)[:3]])

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)

    def embed(self, images: Tensor) -> Tensor:
        colour = images.mean(dim=(2, 3))
        return F.normalize(torch.cat([colour, torch.ones_like(colour[:, :1])], dim=1), dim=1)

    def encode(self, texts: Sequence[str]) -> Tensor:
        signs = [-1.0 if text.startswith("not ") else 1.0 for text in texts]
        places = [self.attributes.index(text.removeprefix("not ")) for text in texts]
        return torch.stack([sign * torch.eye(4)[place] for sign, place in zip(signs, places, strict=True)])


@pytest.fixture(scope="module")
def model(make_unet: Callable[..., UNet2DModel], tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """Two steps, both of which change the image."""
    folder = tmp_path_factory.mktemp("tiny") / "eight"
    DDPMPipeline(unet=make_unet(sample_size=8), scheduler=DDPMScheduler()).save_pretrained(folder)
    return load_model(str(folder), num_steps=2, spacing="trailing", device="cpu")


@pytest.fixture(scope="module")
def annotations(model: DiffusionModel) -> Annotations:
    return annotate(model, range(24), Words())


@pytest.fixture(scope="module")
def network(model: DiffusionModel, annotations: Annotations) -> Operator:
    return trained_network(
        model, Words(), annotations, "red", aim=score_aim(Words(), annotations, "red", likeness=0.0), width=16,
        updates=20, rate=0.1, batch=2,
    )  # fmt: skip


def test_the_network_is_that_of_torch(model: DiffusionModel, network: Operator) -> None:
    parts = network.tensors()
    channels, width = parts["outer"].shape
    layers = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, channels, 1))
    first, norm, last = nn.Conv2d(channels, width, 1), layers[0], layers[2]
    assert isinstance(norm, nn.GroupNorm) and isinstance(last, nn.Conv2d) and first.bias is not None
    assert last.bias is not None
    h = torch.randn(3, *model.h_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first.weight.copy_(parts["inner"][:, :, None, None])
        norm.weight.copy_(parts["norm"][0])
        norm.bias.copy_(parts["norm"][1])
        last.weight.copy_(parts["outer"][:, :, None, None])
        last.bias.copy_(parts["bias"])
        for step in range(2):
            first.bias.copy_(parts["times"][step])
            expected = layers(first(h - parts["mean"][step]))
            torch.testing.assert_close(network.change(step, h), expected, atol=1e-5, rtol=1e-4)


def test_a_strength_scales_the_change_and_none_changes_nothing(model: DiffusionModel, network: Operator) -> None:
    h = torch.randn(2, *model.h_shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close((0.25 * network).change(1, h), 0.25 * network.change(1, h))
    latents = model.latents(FRESH)
    unedited = sample(model, latents).x_0
    for strength in (0.0, 1.0):
        (edited,) = operate(model, latents, network, strengths=[strength]).unbind(1)
        assert torch.equal(edited, unedited) == (strength == 0)


def test_the_score_rises_on_fresh_samples_by_what_was_asked(
    model: DiffusionModel, annotations: Annotations, network: Operator
) -> None:
    latents, unit = model.latents(FRESH), annotations.scores.std(dim=0)
    images = operate(model, latents, network, strengths=[0.0, 1.0])
    change = (Words()(images[:, 1]) - Words()(images[:, 0])) / unit
    assert 0.6 < change[:, 0].mean() < 1.4
    assert network.meta.report["loss_last"] < network.meta.report["loss_first"]
    value, low, high = network.meta.report["effects"]["red"]
    assert low < value < high and 0.6 < value < 1.4
    assert network.meta.settings["attribute"] == "red"


class HiddenWhenRed(Words):
    """Blue cannot be seen where there is more red than a level."""

    def __init__(self, level: float) -> None:
        self.level = level

    def visible(self, scores: Tensor) -> Tensor:
        seen = super().visible(scores)
        return torch.stack([seen[:, 0], seen[:, 1], scores[:, 0] < self.level], dim=1)


def test_what_is_said_of_an_edit_leaves_out_what_cannot_be_seen(
    model: DiffusionModel, annotations: Annotations
) -> None:
    aim = score_aim(Words(), annotations, "red", likeness=0.0)
    task = TrainingTask(model, aim, lambda parameters, step, h: parameters[step].expand_as(h), Sampler())
    latents = model.latents(range(14))
    offsets = torch.zeros(2, *model.h_shape)
    reds = Words()(sample(model, latents).x_0.float())[:, 0].sort().values
    for hidden in (0, 3, 8):
        found = task.effects(offsets, latents, HiddenWhenRed(float(reds[-hidden - 1]) + 1e-5), annotations)
        assert found["red"] == [0.0, None, None], "no change"
        assert found["blue"] == ([0.0, None, None] if hidden < 5 else [None, None, None])


def test_a_file_holds_the_network(network: Operator, tmp_path: Path) -> None:
    network.save(tmp_path / "network.safetensors")
    again = Operator.load(tmp_path / "network.safetensors")
    assert again.meta == network.meta and again.kind == "network"
    assert all(torch.equal(again.tensors()[name], network.tensors()[name]) for name in ("mean", *NETWORK))


def test_a_network_of_other_shapes_is_refused(network: Operator) -> None:
    assert network.inner is not None and network.bias is not None
    with pytest.raises(InputError, match="inner must be"):
        replace(network, inner=network.inner[:15])
    with pytest.raises(InputError, match="bias must be"):
        replace(network, bias=network.bias[:-1])
    with pytest.raises(InputError, match="outer"):
        replace(network, outer=None)


def test_the_gradient_of_the_network_is_that_of_finite_differences(
    model: DiffusionModel, annotations: Annotations
) -> None:
    aim = score_aim(Words(), annotations, "red", hold=0.5, likeness=0.3)
    shapes = network_shapes(model.h_shape[0], 16, 2)
    last = Sampler(start=1, batch_size=2)
    task = TrainingTask(model, aim, _delta(shapes, torch.zeros(2, *model.h_shape), 1.0), last)
    generator = torch.Generator().manual_seed(0)
    start = _start(shapes)
    start = start + 0.3 * torch.randn(start.shape, generator=generator)
    latents = model.latents([3, 4, 5])
    # The trajectory is edited at its last step alone, so that no gradient is left out.
    _, slope = task.gradient(start, latents)
    along = slope / slope.norm()
    ahead, behind = (task.gradient(start + e * along, latents)[0] for e in (0.02, -0.02))
    assert float(slope @ along) == pytest.approx((ahead - behind) / 0.04, rel=0.02)


def test_the_loss_of_a_direction_is_that_of_its_formula(model: DiffusionModel) -> None:
    aim = text_aim(Words(), "red", conditions=["green"], hold=0.5, likeness=0.3)
    generator = torch.Generator().manual_seed(0)
    edited, plain = (torch.randn(3, *model.sample_shape, generator=generator) for _ in range(2))
    change = Words().embed(edited) - Words().embed(plain)
    cosines = [F.cosine_similarity(change, axis[None]) for axis in torch.eye(4)[:2]]
    expected = 1 - cosines[0] + 0.5 * cosines[1] ** 2 + 0.3 * (edited - plain).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(aim.loss(model, edited, plain), expected)


def test_the_loss_of_no_change_has_a_slope_of_bounded_size(model: DiffusionModel) -> None:
    aim, plain = text_aim(Words(), "red", likeness=0.0), 0.1 * torch.ones(1, *model.sample_shape)
    edited = plain.clone().requires_grad_()
    loss = aim.loss(model, edited, plain)
    (slope,) = torch.autograd.grad(loss.sum(), edited)
    assert loss.item() == 1 and slope.isfinite().all() and slope[0, 0].max() < 0 < slope.norm() < 1 / SHORT


def test_what_is_held_has_no_part_of_the_direction_itself() -> None:
    class Slanted(Words):
        prompts = Words.prompts + 0.5 * Words.prompts[[1, 1, 1]] * torch.tensor([1.0, 0, 0])[:, None, None]

    aim = text_aim(Slanted(), "red", conditions=["green", "blue"])
    torch.testing.assert_close(aim.held @ aim.direction, torch.zeros(2))
    torch.testing.assert_close(aim.held.norm(dim=1), torch.ones(2))


def test_images_move_as_the_prompts_differ(model: DiffusionModel, annotations: Annotations) -> None:
    scorer = Words()
    aim = text_aim(scorer, "red", prompts=("not red", "red"), conditions=["green"], likeness=0.0)
    found = trained(model, scorer, annotations, "red", aim=aim, updates=12, rate=0.3, batch=2)
    latents = model.latents(FRESH)
    edited, plain = (sample(model, latents, delta_h=delta).x_0 for delta in (found.directions[0][None], None))
    cosine = F.cosine_similarity(scorer.embed(edited) - scorer.embed(plain), -torch.eye(4)[:1])
    assert cosine.mean() > 0.6
    assert found.meta.report["effects"]["red"][0] < 0


def test_clip_reads_texts_as_it_reads_its_own_prompts(tiny_clip_dir: Path) -> None:
    scorer = load_clip(str(tiny_clip_dir))
    assert isinstance(scorer, TextScorer)
    assert getattr_static(scorer, "prompts", None) is not None, "all that isinstance sees from Python 3.12 on"
    torch.testing.assert_close(scorer.encode(["A smiling person", "A person"]), scorer.prompts[0], atol=1e-5, rtol=1e-4)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(scorer.embed(images)[:, 0].sum(), images)
    assert slope.abs().max() > 0
    aim, own = (text_aim(scorer, "smile", prompts=pair) for pair in (("A smiling person", "A person"), None))
    torch.testing.assert_close(aim.direction, own.direction, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_aimed_at_is_refused(annotations: Annotations) -> None:
    class Scores:
        id, attributes, binary, visible = "scores", Words.attributes, Words.binary, Words.visible
        __call__ = Words.__call__

    with pytest.raises(InputError, match=r"needs an annotator of texts, clip:MODEL, and scores reads none"):
        text_aim(Scores(), "red")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="words has no prompts for yellow, only for red, green, blue"):
        text_aim(Words(), "yellow")
    with pytest.raises(InputError, match="the prompts of red must differ to the annotator"):
        text_aim(Words(), "red", prompts=("red", "red"))
    with pytest.raises(InputError, match="unknown attribute 'yellow'"):
        score_aim(Words(), annotations, "yellow")
    for name in ("trained", "trained_network"):
        with pytest.raises(InputError, match="prompts are read by loss=direction alone, got loss=score"):
            settings_of({"name": name, "prompts": ["red", "green"]})
    with pytest.raises(InputError, match="width must be a multiple of 16, got 24"):
        settings_of({"name": "trained_network", "width": 24})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["trained", "trained_network"])
def test_clip_trains_from_the_command_line_and_the_gap_to_the_judge_is_told(
    method: str, tiny_pipeline_dir: Path, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    words = [
        f"method={method}", f"evaluation.annotator=clip:{tiny_clip_dir}", "method.loss=direction",
        "method.attribute=age",
        "method.num_samples=20", "method.updates=2", "method.batch=2", "evaluation.measures=[effect,gap,identity]",
        "evaluation.num_samples=12", "evaluation.reference_samples=12", "evaluation.calibration_samples=10",
        "diffusion.num_steps=2", "edit.strengths=[0.5,1]", "tracking.mode=disabled", "device=cpu", "batch_size=64",
        f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    assert main(words) == 0
    table = (tmp_path / "out" / "tables" / "directions.csv").read_text().splitlines()
    assert "gap" in table[0] and len(table) > 2
