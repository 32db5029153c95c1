"""The benchmark runs on a tiny model; how fast it is, is not tested."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.runs.errors import guarded
from hspace.types import InputError

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(SCRIPTS)
    names = ("benchmark", "rows", "jobs", "gpu_rows", "measuring", "comparators", "architectures", "transformer_rows")
    yield importlib.import_module("benchmark")
    for name in names:
        sys.modules.pop(name, None)


def run(benchmark: Any, monkeypatch: pytest.MonkeyPatch, rows: str, model: str, *options: str) -> None:
    for module, name, value in (
        ("rows", "K", 1),
        ("rows", "COMPONENTS", 3),
        ("measuring", "SHORT_PAIRS", 2),
        ("measuring", "LONG_PAIRS", 1),
    ):
        monkeypatch.setattr(sys.modules[module], name, value)
    arguments = ["--rows", rows, "--model", model, "--threads", str(torch.get_num_threads()), *options]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    benchmark.main()


def small(benchmark: Any, monkeypatch: pytest.MonkeyPatch, row: str, **sizes: int) -> None:
    monkeypatch.setitem(benchmark.ROWS, row, partial(benchmark.ROWS[row], **sizes))


def test_a_row_has_the_agreed_form(
    benchmark: Any, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(benchmark, monkeypatch, "strip", samples=1, strengths=2)
    run(benchmark, monkeypatch, "strip", str(tiny_pipeline_dir), "--output", str(tmp_path))
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert row["name"] == "strip" and row["ratio"] > 0
    assert float(row["note"].partition("images agree to ")[2].split(";")[0]) <= 1e-4


@pytest.mark.parametrize("part", ["edit", "judge"])
def test_processes_are_held_against_one(
    benchmark: Any, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    small(benchmark, monkeypatch, f"shared_{part}", n=8)
    run(benchmark, monkeypatch, f"shared_{part}", str(tiny_pipeline_dir), "--output", str(tmp_path))
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert row["limit"] == pytest.approx(1 / 1.8) and "two processes" in row["note"]


def test_every_job_is_a_command_of_one_process(benchmark: Any) -> None:
    jobs = sys.modules["jobs"]
    for words in jobs.WORDS.values():
        config = jobs.configuration(*words)
        assert config.workers == 1 and config.tracking.mode == "disabled"


@pytest.mark.slow
def test_a_job_is_held_against_the_rate_of_matrices(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(benchmark, monkeypatch, "job_pca")
    monkeypatch.setitem(sys.modules["jobs"].WORDS, "job_pca", ("method=pca", "debug=default"))
    run(benchmark, monkeypatch, "job_pca,job_strip", "portraits", "--output", str(tmp_path))
    found, strip = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    # No processor computes convolutions faster than products of matrices.
    assert found["ratio"] > 1 and strip["ratio"] > 1
    # A pass of the embedded network takes 1.01 GFLOP; the strip is 9 edits of 10 steps.
    operations = [float(row["note"].split("; ")[1].split()[0]) for row in (found, strip)]
    assert operations[1] == pytest.approx(9 * 10 * 1.0119, rel=0.05)


@pytest.mark.slow
def test_every_row_has_the_agreed_form(
    benchmark: Any, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in ("sampling", "sampling_b64", "asyrp"):
        small(benchmark, monkeypatch, row, batch=2)
    for row in ("sampling_dit", "sampling_sd3"):
        small(benchmark, monkeypatch, row, batch=1, steps=2)
    monkeypatch.setattr(sys.modules["transformer_rows"], "LAYERS", 2)
    small(benchmark, monkeypatch, "collect", n=3, batch=2)
    small(benchmark, monkeypatch, "strip", samples=2, strengths=2)
    small(benchmark, monkeypatch, "pca_h", n=8)
    small(benchmark, monkeypatch, "pca_1k", n=20, d=30)
    small(benchmark, monkeypatch, "pca_10k", n=40, d=30)
    monkeypatch.setattr(sys.modules["rows"], "GRAM_LIMIT", 30)
    page = tmp_path / "performance.md"
    page.write_text("Before.\n\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\n\nAfter.\n")
    options = ("--output", str(tmp_path), "--docs", str(tmp_path))
    for part in ("collect", "annotate", "edit", "judge"):
        small(benchmark, monkeypatch, f"shared_{part}", n=8)
    rows = [row for row in benchmark.ROWS if not row.startswith("job_")]
    run(benchmark, monkeypatch, ",".join(rows), str(tiny_pipeline_dir), *options)
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(written) == {"machine", "versions", "commit", "rows"}
    rows = {row["name"]: row for row in written["rows"]}
    assert list(rows) == [row for row in benchmark.ROWS if not row.startswith("job_")]
    for row in rows.values():
        assert set(row) == {"name", "ours_s", "other_s", "ratio", "repetitions", "limit", "note"}
        assert row["ratio"] > 0 and row["limit"] > 0 and row["repetitions"] in (1, 2)
    assert "images agree to 0e+00" in rows["asyrp"]["note"]
    table = (tmp_path / "benchmark.md").read_text()
    assert table.count("\n|") == len(rows) + 1
    refreshed = page.read_text()
    assert table in refreshed and refreshed.startswith("Before.") and refreshed.endswith("After.\n")
    assert "old" not in refreshed


def test_a_page_without_marks_is_refused(benchmark: Any, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("No marks.")
    with pytest.raises(InputError, match="must have <!-- benchmark: begin -->"):
        sys.modules["measuring"].refresh(tmp_path / "page.md", [])


def test_pairs_of_a_row_fit_into_a_minute(benchmark: Any) -> None:
    repetitions = sys.modules["measuring"]._repetitions
    assert [repetitions(seconds) for seconds in (0.1, 2.0, 25.0, 100.0)] == [20, 5, 2, 1]


def test_the_architecture_of_celebahq(benchmark: Any) -> None:
    """The published one has 113.67 million weights."""
    with torch.device("meta"):
        unet = UNet2DModel(**sys.modules["architectures"].CELEBAHQ)
    assert sum(weight.numel() for weight in unet.parameters()) == 113_673_219


@pytest.fixture
def tiny_card(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The rows of a GPU on a tiny model with the blocks of celebahq."""
    tiny = {"sample_size": 64, "block_out_channels": (4, 4, 4, 4, 8, 8), "norm_num_groups": 2, "layers_per_block": 1}
    monkeypatch.setitem(vars(sys.modules["architectures"]), "CELEBAHQ", sys.modules["architectures"].CELEBAHQ | tiny)
    gpu = sys.modules["gpu_rows"]
    monkeypatch.setattr(gpu, "SIDE", 16)
    monkeypatch.setattr(gpu, "PAIRS", 1)
    sizes = {
        "pass": {"batch": 2},
        "trajectories": {"n": 3, "batch": 2},
        "directions": {"k": 1},
        "sampling": {"batch": 2},
    }
    for name, row in list(gpu.GPU_ROWS.items()):
        monkeypatch.setitem(gpu.GPU_ROWS, name, partial(row, **sizes.get(name.split("_")[0], {})))
    return gpu


@pytest.mark.slow
def test_rows_of_a_gpu(benchmark: Any, tiny_card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [name for name in tiny_card.GPU_ROWS if not name.endswith("compiled")]  # a compiler takes minutes
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--gpu", "--rows", ",".join(wanted), "--output", str(tmp_path)])
    assert benchmark.main() == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "benchmark.json").read_text())["rows"]}
    assert list(rows) == wanted
    assert rows["trajectories"]["other_s"] == 30.0 * 3 / 1000 and rows["directions"]["other_s"] == 10.0
    assert "of matrix_bfloat16" in rows["pass_bfloat16"]["note"]


def test_a_row_that_fails_or_takes_too_long_is_left_out(
    benchmark: Any, tiny_card: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(name: str, card: Any) -> Any:
        raise RuntimeError("no kernel\nfor this")

    def sleeps(name: str, card: Any) -> Any:
        try:
            time.sleep(30)
        except Exception:
            pytest.fail("swallowed")

    found: list[list[str]] = []
    for name, row in (("directions", fails), ("trajectories", sleeps)):
        monkeypatch.setitem(tiny_card.GPU_ROWS, name, row)
    tiny_card.measure(
        ["directions", "trajectories", "matrix_tf32"], 1.5, 60, lambda rows: found.append([row.name for row in rows])
    )
    assert found == [["matrix_tf32"]]
    said = capsys.readouterr().out
    assert "directions: RuntimeError: no kernel" in said and "trajectories: not done in 2 s" in said


def test_comparators_reach_the_reference(
    benchmark: Any, tiny_model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They find its subspace where they are given the iterations for it."""
    monkeypatch.setattr(sys.modules["rows"], "K", 1)
    step = sys.modules["rows"].OneStep.of(tiny_model)
    published = sys.modules["comparators"].published_directions(tiny_model, step.x_t, step.t, 1, 500, 1e-12)
    theirs, _ = sys.modules["comparators"].svds_directions(step.operator(), 1)
    reference = step.reference[:1].flatten()
    for found in (published, theirs):
        assert abs(abs(float(found.flatten() @ reference)) - 1) <= 1e-3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--rows", "jacobien"], "unknown row 'jacobien': did you mean 'jacobian'?"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (
            ["--model", "nowhere"],
            "nowhere is neither a known model nor a folder; known models: portraits, portraits-128, rooms "
            "(a hub id is owner/name)",
        ),
    ],
)
def test_a_mistaken_option_is_one_line_and_nothing_is_written(
    tmp_path: Path,
    arguments: list[str],
    line: str,
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--output", str(tmp_path / "output"), *arguments])
    assert guarded(benchmark.main) == 2
    assert capsys.readouterr().err == f"hspace: error: {line}\n"
    assert not list(tmp_path.iterdir())
