"""The training of the scorers, a few steps each."""

import json
from pathlib import Path

import pytest
import torch
import train_scorers

from hspace.types import InputError
from hspace.worlds.portraits.faces import JUDGED, REGIONS

TINY = [
    "train_images=16", "held_out.images=32", "batch_size=8", "steps=2", "precision=float32", "threads=1",
    "regions.train_images=16", "regions.steps=2",
    "identity.train_images=16", "identity.steps=2", "likeness.train_images=16", "likeness.steps=2",
]  # fmt: skip


def test_every_scorer_is_trained_measured_and_saved(tmp_path: Path) -> None:
    train_scorers.main([*TINY, f"output={tmp_path / 'weights'}", f"data={tmp_path / 'data'}"])
    configs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("weights/*/config.json")}
    assert set(configs) == set(train_scorers.TRAININGS)
    for name in ("annotator", "judge"):
        assert configs[name]["attributes"] == [attribute.id for attribute in JUDGED]
        assert len(configs[name]["held_out"]) == len(JUDGED) and configs[name]["size"] == 64
    assert configs["regions"]["attributes"] == list(REGIONS)
    assert all(0 <= configs[name]["held_out"]["true_accept_rate"] <= 1 for name in ("identity", "likeness"))
    assert all((tmp_path / "weights" / name / "model.safetensors").exists() for name in configs)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("scorers=[juge]", "unknown scorer of portraits 'juge': did you mean 'judge'?"),
        ("judge.artefacts=noise", "unknown judge.artefacts 'noise'"),
        ("threads=many", "threads must be auto or a number above 0, got many"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(tmp_path: Path, override: str, line: str) -> None:
    with pytest.raises(InputError, match=line.replace("?", r"\?")):
        train_scorers.main([*TINY, override, f"output={tmp_path / 'weights'}", f"data={tmp_path / 'data'}"])
    assert not list(tmp_path.iterdir())


def test_what_is_hidden_costs_nothing() -> None:
    labels = torch.zeros(2, len(JUDGED))
    output, visible = labels.clone(), torch.ones(2, len(JUDGED), dtype=torch.bool)
    brow = [attribute.id for attribute in JUDGED].index("brow")
    output[0, brow] = 5.0
    visible[0, brow] = False
    exact = train_scorers.attribute_loss(torch.zeros_like(output), labels, visible, JUDGED)
    assert torch.equal(train_scorers.attribute_loss(output, labels, visible, JUDGED), exact)
    assert train_scorers.attribute_loss(output, labels, torch.ones_like(visible), JUDGED) > exact
