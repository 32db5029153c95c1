import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.random import random
from hspace.directions.record import Directions, DirectionsMeta
from hspace.types import InputError


@pytest.fixture
def like(tiny_model: DiffusionModel) -> Directions:
    meta = DirectionsMeta(
        space="h",
        provenance=tiny_model.provenance(eta=1.0),
        model_id="tiny",
        method="pca",
        names=("component 0", "component 1"),
        unit="std",
        seeds=(0, 1),
    )
    scale = torch.tensor([[1.0, 2, 3], [10, 20, 30]])[..., None, None, None]
    values = torch.rand(2, 3, *tiny_model.h_shape, generator=torch.Generator().manual_seed(0))
    return Directions(values * scale, meta)


def test_norms_match_at_every_step(like: Directions, tiny_model: DiffusionModel) -> None:
    control = random(like, seed=0)
    assert (control.norms() / like.norms() - 1).abs().max() < 1e-5
    control.check(tiny_model)
    assert control.meta.unit == "std" and control.meta.method == "random" and control.meta.seeds == ()


def test_directions_are_gaussian_and_unrelated(like: Directions) -> None:
    values = random(like, seed=0).directions.flatten(2)
    unit = values / values.std(dim=-1, keepdim=True)
    assert unit.mean().abs() < 0.05
    assert abs(float((unit**4).mean()) - 3) < 0.3
    rows = torch.nn.functional.normalize(values.flatten(0, 1), dim=1)
    assert (rows @ rows.T - torch.eye(6)).abs().max() < 0.15


def test_seed_is_the_only_source_of_chance(like: Directions) -> None:
    first = random(like, seed=0)
    torch.manual_seed(5)
    assert torch.equal(random(like, seed=0).directions, first.directions)
    # Seeds that agree in their low 32 bits are different seeds.
    assert not torch.equal(random(like, seed=2**32).directions, first.directions)


def test_bad_seed_is_named(like: Directions) -> None:
    with pytest.raises(InputError, match="seeds must be integers >= 0, got -1"):
        random(like, seed=-1)
