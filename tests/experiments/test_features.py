"""Sparse features beside components, on a tiny model."""

import csv
import json
from pathlib import Path

import pytest

from hspace.cli import main
from hspace.experiments.features import ACTIVE


def test_each_number_of_features_is_beside_as_many_components(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    words = [
        "experiment=features", "method.num_samples=10", "method.updates=3", "method.expansion=8", "method.k=2",
        "diffusion.num_steps=2", "evaluation.num_samples=2", "evaluation.reference_samples=4", "batch_size=64",
        "evaluation.calibration_samples=4", "tracking.mode=disabled", "device=cpu",
        f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    assert main(words) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    with (tmp_path / "out" / "tables" / "features.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["active"]) for row in rows] == list(ACTIVE)
    by_components = [float(row["by components"]) for row in rows]
    assert by_components == sorted(by_components) and 0 < by_components[0] < 1
    for row in rows:
        report = record["findings"]["reports"][row["active"]]
        assert float(row["explained variance"]) == pytest.approx(report["explained_variance"], rel=1e-3)
        assert report["active"] <= int(row["active"])
    assert (tmp_path / "out" / "figures" / "features.png").is_file()


def test_another_method_has_no_such_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment=features", "tracking.mode=disabled", "device=cpu", f"output_dir={tmp_path / 'out'}"]
    assert main([*words, "method.named=false", f"cache_dir={tmp_path}"]) == 2
    assert "takes its numbers from method=sae with method.named=true" in capsys.readouterr().err
