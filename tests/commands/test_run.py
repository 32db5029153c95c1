"""Whole runs of a tiny real pipeline through the installed command's own code."""

import csv
import json
import logging
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hspace.cli import main
from hspace.directions.record import Directions

ROOT = Path(__file__).parents[2]
TINY = [
    "diffusion.num_steps=3", "method.num_samples=12", "method.k=2", "edit.strengths=[-2,0,2]",
    "evaluation.num_samples=12", "evaluation.reference_samples=24", "batch_size=32",
    "device=cpu",
]  # fmt: skip


SAID = "said.txt"
"""In the folder of a run: what it logged."""


@pytest.fixture(scope="module")
def finished(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    words = [*TINY, f"model.path={tiny_pipeline_dir}", f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"]
    said = logging.FileHandler(folder / SAID)
    logging.getLogger("hspace").addHandler(said)
    assert main(words) == 0
    logging.getLogger("hspace").removeHandler(said)
    return folder


def read_summary(folder: Path) -> dict[str, Any]:
    wandb = Path(sys.executable).with_name("wandb")
    command = [wandb, "leet", "inspect", "--json", "--summary", folder]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_run_leaves_figures_tables_directions_and_its_record(finished: Path) -> None:
    out = finished / "out"
    for figure in ("directions", "effects", "samples"):
        assert (out / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    with (out / "tables" / "directions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["strength"]) for row in rows] == [-2.0, 2.0] * 2
    assert all(-1 <= float(row["identity"]) <= 1 for row in rows)
    record = json.loads((out / "run.json").read_text())
    assert (
        record["judge"] == "portraits-judge (made for the embedded portraits, not for this model)"
        and record["config"]["method"]["k"] == 2
    )
    assert record["seeds"]["discovery"] == {"first": 0, "count": 12}
    assert record["seeds"]["evaluation"]["first"] == 2_000_000
    assert record["versions"]["torch"] and record["stages"]["read"] > 0
    directions = Directions.load(out / "directions.safetensors")
    assert list(directions.meta.names) == record["directions"]["directions"] and directions.meta.unit == "std"
    assert list((out / "wandb").glob("offline-run-*/run-*.wandb"))


def test_the_console_says_each_stage_with_its_time_and_what_came_out(finished: Path) -> None:
    said, record = (finished / SAID).read_text(), json.loads((finished / "out" / "run.json").read_text())
    for stage in record["stages"]:
        assert re.search(rf"^{stage}: \d+\.\d s$", said, re.MULTILINE), stage
    assert len(record["lines"]) == 2 and all(line in said for line in record["lines"])
    assert all(re.search(r"at \+2: .+, identity -?\d\.\d\d \[", line) for line in record["lines"])
    assert said.splitlines()[-1].endswith(f"figures, tables and run.json are in {finished / 'out'}")


def test_the_offline_run_holds_all_of_it(finished: Path) -> None:
    wandb = Path(sys.executable).with_name("wandb")
    command = [wandb, "leet", "inspect", "--json", finished / "out" / "wandb"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    summary = read_summary(finished / "out" / "wandb")
    assert summary["config"]["method"]["k"] == 2 and summary["summary"]["mean/identity"] <= 1
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [item["strength"] for item in history if "strength" in item] == [-2.0, 2.0]
    stages = [key for item in history for key in item if key.startswith("progress/")]
    assert {"progress/discover", "progress/name", "progress/read", "progress/seconds"} <= set(stages)
    assert all(item["memory/process_gb"] > 0.1 for item in history if "progress/seconds" in item)
    logged = {record["artifact"]["name"] for record in records if record["type"] == "artifact"}
    assert {"directions-pca", "samples-pca", "report-pca"} <= logged
    files = finished / "out" / "wandb"
    assert {path.name.split("_")[0] for path in files.rglob("media/images/figures/*.png")} == {
        "directions",
        "effects",
        "samples",
    }
    assert {path.name.split("_")[0] for path in files.rglob("media/table/tables/*.json")} == {"directions", "effects"}
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    axes = {metric.get("name") or metric.get("glob_name"): metric.get("step_metric") for metric in metrics}
    assert axes["effect/*"] == "strength" and axes["memory/*"] == "progress/seconds"


def test_other_strengths_and_the_control_reuse_what_was_sampled(finished: Path, tiny_pipeline_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "cache").rglob("*.npy")}
    shared = [*TINY, f"model.path={tiny_pipeline_dir}", f"cache_dir={finished / 'cache'}", "tracking.mode=disabled"]
    assert main([*shared, "edit.strengths=[-1,1]", f"output_dir={finished / 'other'}"]) == 0
    assert len(list((finished / "cache" / "discover").glob("*/directions.safetensors"))) == 1
    assert main([*shared, "method=random", f"output_dir={finished / 'random'}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (finished / "cache").rglob("*.npy")} == before
    found, control = (Directions.load(finished / name / "directions.safetensors") for name in ("out", "random"))
    assert (found.norms() / control.norms() - 1).abs().max() < 1e-4
    assert not list((finished / "random").glob("wandb/offline-run-*"))


def test_directions_from_a_file_are_judged_like_found_ones(finished: Path, tiny_pipeline_dir: Path) -> None:
    words = [word for word in TINY if not word.startswith("method.")]
    words += [f"model.path={tiny_pipeline_dir}", "tracking.mode=disabled", f"cache_dir={finished / 'cache'}"]
    words += ["method=file", f"method.path={finished / 'out' / 'directions.safetensors'}"]
    assert main([*words, f"output_dir={finished / 'file'}"]) == 0
    first, again = (json.loads((finished / name / "run.json").read_text()) for name in ("out", "file"))
    units = [each["findings"].pop("unit") for each in (first, again)]
    assert units[0] == pytest.approx(units[1], abs=1e-4)
    assert first["findings"] == pytest.approx(again["findings"], abs=1e-4)


def test_directions_that_do_not_fit_are_refused_before_anything_is_written(
    finished: Path, tiny_pipeline_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=4", "method=file", "tracking.mode=disabled"]
    words += [f"method.path={finished / 'out' / 'directions.safetensors'}", f"output_dir={finished / 'refused'}"]
    assert main(words) == 2
    assert "timesteps" in capsys.readouterr().err.splitlines()[-1]
    assert not (finished / "refused").exists()


def test_a_file_size_limit_is_one_line_and_leaves_nothing_half_written(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    words = [
        *TINY,
        f"model.path={tiny_pipeline_dir}",
        f"output_dir={tmp_path / 'out'}",
        f"cache_dir={tmp_path / 'cache'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "hspace.cli", *words, "method.num_samples=40", "tracking.mode=disabled"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=limit_files,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("hspace: error: ") and "h.npy" in last and "too large" in last
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (["method=local_pca", "method.k=1", "method.num_samples=4"], 1),
        (["method=pca", "method.k=2", "method.num_samples=12", "method.joint=true"], 2),
        (["method=jacobian", "method.k=1", "method.steps=[0,2]", "method.mask=[0,0,0.5,1]"], 2),
        (["method=supervised", "method.attribute=skin", "method.k=4", "method.num_samples=12"], 1),
        (
            [
                "method=supervised",
                "method.attribute=skin",
                "method.conditions=[yaw]",
                "method.k=4",
                "method.num_samples=12",
            ],
            1,
        ),
        (
            [
                "method=boundary",
                "method.attribute=skin",
                "method.classifier=svm",
                "method.k=4",
                "method.num_samples=12",
            ],
            1,
        ),
        (["method=supervised", "method.attribute=skin", "method.space=x_T", "method.k=4", "method.num_samples=12"], 1),
    ],
)
def test_every_method_runs(
    finished: Path, tiny_pipeline_dir: Path, tmp_path: Path, method: list[str], names: int
) -> None:
    words = [word for word in TINY if not word.startswith("method.")] + method
    words += [f"model.path={tiny_pipeline_dir}", "tracking.mode=disabled", f"cache_dir={finished / 'cache'}"]
    assert main([*words, f"output_dir={tmp_path}"]) == 0
    directions = Directions.load(tmp_path / "directions.safetensors")
    assert len(directions.meta.names) == names
    if "method.attribute=skin" in method:
        assert directions.meta.names[0].startswith("skin")
        assert json.loads((tmp_path / "run.json").read_text())["findings"]["identity/direction_0"] <= 1


def test_another_mask_on_the_same_sample_finds_other_directions(
    finished: Path, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    words = [word for word in TINY if not word.startswith("method.")]
    words += [f"model.path={tiny_pipeline_dir}", "tracking.mode=disabled", f"cache_dir={finished / 'cache'}"]
    words += ["method=jacobian", "method.k=1", "method.steps=[1]"]
    for name, mask in (("top", "[0,0,0.5,1]"), ("bottom", "[0.5,0,1,1]"), ("again", "[0,0,0.5,1]")):
        assert main([*words, f"method.mask={mask}", f"output_dir={tmp_path / name}"]) == 0
    top, bottom, again = (
        Directions.load(tmp_path / name / "directions.safetensors").directions for name in ("top", "bottom", "again")
    )
    assert (top - again).abs().max() == 0 and (top.flatten() @ bottom.flatten()).abs() < 0.99 * top.square().sum()


def test_another_prompt_samples_anew(tiny_sd_dir: Path, tmp_path: Path) -> None:
    words = [*TINY, f"model.path={tiny_sd_dir}", "tracking.mode=disabled", f"cache_dir={tmp_path / 'cache'}"]
    for name, prompt in (("man", "a man"), ("dog", "a dog")):
        assert main([*words, f"model.prompt='{prompt}'", f"output_dir={tmp_path / name}"]) == 0
    man, dog = (Directions.load(tmp_path / name / "directions.safetensors") for name in ("man", "dog"))
    assert man.meta.provenance.model == dog.meta.provenance.model
    assert (man.directions - dog.directions).abs().max() > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "methods", "strengths"),
    [
        (["joblib", "hydra.launcher.n_jobs=2"], ("pca", "random", "local_pca"), (1, 2, 3, 4)),
        (["submitit_local"], ("pca", "random"), (1, 2)),  # which starts all jobs at once
    ],
)
def test_a_sweep_in_processes_discovers_once_per_method_and_tracks_every_job(
    tiny_pipeline_dir: Path,
    tmp_path: Path,
    launcher: list[str],
    methods: tuple[str, ...],
    strengths: tuple[int, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [
        f"method={','.join(methods)}", f"edit.strengths={','.join(f'[{s}]' for s in strengths)}", "method.k=2",
        "method.num_samples=12", "diffusion.num_steps=3", "evaluation.num_samples=4",
        "device=cpu", f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}",
        f"hydra.sweep.dir={tmp_path / 'study'}",
    ]  # fmt: skip
    command = ["-m", *words, f"hydra/launcher={launcher[0]}", *launcher[1:]]
    assert main(command) == 0, capsys.readouterr().err
    jobs = sorted(path.parent for path in (tmp_path / "study").glob("*/run.json"))
    records = [json.loads((folder / "run.json").read_text())["config"] for folder in jobs]
    chosen = {(record["method"]["name"], *record["edit"]["strengths"]) for record in records}
    assert chosen == {(method, s) for method in methods for s in strengths}
    tracked = [read_summary(folder / "wandb") for folder in jobs]
    assert len({run["run_id"] for run in tracked}) == len(chosen)
    assert {run["config"]["tracking"]["group"] for run in tracked} == {"study"}
    assert len(list((tmp_path / "cache" / "discover").glob("*/directions.safetensors"))) == len(methods)
    assert len(list((tmp_path / "cache" / "collect").glob("*/h.npy"))) == 1 + ("local_pca" in methods)
    with (tmp_path / "study" / "collected.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(chosen)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("run.json")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_judge_that_annotated_is_refused_or_marked_in_every_table(
    finished: Path, tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in TINY if not word.startswith("method.")]
    words += [f"model.path={tiny_pipeline_dir}", "tracking.mode=disabled", f"cache_dir={finished / 'cache'}"]
    supervised = ["method=supervised", "method.attribute=skin", "method.k=4", "method.num_samples=12"]
    assert main([*words, *supervised, f"output_dir={tmp_path / 'fair'}"]) == 0
    fair = (tmp_path / "fair" / "tables" / "effects.csv").read_text()
    assert "portraits-judge" in fair and "INDEPENDENT" not in fair

    # The file says who annotated; swapping the roles would let that scorer judge.
    path = tmp_path / "fair" / "directions.safetensors"
    annotator = Directions.load(path).meta.annotator
    assert annotator is not None and annotator["id"] == "portraits-annotator"
    swapped = ["method=file", f"method.path={path}", "evaluation.annotator=portraits-judge"]
    swapped += ["evaluation.judge=portraits-annotator", f"output_dir={tmp_path / 'swapped'}"]
    assert main([*words, *swapped]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "portraits-annotator, which annotated for these directions" in message and "allow_same_scorer" in message
    assert not (tmp_path / "swapped").exists()

    assert main([*words, *swapped, "evaluation.allow_same_scorer=true"]) == 0
    mark = (
        "portraits-annotator (NOT INDEPENDENT: also the annotator; made for the embedded portraits, not for this model)"
    )
    assert json.loads((tmp_path / "swapped" / "run.json").read_text())["judge"] == mark
    for name in ("directions", "effects"):
        for kind in ("csv", "md"):
            assert mark in (tmp_path / "swapped" / "tables" / f"{name}.{kind}").read_text()
