from collections.abc import Sequence

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import adding, sample
from hspace.types import InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eta": 2.0}, r"eta must be in \[0, 1\], got 2.0"),
        ({"eta": [0.5, float("nan")]}, "eta must be in .*, got nan"),
        ({"injection": "both"}, "injection must be one of symmetric, asyrp, got both"),
        ({"start": -1}, "0 <= start < stop, got -1"),
        ({"start": 2, "stop": 2}, "0 <= start < stop, got 2 to 2"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_a_value_out_of_range_is_refused(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampler(**values)


def test_eta_of_steps_is_a_value_like_any_other() -> None:
    assert Sampler(eta=[1.0, 0.5]) == Sampler(eta=(1.0, 0.5)) and len({Sampler(eta=[1.0]), Sampler(eta=(1.0,))}) == 1


@pytest.mark.parametrize("injection", ["symmetric", "asyrp"])
@pytest.mark.parametrize(("start", "stop", "edited"), [(0, None, [0, 1, 2]), (1, None, [1, 2]), (0, 2, [0, 1])])
def test_h_is_edited_in_the_window_only(
    tiny_model: DiffusionModel, injection: str, start: int, stop: int | None, edited: Sequence[int]
) -> None:
    latents, seen = tiny_model.latents([0, 1]), []
    offsets = torch.randn(1, 3, *tiny_model.h_shape, generator=torch.Generator().manual_seed(0))
    windowed = torch.zeros_like(offsets)
    windowed[:, edited] = offsets[:, edited]
    add = adding(offsets)

    def edit(step, encoded):
        seen.append(step)
        return add(step, encoded)

    images = sample(tiny_model, latents, sampler=Sampler(0.5, injection, start, stop), edit=edit).x_0
    assert seen == edited
    assert torch.equal(images, sample(tiny_model, latents, sampler=Sampler(0.5, injection), delta_h=windowed).x_0)
    assert not torch.equal(images, sample(tiny_model, latents, sampler=Sampler(0.5)).x_0)
