"""The share that a swap carries is the slope of its change against the difference of donor and sample."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from card.subject import subject_of
from card.swapped import carried_share, swapped_shares

from hspace.diffusion.checkpoints import load_model
from hspace.scorers.embedded import load_judge


def test_the_share_is_that_of_the_donor() -> None:
    own, donor = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    assert carried_share(own, donor, own) == 0 and abs(carried_share(own, donor, donor) - 1) < 1e-6
    assert abs(carried_share(own, donor, own + 0.3 * (donor - own)) - 0.3) < 1e-6
    assert math.isnan(carried_share(own, own, donor))


def test_every_attribute_and_the_background_are_read(tiny_pipeline_dir: Path) -> None:
    model, judge = load_model(str(tiny_pipeline_dir), num_steps=2), load_judge("portraits")
    shares = swapped_shares(model, judge, subject_of("portraits"), 3, batch_size=2)
    assert set(shares) == {*judge.attributes, "background"} and all(map(math.isfinite, shares.values()))
    without = swapped_shares(model, judge, replace(subject_of("portraits"), background=None), 3, batch_size=2)
    assert set(without) == set(judge.attributes)
