"""Directions to which the first samples suggest no name are not edited on the second ones, and names stay the same."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from hspace.commands.run import load
from hspace.metrics.names import name_edits, suggested
from hspace.runs import lab as module
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.system.files import package_path

N, STRENGTH = 24, 1.0


@pytest.fixture
def lab(tiny_pipeline_dir: Path, tmp_path: Path) -> Lab:
    words = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", "diffusion.num_steps=2"]
    words += [f"evaluation.calibration_samples={N}", "evaluation.reference_samples=24", "device=cpu"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return load(parse(compose("config", overrides=words)))


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each call that edits samples, with the unedited ones."""
    counts: list[int] = []
    apply_changes = module.apply_changes

    def counted(model, latents, changes, **options):
        counts.append(len(latents.seeds) * len(changes))
        return apply_changes(model, latents, changes, **options)

    monkeypatch.setattr(module, "apply_changes", counted)
    return counts


def test_names_are_those_of_both_halves_and_cost_only_what_may_be_named(lab: Lab, edited: list[int]) -> None:
    shape = (3, 2, *lab.model.h_shape)
    vectors = 30 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    vectors[1] = 0
    names = lab.name(vectors, STRENGTH)
    half, total = N // 2, sum(edited)
    named = {str(j): vector for j, vector in enumerate(vectors)}
    whole = lab.sweep(named, (STRENGTH, -STRENGTH), seeds=lab.seeds("calibration"), by=lab.annotator)
    halves = [whole.odd_effects(each).select(lab.attributes) for each in (slice(half), slice(half, None))]
    assert names == name_edits(*halves)
    sure = suggested(halves[0])
    assert 0 < len(sure) < 3 and 1 not in sure
    assert total == half * (1 + 2 * 3) + half * (1 + 2 * len(sure))
    assert any(names) and names[1] is None


def test_what_nothing_moves_is_edited_on_the_first_half_alone(lab: Lab, edited: list[int]) -> None:
    assert lab.name(torch.zeros(1, 2, *lab.model.h_shape), STRENGTH) == [None]
    assert sum(edited) == N // 2 * 3
