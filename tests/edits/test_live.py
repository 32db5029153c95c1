"""Live prompts against a loop by hand, on a real (tiny) pipeline of prompts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.edits.live import live_prompt, without
from hspace.types import InputError


@pytest.fixture(scope="module")
def model(tiny_sd_dir: Path) -> DiffusionModel:
    return load_model(str(tiny_sd_dir), num_steps=2, device="cpu", prompt="a man", guidance=3.0)


def test_it_adds_what_h_has_under_the_prompt_and_not_under_none(model: DiffusionModel) -> None:
    latents, still = model.latents([3, 4]), Sampler(eta=0.0, batch_size=2)
    process, x_t = model.process, latents.x_T
    concept, nothing = (model.with_prompt(each, 1.0).cond for each in ("a smile", ""))
    for t, t_prev in process.pairs():
        encoded = model.denoiser.encode(x_t, t, model.cond)
        h_e, h_0 = (model.denoiser.encode(x_t, t, cond).h for cond in (concept, nothing))
        along = (h_e * h_0).sum(1, keepdim=True) / h_0.square().sum(1, keepdim=True)
        output = model.denoiser.decode(encoded.h + 0.7 * (h_e - along * h_0), encoded)
        x_t, _ = process.posterior(process.to_x0(output, x_t, t), process.to_eps(output, x_t, t), t, t_prev, 0.0)
    edited = live_prompt(model, latents, "a smile", strengths=[0.7], sampler=still)
    torch.testing.assert_close(edited[:, 0], model.codec.decode(x_t).float(), atol=1e-4, rtol=1e-3)
    assert (edited[:, 0] - sample(model, latents, sampler=still).x_0).abs().max() > 1e-4


def test_no_strength_or_step_changes_nothing(model: DiffusionModel) -> None:
    latents = model.latents([3])
    plain = sample(model, latents).x_0
    assert torch.equal(live_prompt(model, latents, "a smile", strengths=[0.0])[:, 0], plain)
    kept = replace(latents, residual=torch.full_like(latents.x_T, 0.1))
    assert torch.equal(live_prompt(model, kept, "a smile", strengths=[0.0])[:, 0], sample(model, kept).x_0)
    late = live_prompt(model, latents, "a smile", strengths=[1.0], sampler=Sampler(start=1))
    early = live_prompt(model, latents, "a smile", strengths=[1.0], sampler=Sampler(start=0, stop=1))
    assert not torch.equal(late, early)


def test_what_is_added_has_no_part_of_the_empty_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((5, 2, 3), (4, 5), (5,)):
        h, other = (torch.randn(2, *shape, generator=generator) for _ in range(2))
        rest, axis = without(h, other, shape), 1 if len(shape) == 3 else -1
        torch.testing.assert_close((rest * other).sum(axis), torch.zeros_like(rest.sum(axis)), atol=1e-5, rtol=0)
        torch.testing.assert_close(without(rest, other, shape), rest)


def test_what_has_no_live_prompt_is_refused(model: DiffusionModel, tiny_model: DiffusionModel) -> None:
    with pytest.raises(InputError, match="takes none"):
        live_prompt(tiny_model, tiny_model.latents([1]), "a smile", strengths=[1.0])
    with pytest.raises(InputError, match="'a smile' for both"):
        live_prompt(model, model.latents([1]), "a smile", strengths=[1.0], empty="a smile")
    with pytest.raises(InputError, match="at least one strength"):
        live_prompt(model, model.latents([1]), "a smile", strengths=[])
