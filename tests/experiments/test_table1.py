"""Table I from scores that are known exactly, and its way through a file and back."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hspace.experiments import table1
from hspace.experiments.table1 import KINDS, Scores
from hspace.metrics.interval import Interval
from hspace.output.tables import write_csv
from hspace.runs.config import Config

NAMES = ("smile", "hat")


def known_scores(effects: dict[str, list[list[float]]]) -> Scores:
    """Two repeats of 12 samples with a spread of exactly 2 in both columns; edit j adds row j of `effects` of it."""
    column = torch.tensor([-1.0, 0.0, 1.0]).repeat(8)
    column = column / column.std() * 2
    original = torch.stack([column, -column], dim=1).reshape(2, 12, 2)
    added = {kind: 2 * torch.tensor(rows)[None, :, None] for kind, rows in effects.items()}
    edited = {kind: original[:, None] + each for kind, each in added.items()}
    seen = {"original": (Interval(0.5, 0.4, 0.6, 200), Interval(0.48, math.nan, math.nan, 8))}
    return Scores(NAMES, (False, False), original, edited, 10, {kind: (1.0, 2.0) for kind in KINDS}, seen)


@pytest.fixture
def scores() -> Scores:
    return known_scores(
        {
            "original": [[0.5, 1.0], [0.25, 0.75]],
            "disentangled": [[0.5, -0.1], [0.0, 1.0]],
            "equal_strength": [[0.25, 0.0], [0.0, 0.5]],
        }
    )


@pytest.fixture
def config(default_config: Config, tmp_path: Path) -> Config:
    return replace(default_config, output_dir=tmp_path)


def test_effects_are_signed_and_in_sd_of_the_unedited_samples(config: Config, scores: Scores) -> None:
    findings = table1.tabulate(config, scores).findings
    assert np.array(findings["original"]) == pytest.approx(np.array([[0.5, 1.0], [0.25, 0.75]]))
    assert findings["disentangled"][0] == pytest.approx([0.5, -0.1])
    assert findings["equal_strength"]["disentangled"][1] == pytest.approx([0.0, 0.5])
    assert findings["original_sd"][0] == pytest.approx([0.0, 0.0], abs=1e-6), "both repeats have the same effects"
    assert (findings["samples"], findings["seeds"], findings["num_steps"]) == (12, 2, 10)


def test_the_intended_attribute_and_selectivity(config: Config, scores: Scores) -> None:
    result = table1.tabulate(config, scores)
    assert result.findings["strongest"] == {"original": 1, "disentangled": 2, "equal_strength": 2}
    shares = {kind: [each[0] for each in cells] for kind, cells in result.findings["selectivity"].items()}
    assert shares["original"] == pytest.approx([1 / 3, 0.75])
    assert shares["disentangled"] == pytest.approx([0.5 / 0.6, 1.0])
    assert "1 of 2 rows before and 2 of 2 after" in result.conclusion
    assert all(path.is_file() for path in result.figures.values())


def test_the_table_comes_back_from_its_scores(config: Config, scores: Scores, tmp_path: Path) -> None:
    path = write_csv(table1.samples_table(scores), tmp_path / "scores.csv")
    calibrated = json.loads(json.dumps(table1.tabulate(config, scores).findings["calibrated"]))
    with path.open() as file:
        again = table1.from_samples(list(csv.DictReader(file)), NAMES, (False, False), 10, calibrated)
    assert torch.allclose(again.original, scores.original, atol=1e-4)
    for kind in KINDS:
        assert torch.allclose(again.edited[kind], scores.edited[kind], atol=1e-4), kind
    assert again.strengths == scores.strengths
    assert again.calibrated["original"][0] == scores.calibrated["original"][0]
    assert math.isnan(again.calibrated["original"][1].low) and again.calibrated["original"][1].n == 8
    assert "annotator's effect" in table1.tabulate(config, again).tables["original"].columns
