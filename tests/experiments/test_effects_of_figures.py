"""`edit.effects` in the paper's experiments: what the annotator reads of the edits is what was asked for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from vectors import directions_of

from hspace.cli import main
from hspace.commands.run import load
from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.experiments import demo, fig9
from hspace.runs.effects import as_configured, named_at, turned
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.runs.procedures import PAPER, STRENGTHS
from hspace.system.files import package_path

SMALL = [
    "study.index=24", "study.examples=2", "evaluation.num_samples=4", "evaluation.reference_samples=24",
    "evaluation.calibration_samples=12", "evaluation.strength_samples=12", "diffusion.num_steps=3",
    "method.num_samples=12", "method.k=2", "tracking.mode=disabled", "batch_size=64", "device=cpu",
]  # fmt: skip
STATED = {"fig2": "an effect of -0.01 sd", "fig6": "Edits of a region", "fig11": "by strength"} | dict.fromkeys(
    ("fig3", "fig4", "fig5", "fig8a", "fig13"), "an effect of 0.02 sd"
)
"""What the conclusion, a caption or a table says in the place of a strength."""


def words_of(name: str, pipeline: Path, folder: Path, effects: str = "[-0.01,0,0.02]") -> list[str]:
    words = [f"experiment={name}", *SMALL, f"model.path={pipeline}", f"edit.effects={effects}"]
    return [*words, f"output_dir={folder / name}", f"cache_dir={folder / 'cache'}"]


@pytest.fixture
def lab(tiny_pipeline_dir: Path, tmp_path: Path) -> Lab:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = compose("config", overrides=words_of("fig4", tiny_pipeline_dir, tmp_path, "[-0.005,0.01]"))
    return load(parse(cfg))


@pytest.mark.slow
def test_the_annotator_sees_the_largest_effect_and_directions_keep_their_sense(lab: Lab) -> None:
    directions = directions_of(lab.model)
    applied = as_configured(lab, directions)
    most = [lab.odd_effects(directions.directions, named_at(lab)).select(lab.attributes).strongest(j) for j in (0, 1)]
    for j, (attribute, odd) in enumerate(most):
        assert (applied.directions[j] * directions.directions[j]).sum() > 0
        found = applied.meta.calibration[applied.meta.names[j]]["calibration"]  # type: ignore[index]
        seeds = found["seeds"]
        sweep = lab.sweep({"scaled": applied.directions[j]}, (0.01,), seeds=seeds, by=lab.annotator)
        seen = sweep.effects(0.01).cell(0, attribute).value
        assert found["attribute"] == attribute and found["reached"]
        assert seen == pytest.approx(0.01 if odd > 0 else -0.01, rel=0.06)


def test_without_effects_nothing_is_scaled(lab: Lab) -> None:
    directions = directions_of(lab.model)
    plain = replace(lab, cfg=replace(lab.cfg, edit=replace(lab.cfg.edit, effects=None)))
    assert as_configured(plain, directions) is directions
    assert turned(directions, [None, None]).directions.equal(directions.directions)


def test_every_figure_of_the_paper_is_asked() -> None:
    assert {name for name in PAPER if "fig" in name} <= STRENGTHS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STRENGTHS - {"edit", "demo", "fig18"}))
def test_every_figure_takes_effects(
    name: str, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No sample of the tiny model wears the glasses of fig. 9's own cases.
    monkeypatch.setattr(fig9, "CASES", (("skin", ("age",)), ("age", ("skin",))))
    words = words_of(name, tiny_pipeline_dir, tmp_path)
    words += ["study.attributes=[skin,age]"] if name in ("fig7", "fig8b") else []
    words += ["study.repeats=2", "study.index=2", "study.examples=1"] if name == "fig8a" else []  # it calibrates each
    assert main(["-q", *words]) == 0
    record = json.loads((tmp_path / name / "run.json").read_text())
    tables = "".join(path.read_text() for path in (tmp_path / name / "tables").glob("*.md"))
    told = json.dumps([record["conclusion"], record["figures"], tables])
    assert STATED.get(name, "0.02") in told


@pytest.mark.slow
def test_the_demo_takes_effects(
    tiny_model: DiffusionModel, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ready-made directions of the tiny model, which its own strengths are not scaled with."""
    directions_of(tiny_model, ("skin", "age"), 0.5).save(tmp_path / "ready.safetensors")
    monkeypatch.setattr(demo, "ready_models", lambda: [tiny_model.model_id])
    monkeypatch.setattr(demo, "ready_path", lambda model: tmp_path / "ready.safetensors")
    words = [*words_of("demo", tiny_pipeline_dir, tmp_path), "study.attributes=[skin,age]"]
    words += ["method=supervised", "method.attribute=skin"]
    assert main(["-q", *words]) == 0
    found = Directions.load(tmp_path / "demo" / "directions.safetensors")
    assert found.meta.unit == "sd of effect" and (tmp_path / "demo" / "figures" / "demo.png").is_file()


@pytest.mark.slow
def test_effects_need_scorers_that_read_the_model(
    tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-q", *words_of("fig18", tiny_pipeline_dir, tmp_path), "evaluation=portraits"]) == 2
    assert "edit.effects needs scorers that read pipeline" in capsys.readouterr().err.splitlines()[-1]
