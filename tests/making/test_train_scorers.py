"""The training of the scorers, a few steps each."""

import json
from pathlib import Path

import pytest
import torch
import train_scorers

from hspace.types import InputError
from hspace.worlds.portraits.faces import JUDGED, REGIONS
from hspace.worlds.rendered import Rendered

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


def test_what_is_found_beside_a_region_counts_against_it() -> None:
    true = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    true[:, :, :2] = True
    found = true.clone()
    found[:, 1] = True  # all of it, and as much beside it
    found[0, 2] = False  # in one of two pictures
    assert train_scorers.intersection_over_union(found, true).tolist() == [1.0, 0.5, 0.5]


def test_what_is_hidden_costs_nothing() -> None:
    labels = torch.zeros(2, len(JUDGED))
    output, visible = labels.clone(), torch.ones(2, len(JUDGED), dtype=torch.bool)
    brow = [attribute.id for attribute in JUDGED].index("brow")
    output[0, brow] = 5.0
    visible[0, brow] = False
    loss = train_scorers.AttributeLoss.of(JUDGED)
    exact = loss(torch.zeros_like(output), labels, visible)
    assert torch.equal(loss(output, labels, visible), exact)
    assert loss(output, labels, torch.ones_like(visible)) > exact


def test_the_loss_is_the_mean_over_what_is_seen_of_either_kind() -> None:
    generator = torch.Generator().manual_seed(0)
    output, labels = torch.randn(2, 5, len(JUDGED), generator=generator)
    binary = torch.tensor([attribute.kind == "binary" for attribute in JUDGED])
    labels = torch.where(binary, (labels > 0).float(), labels)
    visible = torch.rand(5, len(JUDGED), generator=generator) < 0.7
    entropies, errors = [], []
    for i, j in visible.nonzero().tolist():
        if binary[j]:
            p = torch.sigmoid(output[i, j] if labels[i, j] else -output[i, j])
            entropies.append(-p.log())
        else:
            spread = (JUDGED[j].high - JUDGED[j].low) / 3.5
            errors.append(((output[i, j] - labels[i, j]) / spread) ** 2)
    expected = torch.stack(entropies).mean() + torch.stack(errors).mean()
    torch.testing.assert_close(train_scorers.AttributeLoss.of(JUDGED)(output, labels, visible), expected)


def test_a_network_is_cooled_where_it_is_too_sure_and_never_made_surer() -> None:
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 3, generator=generator) * 2
    labels = (torch.rand(honest.shape, generator=generator) < honest.sigmoid()).float()
    # The first is three times too sure where it is seen, and wrong where it is hidden; the second makes no error.
    logits = torch.stack([3 * honest[:, 0], (2 * labels[:, 1] - 1) * 3, honest[:, 2]], dim=1)
    visible = torch.rand(honest.shape, generator=generator) < 0.7
    logits[~visible[:, 0], 0] *= -9
    data = Rendered(torch.zeros(0, dtype=torch.uint8), labels, visible)
    found = train_scorers.fit_temperature(logits, data, torch.tensor([True, True, False]))
    assert found[0] == pytest.approx(3, rel=0.05) and found[1:].tolist() == [1, 1]
