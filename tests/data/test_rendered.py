"""Rendered data sets are painted once, and read back as they were."""

from pathlib import Path

import torch

from hspace.data.portraits import labels, render, sample_factors
from hspace.data.rendered import rendered


def test_images_and_labels_belong_together_and_survive_the_disk(tmp_path: Path) -> None:
    painted = rendered(300, 16, seed=5, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    read = rendered(300, 16, seed=5, cache_dir=tmp_path)
    assert path.stat().st_mtime_ns == stamp and torch.equal(painted.images, read.images)
    factors = sample_factors(torch.Generator().manual_seed(5), 300)
    assert torch.equal(read.labels, labels(factors))
    assert (read.batch(torch.tensor([299])) - render(factors, 16)[299:]).abs().max() < 1 / 255
