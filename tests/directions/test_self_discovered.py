"""Self-discovered vectors: a known offset is found again, and the gradient is that of finite differences."""

from collections.abc import Callable

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.learning import clean_samples, epochs, learn
from hspace.directions.positions import by_position, everywhere
from hspace.directions.self_discovered import DenoisingTask, self_discovered
from hspace.runs.parsing import settings_of
from hspace.types import InputError

STEPS = 3


@pytest.fixture(scope="module")
def model(make_unet: Callable[..., UNet2DModel], tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    folder = tmp_path_factory.mktemp("tiny") / "eight"
    DDPMPipeline(unet=make_unet(sample_size=8), scheduler=DDPMScheduler()).save_pretrained(folder)
    return load_model(str(folder), num_steps=STEPS, device="cpu", dtype="float64")


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn_with(model: DiffusionModel, offset: Tensor, step: int, n: int) -> tuple[int, Tensor, Tensor]:
    """Images P_t that the model predicts under an offset of h, and the noise with which they are the x_t it saw."""
    process, t = model.process, model.process.timesteps[step]
    x_t = normal(n, *model.sample_shape, seed=step)
    with torch.no_grad():
        encoded = model.denoiser.encode(x_t, t)
        output = model.denoiser.decode(encoded.h + everywhere(offset, model.h_shape), encoded)
    return step, process.to_x0(output, x_t, t), process.to_eps(output, x_t, t)


def test_the_offset_that_images_were_drawn_with_is_found_again(model: DiffusionModel) -> None:
    offset, task = normal(16, seed=9), DenoisingTask(model, batch_size=8)
    draws = [drawn_with(model, offset, 1, 3)]
    assert task.gradient(offset[None], draws)[0] < 1e-20  # the known optimum
    found, losses = learn(
        torch.zeros(1, 16, dtype=torch.float64), lambda vector, _: task.gradient(vector, draws), updates=40, rate=0.3
    )
    assert task.gradient(found, draws)[0] < 0.02 * losses[0]
    assert torch.cosine_similarity(found[0], offset, dim=0) > 0.95


@pytest.mark.parametrize("per_step", [False, True])
def test_the_gradient_is_that_of_finite_differences(model: DiffusionModel, per_step: bool) -> None:
    task = DenoisingTask(model, batch_size=2)
    draws = [
        (step, normal(3, *model.sample_shape, seed=step), normal(3, *model.sample_shape, seed=9)) for step in range(2)
    ]
    vectors, along = (normal(STEPS if per_step else 1, 16, seed=seed) for seed in (1, 2))
    _, slope = task.gradient(vectors, draws, scale=0.5)
    ahead, behind = (task.gradient(vectors + e * along, draws, scale=0.5)[0] for e in (1e-5, -1e-5))
    assert float((slope * along).sum()) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)
    if per_step:
        assert slope[2].abs().max() == 0 and (slope[:2].abs().amax(dim=1) > 0).all()


def test_the_pieces_of_a_batch_make_no_difference(model: DiffusionModel) -> None:
    draws = [(0, normal(5, *model.sample_shape, seed=1), normal(5, *model.sample_shape, seed=2))]
    vector = normal(1, 16, seed=3)
    (whole, slope), (parts, other) = (DenoisingTask(model, size).gradient(vector, draws) for size in (5, 2))
    assert whole == pytest.approx(parts)
    torch.testing.assert_close(slope, other)


def test_the_spread_of_h_and_the_noise_do_not_depend_on_the_batch_size(model: DiffusionModel) -> None:
    x_0, spreads, after = normal(5, *model.sample_shape, seed=1), list[float](), list[float]()
    for size in (5, 2):
        generator = torch.Generator().manual_seed(0)
        spreads.append(DenoisingTask(model, size).spread(x_0, range(STEPS), generator))
        after.append(float(torch.randn((), generator=generator)))
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-9) and after[0] == after[1]
    generator, variances = torch.Generator().manual_seed(0), list[Tensor]()
    for t in model.process.timesteps:
        x_t = model.process.add_noise(x_0, torch.randn(x_0.shape, generator=generator), t)
        variances.append(model.denoiser.encode(x_t, t).h.detach().var())
    assert spreads[0] == pytest.approx(float(torch.stack(variances).mean().sqrt()), rel=1e-5)


@pytest.mark.parametrize("per_step", [False, True])
def test_it_learns_one_vector_for_all_positions(tiny_model: DiffusionModel, per_step: bool) -> None:
    x_0 = clean_samples(tiny_model, range(4), Sampler())
    found = self_discovered(
        tiny_model, x_0, name="bright", updates=5, rate=0.2, batch=2, per_step=per_step, seeds=range(4)
    )
    found.check(tiny_model, eta=1.0)
    assert (found.meta.names, found.meta.unit, found.meta.seeds) == (("bright",), "learnt offset", (0, 1, 2, 3))
    assert found.meta.report["loss_with"] < found.meta.report["loss_without"]
    vectors = by_position(found.directions[0], tiny_model.h_shape)
    assert (vectors == vectors[:, :1]).all()
    same = bool((vectors == vectors[:1]).all())
    assert same != per_step and vectors.abs().max() > 0


def test_clean_samples_are_those_of_the_sampler(tiny_model: DiffusionModel) -> None:
    sampler = Sampler(eta=0.5, batch_size=2)
    x_0 = clean_samples(tiny_model, [3, 4, 5], sampler)
    torch.testing.assert_close(
        x_0, sample(tiny_model, tiny_model.latents([3, 4, 5]), sampler=sampler).x_0, atol=1e-4, rtol=1e-4
    )


def test_positions_of_tokens_and_of_images() -> None:
    image, tokens = torch.arange(24.0).reshape(2, 3, 4), torch.arange(24.0).reshape(6, 4)
    assert by_position(image, (2, 3, 4))[5].tolist() == [5, 17]
    assert by_position(tokens, (6, 4)).equal(tokens)
    assert by_position(torch.zeros(7, 5), (5,)).shape == (7, 1, 5)
    for shape in ((2, 3, 4), (6, 2), (2,)):
        spread = everywhere(torch.tensor([[1.0, 2.0]]), shape)
        assert spread.shape == (1, *shape)
        assert (by_position(spread, shape) == torch.tensor([1.0, 2.0])).all()


def test_epochs_visit_every_row_alike() -> None:
    rows = epochs(5, 3, torch.Generator().manual_seed(0))
    seen = [next(rows) for _ in range(10)]
    assert all(len(batch) == 3 for batch in seen)
    assert [sum(batch.count(row) for batch in seen) for row in range(5)] == [6] * 5


def test_images_of_another_shape_and_examples_of_all_samples_are_refused(model: DiffusionModel) -> None:
    with pytest.raises(InputError, match=r"images must be \(n, 3, 8, 8\), got \(2, 3, 4, 4\)"):
        self_discovered(model, torch.zeros(2, 3, 4, 4), name="none")
    few = {"name": "self_discovered", "k": 6, "num_samples": 10}
    with pytest.raises(InputError, match="k must be at most half"):
        settings_of(few)
    assert settings_of(few | {"prompt": "a smiling man"}).count() == 1
