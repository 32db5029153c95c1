"""Rendered data sets are painted once, and read back as they were."""

from pathlib import Path

import torch

from hspace.worlds.portraits.faces import PORTRAITS, render, resample_expression, resample_scene, sample_factors
from hspace.worlds.rendered import rendered, rendered_pairs


def test_images_and_labels_belong_together_and_survive_the_disk(tmp_path: Path) -> None:
    painted = rendered(PORTRAITS, 300, 16, seed=5, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    read = rendered(PORTRAITS, 300, 16, seed=5, cache_dir=tmp_path)
    assert path.stat().st_mtime_ns == stamp and torch.equal(painted.images, read.images)
    factors = sample_factors(torch.Generator().manual_seed(5), 300)
    assert torch.equal(read.labels, PORTRAITS.labels(factors))
    assert (read.batch(torch.tensor([299])) - render(factors, 16)[299:]).abs().max() < 1 / 255


def test_other_expressions_are_those_of_the_same_portraits(tmp_path: Path) -> None:
    portraits = rendered(PORTRAITS, 20, 16, seed=5, cache_dir=tmp_path)
    others = rendered(PORTRAITS, 20, 16, seed=5, cache_dir=tmp_path, varied=True)
    generator = torch.Generator().manual_seed(5)
    factors = sample_factors(generator, 20)
    expected = resample_expression(factors, generator)
    assert torch.equal(portraits.labels, PORTRAITS.labels(factors)) and torch.equal(
        others.labels, PORTRAITS.labels(expected)
    )
    assert (others.batch(torch.arange(20)) - render(expected, 16)).abs().max() < 1 / 255
    assert len(list(tmp_path.iterdir())) == 2


def test_pairs_show_one_person_in_two_scenes() -> None:
    first, second = rendered_pairs(PORTRAITS, 5, 16, 3, "identity")
    generator = torch.Generator().manual_seed(3)
    people = sample_factors(generator, 5)
    for view in (first, second):
        exact = render(resample_scene(people, generator), 16)
        assert (view / 127.5 - 1 - exact).abs().max() < 1 / 255
    assert not torch.equal(first, second)
