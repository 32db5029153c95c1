"""Prompt pairs against differences that are made by hand, on a real (tiny) pipeline of prompts."""

from pathlib import Path

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.prompt_pairs import prompt_pairs
from hspace.runs.parsing import settings_of
from hspace.types import InputError

SAMPLER = Sampler(eta=0.5, batch_size=2)


@pytest.fixture(scope="module")
def model(tiny_sd_dir: Path) -> DiffusionModel:
    return load_model(str(tiny_sd_dir), num_steps=2, device="cpu", prompt="a man", guidance=3.0)


@pytest.mark.parametrize("average", [False, True])
def test_it_is_the_mean_difference_of_pairs_of_the_same_noise(model: DiffusionModel, average: bool) -> None:
    found = prompt_pairs(model, "a smile on a man", [3, 4, 5], average=average, sampler=SAMPLER)
    found.check(model, eta=0.5)
    assert (found.meta.names, found.meta.unit, found.meta.seeds) == (("a smile on a man",), "difference", (3, 4, 5))
    latents, differences = model.latents([3, 4, 5]), []
    other = model.with_prompt("a smile on a man", 3.0)
    for row in range(3):
        with_concept, without = (
            sample(each, latents.select([row]), sampler=SAMPLER, record_h=True).h for each in (other, model)
        )
        assert with_concept is not None and without is not None
        differences.append(with_concept[0] - without[0])
    expected = torch.stack(differences).mean(dim=0)
    if average:
        expected = expected.mean(dim=(2, 3), keepdim=True).expand(2, *model.h_shape)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found.directions[0], expected, atol=1e-5, rtol=1e-3)


def test_a_prompt_of_several_lines_has_a_name_of_one(model: DiffusionModel) -> None:
    prompt = "a man\nwith a smile"
    found = prompt_pairs(model, prompt, [3], sampler=SAMPLER)
    assert found.meta.names == ("a man\\nwith a smile",) and found.meta.settings == {"prompt": prompt}
    long = prompt_pairs(model, 300 * "é", [3], sampler=SAMPLER)
    assert long.meta.names == (200 * "é",)


def test_what_has_no_pairs_is_refused(model: DiffusionModel, tiny_model: DiffusionModel) -> None:
    with pytest.raises(InputError, match="takes none"):
        prompt_pairs(tiny_model, "a smile", [1])
    with pytest.raises(InputError, match="'a man' for both"):
        prompt_pairs(model, "a man", [1])
    with pytest.raises(InputError, match=r"method\.prompt is missing"):
        settings_of({"name": "prompt_pairs"})
