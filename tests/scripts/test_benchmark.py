"""The benchmark runs on a tiny model; how fast it is, is not tested."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hspace.checkpoints import DiffusionModel

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(SCRIPTS)
    spec = importlib.util.spec_from_file_location("benchmark", SCRIPTS / "benchmark.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("comparators", None)


def test_the_file_has_the_agreed_form(
    benchmark: Any, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("K", 1), ("SHORT_PAIRS", 2), ("LONG_PAIRS", 1)):
        monkeypatch.setattr(benchmark, name, value)
    arguments = ["--rows", "asyrp,jacobian_svds", "--model", str(tiny_pipeline_dir), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments, "--threads", "1"])
    benchmark.main()
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(written) == {"machine", "versions", "commit", "rows"}
    assert [row["name"] for row in written["rows"]] == ["asyrp", "jacobian_svds"]
    for row in written["rows"]:
        assert set(row) == {"name", "ours_s", "other_s", "ratio", "repetitions", "limit", "note"}
        assert row["ratio"] > 0 and row["repetitions"] in (1, 2)
    assert "images agree to 0e+00" in written["rows"][0]["note"]
    assert (tmp_path / "benchmark.md").read_text().count("|") > 20


def test_the_comparators_do_the_same_work(benchmark: Any, tiny_model: DiffusionModel) -> None:
    """They reach the reference subspace where they are given the iterations for it."""
    step = benchmark.OneStep.of(tiny_model)
    published = sys.modules["comparators"].published_directions(tiny_model, step.x_t, step.t, 1, 500, 1e-12)
    theirs, _ = sys.modules["comparators"].svds_directions(step.operator(), 1)
    reference = step.reference[:1].flatten()
    for found in (published, theirs):
        assert abs(abs(float(found.flatten() @ reference)) - 1) <= 1e-4


def test_an_unknown_row_is_refused(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--rows", "jacobien"])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()
    assert "no row jacobien" in capsys.readouterr().err
