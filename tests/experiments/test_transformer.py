"""Every place in a tiny transformer, beside tiny U-Nets, against the house's own ways one by one."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from hydra import compose, initialize_config_dir

from hspace.cli import main
from hspace.commands.run import load
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import h_varies
from hspace.directions.pca import pca
from hspace.directions.supervised import supervised
from hspace.edits.mixing import swap
from hspace.evaluation.readings import Readings, score
from hspace.experiments.doses import Dose
from hspace.experiments.measured import mean_effect, windows
from hspace.experiments.places import Place, find, readings
from hspace.experiments.probes import calibrate, exchanged, semantic
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import Interval, slope_interval
from hspace.runs import report
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.runs.report import key_of
from hspace.scorers.embedded import load_judge
from hspace.system.files import package_path

# Numbers: of networks with random weights no image may have glasses.
SMALL = [
    "study.attributes=[skin,age]", "study.index=24", "study.examples=6", "study.target=0.1", "method.k=2",
    "method.num_samples=12", "evaluation.num_samples=20", "evaluation.reference_samples=20",
    "evaluation.calibration_samples=4", "evaluation.strength_samples=10", "diffusion.num_steps=3",
    "tracking.mode=disabled", "device=cpu", "batch_size=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.save("dit", tmp_path_factory.mktemp("models") / "dit")


@pytest.fixture
def lab(folder: Path, tmp_path: Path) -> Lab:
    words = ["experiment=transformer", *SMALL, "model=local", f"model.path={folder}", f"cache_dir={tmp_path / 'cache'}"]
    words += ["study.beside=[]", f"output_dir={tmp_path / 'run'}"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return load(parse(compose("config", overrides=words)))


def place(lab: Lab, tap: str) -> Place:
    units = {scorer.id: lab.unit(scorer) for scorer in (lab.annotator, lab.judge)}
    return Place("transformer", tap, replace(lab, model=lab.model.tapped(tap)), lab.annotations(), units)


def parallel(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return abs(float(torch.cosine_similarity(ours.flatten().double(), theirs.flatten().double(), dim=0)))


def test_directions_are_the_mean_differences_and_joint_components_of_the_house(lab: Lab, tmp_path: Path) -> None:
    here = place(lab, "block:1.attn")
    model, sampler = here.lab.model, Sampler(batch_size=64)
    found = find(here)
    recorded = collect(model, here.annotations.seeds[:12], tmp_path / "h.npy", sampler=sampler)
    expected = pca(recorded, model, k=2, joint=True)
    for ours, theirs in zip(found[2:], expected.directions, strict=True):
        assert parallel(ours, theirs) > 1 - 1e-6 and float(ours.norm()) == pytest.approx(float(theirs.norm()), rel=1e-4)
    spread = np.sqrt(recorded.open().var(axis=1, ddof=1, dtype=np.float64).sum())
    for ours, name in zip(found[:2], ("skin", "age"), strict=True):
        theirs = supervised(model, here.annotations, name, k=6).directions[0]
        assert parallel(ours, theirs) > 1 - 1e-6 and float((ours * theirs).sum()) > 0
        assert float(ours.norm()) == pytest.approx(spread, rel=1e-4)


def test_edits_read_together_are_those_read_one_by_one(lab: Lab) -> None:
    here = place(lab, "block:2")
    vectors = 0.3 * torch.randn(2, 3, *here.lab.model.h_shape, generator=torch.Generator().manual_seed(0))
    doses = {"whole": Dose(1, 0.7), "late": Dose(0, -0.4, 2, 3)}
    late = -0.4 * vectors[0]
    late[:2] = 0
    ours = readings(here, vectors, doses, lab.seeds(), lab.judge)
    theirs = here.lab.read({"whole": 0.7 * vectors[1], "late": late})
    assert torch.allclose(ours.original, theirs.original, atol=1e-4)
    assert torch.allclose(ours.edited, theirs.edited, atol=1e-4) and not torch.allclose(ours.edited, ours.original)
    assert torch.allclose(ours.cosine, theirs.cosine, atol=1e-4) and torch.equal(ours.unit, theirs.unit)
    assert ours.likeness_cosine is not None and theirs.likeness_cosine is not None
    assert torch.allclose(ours.likeness_cosine, theirs.likeness_cosine, atol=1e-4)
    wanted = [theirs.effects().cell(row, name).value for row, name in ((0, "skin"), (1, "age"))]
    assert mean_effect(ours, {"skin": 0, "age": 1}).value == pytest.approx(np.mean(wanted), abs=1e-4)


def test_a_mean_effect_over_fewer_than_ten_samples_is_not_known() -> None:
    class Second:
        """Hides its second attribute where the first is negative."""

        id, attributes, binary = "second", ("a", "b"), (False, False)

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return images

        def visible(self, scores: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.ones(len(scores), dtype=torch.bool), scores[:, 0] > 0], dim=1)

    def mean(shown: int) -> Interval:
        original = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
        original[:, 0] = torch.where(torch.arange(12) < shown, 5.0, -5.0)
        edited = torch.stack([original + torch.tensor([1.0, 3.0])] * 2)
        edited = edited + 0.1 * torch.randn(edited.shape, generator=torch.Generator().manual_seed(1))
        nothing = torch.zeros(12, 3, 1)
        readings = Readings(Second(), ("x", "y"), tuple(range(12)), original, edited, nothing, nothing, torch.ones(2))
        assert np.isnan(readings.effects().cell(1, "b").value) == (shown < 10)
        return mean_effect(readings, {"a": 0, "b": 1})

    assert mean(10).value == pytest.approx(2, abs=0.1) and mean(10).n == 12
    assert np.isnan(mean(9).value) and np.isnan(mean(9).low) and mean(9).n == 9


def test_at_a_calibrated_strength_the_annotator_sees_the_effect(lab: Lab) -> None:
    here = place(lab, "block:3")
    vectors = find(here)
    strengths = calibrate(here, vectors, [0.1])
    assert any(found.reached for found in strengths.values())
    for j, name in enumerate(("skin", "age")):
        found = strengths[name, 0.1]
        seen = readings(here, vectors, {"x": Dose(j, found.value)}, lab.seeds("calibration", 10), lab.annotator)
        effect = float(np.nanmean(seen.changes(0, name)))
        assert not found.reached or effect == pytest.approx(0.1, rel=0.1), (name, found)


def test_what_modulates_a_transformer_of_classes_is_the_same_for_every_sample(lab: Lab) -> None:
    assert not h_varies(lab.model.tapped("block:0.mod"))
    assert h_varies(lab.model.tapped("block:0")) and h_varies(lab.model.tapped("block:0.attn"))


def test_a_swap_carries_what_the_house_says_and_one_of_a_constant_nothing(lab: Lab) -> None:
    here = place(lab, "block:2")
    carried = exchanged(here)
    own, donors = (here.lab.model.latents(lab.seeds()[half]) for half in (slice(10), slice(10, 20)))
    mixed = swap(here.lab.model, own, donors)
    before, other, after = (
        score(lab.judge, images).double().numpy()[:, [lab.judge.attributes.index("skin")]]
        for images in (lab.images(own), lab.images(donors), mixed)
    )
    assert carried["skin"].value == pytest.approx(slope_interval(other - before, after - before).value, abs=1e-3)
    assert exchanged(place(lab, "block:1.mod"))["background"].value == pytest.approx(0, abs=1e-5)


def test_where_a_world_shows_no_background_alone_a_swap_carries_none(lab: Lab) -> None:
    judge = load_judge("rooms")
    assert set(exchanged(place(replace(lab, judge=judge), "block:2"))) == set(judge.attributes)


def test_components_are_semantic_that_move_one_attribute_surely_and_much_more_than_others() -> None:
    effect = np.array([[2.0, 0.5], [-1.2, 0.5], [1.0, 0.9], [0.6, 0.1], [np.nan, np.nan], [0.8, np.nan]])
    error = np.full_like(effect, 0.2)
    matrix = EffectMatrix(
        ("age", "yaw"), tuple("abcdef"), effect, effect - error, effect + error, error, np.full(effect.shape, 50),
        np.zeros((6, 2, 2)),
    )  # fmt: skip
    assert semantic(matrix) == ["age", "age", "age"], "the third has no first attribute, the fourth is not sure"


def test_windows_are_all_steps_and_thirds_that_cover_them() -> None:
    parts = list(windows(11).values())
    assert parts[0] == (0, None) and [step for first, stop in parts[1:] for step in range(first, stop or 0)] == [
        *range(11)
    ]
    assert list(windows(2).values()) == [(0, None), (0, 1), (1, 2)]


@pytest.fixture
def words(folder: Path, tiny_pipeline_dir: Path, tiny_ldm_dir: Path, tmp_path: Path) -> list[str]:
    beside = f"study.beside=[{tiny_ldm_dir},{folder}]"
    places = [f"model.path={tiny_pipeline_dir}", beside, "study.taps=[block:2,block:*.mod]"]
    return ["experiment=transformer", *SMALL, *places, f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'c'}"]


@pytest.mark.slow
def test_the_experiment_runs_on_three_kinds_of_models_and_is_used_again(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    run = tmp_path / "run"
    record = json.loads((run / "run.json").read_text())
    places = ["U-Net of pixels after", "U-Net of latents after", "transformer block:2"]
    assert list(record["findings"]["places"]) == places and len(record["findings"]["models"]) == 3
    assert record["findings"]["constant"] == [f"transformer block:{i}.mod" for i in range(4)]
    with (run / "tables" / "places.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["numbers"] for row in rows] == ["1024", "256", "256"]
    assert all(float(row["identity at 0.1 sd"]) <= 1 and row["swapped"] for row in rows)
    with (run / "samples" / "edits_transformer_block_2.csv").open() as file:
        scores = list(csv.DictReader(file))
    # Two targets, one of them in three windows too, of two attributes.
    assert len(scores) == (1 + 2 * (2 + 3)) * 20 and {"skin", "identity", "likeness"} <= set(scores[0])
    assert (run / "figures" / "places.png").is_file() and len(record["lines"]) == 3
    written = (run / "run.json").stat().st_mtime_ns
    assert main(words) == 0 and (run / "run.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import hspace.experiments.transformer as experiment

    measured: list[str] = []
    real = experiment.measure

    def counted(stop_at: int) -> Callable[[Place], object]:
        def measure(place: Place) -> object:
            if len(measured) == stop_at:
                raise KeyboardInterrupt
            measured.append(place.name)
            return real(place)

        return measure

    monkeypatch.setattr(experiment, "measure", counted(2))
    assert main(words) == 130
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("rows.safetensors")}
    monkeypatch.setattr(experiment, "measure", counted(99))
    assert main(words) == 0 and kept
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_missing_model_is_one_line_that_says_how_to_train_it(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, f"study.beside=[{tmp_path / 'none'}]"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"hspace: error: study.beside: {tmp_path / 'none'} holds no model")
    assert "train_transformer.py" in error and not (tmp_path / "run").exists()


def test_by_itself_it_needs_a_transformer_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ships is there, and the file's own place of the transformer is not."""
    monkeypatch.chdir(tmp_path)
    assert main(["experiment=transformer", "tracking.mode=disabled", f"output_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("hspace: error: study.beside: .train/portraits/transformer/pipeline holds no model")


def test_a_record_depends_on_the_weights_of_an_embedded_model_beside_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = replace(lab, cfg=replace(lab.cfg, study=replace(lab.cfg.study, beside=(Path("portraits-128"),))))
    key = key_of(beside)
    monkeypatch.setattr(report, "package_path", lambda _: tmp_path)
    changed = tmp_path / "portraits" / "ldm"
    changed.mkdir(parents=True)
    (changed / "weights.bin").write_bytes(b"1")
    assert key_of(beside) != key != key_of(lab)
