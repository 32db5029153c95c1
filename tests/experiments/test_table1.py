"""Table I from scores that are known exactly, and its way through a file and back."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from hspace.cli import main
from hspace.commands.run import load
from hspace.evaluation.levels import Level
from hspace.experiments import table1
from hspace.experiments.equal_effect import Draw
from hspace.experiments.table1 import KINDS, Scores
from hspace.output.tables import write_csv
from hspace.runs.config import Config
from hspace.runs.parsing import parse
from hspace.system.files import package_path

NAMES, JUDGED = ("smile", "hat"), ("smile", "age", "hat")
STEPS = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2])
"""How the repeats differ in the effect on the smile: by nothing in the mean."""


def known_scores(effects: dict[str, list[list[float]]]) -> Scores:
    """Five repeats of 12 samples with a spread of exactly 2 in all columns; edit j adds row j of `effects` of it."""
    column = torch.tensor([-1.0, 0.0, 1.0]).repeat(20)
    column = column / column.std() * 2
    original = torch.stack([column, column.roll(1), -column], dim=1).reshape(5, 12, 3)
    edited = {}
    for kind, rows in effects.items():
        added = torch.tensor(rows).repeat(5, 1, 1)
        added[:, :, 0] += STEPS[:, None]
        edited[kind] = original[:, None] + 2 * added[:, :, None]
    seen = {"original": [Level(1.0, 0.5, True), Level(2.0, math.nan, False)]}
    strengths = {kind: [1.0, 2.0] for kind in KINDS}
    return Scores(NAMES, JUDGED, (False,) * 3, original, edited, 10, strengths, seen)


@pytest.fixture
def scores() -> Scores:
    return known_scores(
        {
            "original": [[0.5, 0.0, 1.0], [0.25, 0.5, 0.75]],
            "disentangled": [[0.5, 0.0, -0.1], [0.0, 0.0, 1.0]],
            "equal_strength": [[0.25, 0.0, 0.0], [0.0, 0.0, 0.5]],
        }
    )


@pytest.fixture
def config(default_config: Config, tmp_path: Path) -> Config:
    return replace(default_config, output_dir=tmp_path)


def test_effects_are_signed_means_over_draws_in_sd_of_the_unedited_samples(config: Config, scores: Scores) -> None:
    findings = table1.tabulate(config, scores).findings
    found = findings["effects"]["original"]
    assert np.array(found["effect"]) == pytest.approx(np.array([[0.5, 1.0], [0.25, 0.75]]))
    # Student's t of five draws whose sd is .158.
    half = 2.776 * 0.15811 / 5**0.5
    assert (found["low"][0][0], found["high"][0][0]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-3)
    assert found["n"] == [[5, 5], [5, 5]] and (findings["samples"], findings["seeds"]) == (12, 5)


def test_the_intended_attribute_and_both_selectivities(config: Config, scores: Scores) -> None:
    result = table1.tabulate(config, scores)
    assert result.findings["strongest"] == {"original": 1, "disentangled": 2, "equal_strength": 2}
    few, all_judged = (result.findings[name]["original"] for name in ("selectivity", "selectivity of all judged"))
    shares = [(0.5 + step) / (1.5 + step) for step in STEPS.tolist()]
    assert few[0].value == pytest.approx(np.mean(shares), abs=1e-3) and few[0].n == 5
    assert all_judged[0].value == pytest.approx(few[0].value) and all_judged[1].value < few[1].value
    assert "1 of 2 rows before and 2 of 2 after" in result.conclusion
    assert all(path.is_file() for path in result.figures.values())


def test_the_table_comes_back_from_its_scores(config: Config, scores: Scores, tmp_path: Path) -> None:
    scores.original[2, 3, 1] = torch.nan  # an attribute that is hidden
    path = write_csv(table1.samples_table(scores), tmp_path / "scores.csv")
    calibrated = json.loads(json.dumps(table1.tabulate(config, scores).findings["calibrated"]))
    kinds = dict.fromkeys(JUDGED, "continuous")
    with path.open() as file:
        again = table1.from_samples(list(csv.DictReader(file)), NAMES, kinds, 10, calibrated)
    assert torch.allclose(again.original, scores.original, atol=1e-4, equal_nan=True) and again.judged == JUDGED
    for kind in KINDS:
        assert torch.allclose(again.edited[kind], scores.edited[kind], atol=1e-4), kind
    assert again.strengths == scores.strengths
    first, second = again.calibrated["original"]
    assert first == scores.calibrated["original"][0]
    assert math.isnan(second.effect) and not second.reached
    assert len(table1.tabulate(config, again).tables["calibrations"].rows) == 2


def test_any_method_of_the_comparison_can_take_the_place_of_eq_12(
    tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "experiment=table1", "study.attributes=[skin,age]", "study.index=24", "study.examples=6", "study.target=0.1",
        "study.repeats=1", "evaluation.num_samples=10", "evaluation.reference_samples=12",
        "evaluation.strength_samples=10", "diffusion.num_steps=2", "tracking.mode=disabled", "device=cpu",
        "batch_size=64", f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}",
        f"output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    for name, reason in (
        ("PCA", "a method that aims at an attribute, and PCA does not"), ("*", "study.method must be one method"),
        ("PCB", "unknown study.method 'PCB': did you mean 'PCA'?"), ("transport", "transport finds an operator"),
    ):  # fmt: skip
        assert main([*words, f"study.method={name}"]) == 2
        assert reason in capsys.readouterr().err
        assert name == "transport" or not (tmp_path / "cache").exists(), "what the name alone tells is said at once"
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        lab = load(parse(compose("config", overrides=[*words, "study.method=linear boundary"])))
    found, before = table1._direction(lab, table1._method("linear boundary"), "skin"), lab.attribute("skin")
    expected = lab.discover(name="boundary", attribute="skin", k=6, num_samples=24)
    assert torch.equal(found.directions, expected.directions)
    draw = Draw(lab, 0, 3.0)
    lengths = [float(table1._change(draw, each).norm()) for each in (before, found)]
    assert lengths == pytest.approx([3.0, 3.0], rel=1e-5), "strengths of both are in spreads of the samples"
    assert main([*words, "study.method=linear boundary"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    calibrated, strengths = record["findings"]["calibrated"], record["findings"]["strengths"]
    assert [each[0] for each in calibrated["original"]] == strengths["original"] == strengths["equal_strength"]
    assert [each[0] for each in calibrated["disentangled"]] == strengths["disentangled"]
