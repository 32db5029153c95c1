"""What is written of an experiment, whatever it measures."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import with_fault

from hspace.cli import main
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.output.figures import grid_figure
from hspace.output.tables import Table
from hspace.runs import report
from hspace.runs.config import Config
from hspace.runs.lab import Lab
from hspace.runs.procedures import EXPERIMENTS
from hspace.runs.report import Result
from hspace.scorers.factory import load_identity, load_scorer
from hspace.system.files import sha256_file, write_bytes

MARK = "portraits-annotator (NOT INDEPENDENT: also the annotator"


@pytest.fixture
def words(tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of an experiment that measures nothing; how often it ran stands in the folder."""

    def run(lab: Lab) -> Result:
        """Measures nothing."""
        (lab.cfg.output_dir / "ran").open("a").write("x")
        picture = grid_figure(torch.zeros(1, 3, 8, 8), 1, lab.figures / "a.png")
        table = Table(("edit", "effect"), (("smile", 1.0), ("hat", 2.0)), "Effects.")
        return Result("It moves.", {"moved": 1}, {"A picture": picture}, {"effects": table})

    monkeypatch.setitem(EXPERIMENTS._registered, "fig3", run)
    return [
        "experiment=fig3", f"model.path={tiny_pipeline_dir}", f"output_dir={tmp_path / 'out'}", "device=cpu",
        f"cache_dir={tmp_path / 'cache'}", "tracking.mode=disabled",
    ]  # fmt: skip


@pytest.mark.parametrize("judge", ["portraits-judge", "portraits-annotator"])
def test_a_judge_that_annotated_is_marked_in_every_table(words: list[str], tmp_path: Path, judge: str) -> None:
    assert main([*words, f"evaluation.judge={judge}", "evaluation.allow_same_scorer=true"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    kept = [(tmp_path / "out" / "tables" / f"effects.{kind}").read_text() for kind in ("csv", "md")]
    assert [MARK in text for text in (*kept, record["conclusion"])] == [judge == "portraits-annotator"] * 3
    assert "It moves." in record["conclusion"] and record["judge"].startswith(judge)


def test_the_record_says_which_directions_were_given(
    words: list[str], tiny_model: DiffusionModel, tmp_path: Path
) -> None:
    path, annotator = tmp_path / "smile.safetensors", {"id": "someone", "sha256": "0" * 64}
    found = Directions.of(tiny_model, torch.ones(1, *tiny_model.h_shape), eta=1.0)
    provenance = replace(found.meta.provenance, annotator=annotator)
    replace(found, meta=replace(found.meta, provenance=provenance)).save(path)
    num_steps = f"diffusion.num_steps={len(tiny_model.process.timesteps)}"
    assert main([*words, num_steps, "method=file", f"method.path={path}"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["given"] == [{"file": path.name, "sha256": sha256_file(path), "annotator": annotator}]


def test_a_record_is_used_again_while_its_files_are_as_they_were(words: list[str], tmp_path: Path) -> None:
    assert main(words) == main(words) == 0
    out = tmp_path / "out"
    assert (out / "ran").read_text() == "x"
    for file in ("figures/a.png", "tables/effects.tex", "run.json"):
        kept, ran = (out / file).read_bytes(), len((out / "ran").read_text())
        (out / file).unlink() if file == "figures/a.png" else (out / file).write_text("{}")
        assert main(words) == main(words) == 0
        assert file == "run.json" or (out / file).read_bytes() == kept
        assert len((out / "ran").read_text()) == ran + 1, file


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize(
    ("kind", "stride"),
    [("SIGKILL", 9), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("SIGKILL", "ENOSPC", "EIO"))],
)
def test_a_fault_at_every_file_operation_leaves_no_record_of_files_that_are_not_its_own(
    default_config: Config,
    tiny_model: DiffusionModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    stride: int,
) -> None:
    """Of two models by turns, in one folder, as where a checkpoint is trained on and taken back."""
    monkeypatch.setattr(report, "commit", lambda: None)
    networks = load_scorer("portraits-annotator"), load_scorer("portraits-judge"), load_identity()
    found = Directions.of(tiny_model, torch.ones(1, *tiny_model.h_shape), eta=1.0)

    def write(out: Path, value: float) -> dict[str, bytes]:
        picture, table = out / "figures" / "a.png", Table(("edit", "effect"), (("smile", value),), "Effects.")
        write_bytes(picture, f"picture of {value}".encode())
        result = Result(
            "It moves.", {"moved": value}, {"A": picture}, {"effects": table}, {"effects": table}, {"found": found}
        )
        cfg = replace(default_config, output_dir=out)
        report.write(cfg, result, key=f"model {value}", judge="judge", facts={})
        return {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name[0] != "."}

    def kept(out: Path, value: float) -> Any:
        monkeypatch.setattr(report, "key_of", lambda lab: f"model {value}")
        return report.current(Lab(replace(default_config, output_dir=out), tiny_model, *networks, None, None, "judge"))

    wanted = {value: write(tmp_path / f"whole {value}", value) for value in (1.0, 2.0)}
    n, ended = 1 - stride, 0
    while ended != 4:
        n += stride
        out = Path(shutil.copytree(tmp_path / "whole 1.0", tmp_path / str(n)))
        ended = with_fault(partial(write, out, 2.0), out, n, kind)
        # A folder that is there is not made, whatever the system says of making it.
        assert ended in {"SIGKILL": (-9, 4)}.get(kind, (0, 3, 4)), f"operation {n}"
        files = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name[0] != "."}
        for value in (1.0, 2.0):
            assert (kept(out, value) is not None) == (files == wanted[value]), f"operation {n}"
        assert write(out, 2.0) == wanted[2.0]
    assert n > 50


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda lab: lab.seeds("calibration", 4, 2), {"calibration": {"first": 1_000_002, "count": 4}}),
        (lambda lab: lab.seeds(n=3), {"evaluation": {"first": 2_000_000, "count": 3}}),
        (lambda lab: lab.draw(1).annotations(), {"discovery": {"first": 6, "count": 6}}),
        (lambda lab: (lab.annotations(), lab.draw(1).annotations()), {"discovery": {"first": 0, "count": 12}}),
        (lambda lab: lab.discover(name="pca", k=2, num_samples=5), {"discovery": {"first": 0, "count": 5}}),
    ],
    ids=["calibration", "evaluation", "a draw", "two draws", "a method"],
)
def test_the_record_names_the_samples_that_were_read_and_no_others(
    read: Callable[[Lab], object],
    told: dict[str, Any],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(lab: Lab) -> Result:
        """Reads some samples."""
        read(lab)
        return Result("It moves.", {}, {}, {})

    monkeypatch.setitem(EXPERIMENTS._registered, "fig3", run)
    for _ in range(2):  # the second time from the cache
        assert main([*words, "diffusion.num_steps=2", "study.index=6", "study.examples=3"]) == 0
        record = tmp_path / "out" / "run.json"
        assert json.loads(record.read_text())["seeds"] == told
        record.unlink()
