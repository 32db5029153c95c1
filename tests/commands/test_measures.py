"""Every measure through a real run: it is in the table, the record and the tracked run, and says what it should."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hspace.cli import main
from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.photographs import load_images
from hspace.diffusion.sampling import sample
from hspace.directions.record import Directions
from hspace.edits.sums import edit as edited_by
from hspace.evaluation.measures import MEASURES
from hspace.experiments import edit
from hspace.output.animation import to_pixels
from hspace.scorers.factory import features_of, load_scorer
from hspace.worlds.portraits.faces import render, sample_factors

REGIONAL = {name for name in MEASURES.names() if "region" in MEASURES.get(name).needs}
WORDS = [
    "diffusion.num_steps=3", "edit.strengths=[-2,-1,1,2]", "evaluation.num_samples=24", "batch_size=64",
    "evaluation.reference_samples=24", "evaluation.calibration_samples=12", "device=cpu",
    "tracking.mode=disabled",
]  # fmt: skip


def run(words: list[str], measures: list[str], out: Path) -> list[dict[str, str]]:
    """Rows of the table of directions."""
    assert main([*WORDS, *words, f"evaluation.measures=[{','.join(measures)}]", f"output_dir={out}"]) == 0
    with (out / "tables" / "directions.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_measure_of_whole_images(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    measures = [name for name in MEASURES.names() if name not in REGIONAL]
    words = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", "method=supervised"]
    words += ["method.attribute=skin", "method.k=4", "method.num_samples=12"]
    rows = run(words, measures, tmp_path / "out")
    assert set(measures) <= set(rows[0]) and [float(row["strength"]) for row in rows] == [-2, -1, 1, 2]
    whole = rows[-1]
    for name in set(measures) - {"breaks_at"}:  # which is empty where nothing breaks
        assert math.isfinite(float(whole[name])), name
    for row in rows[:-1]:
        assert row["dose_slope"] == row["dose_linearity"] == "", "once for a direction, at its largest strength"
    assert 0 < float(whole["stability"]) <= 90 and rows[0]["stability"] == ""
    assert -1 <= float(whole["dose_linearity"]) <= 1 and float(whole["off_manifold"]) > 0
    # A larger edit leaves the samples' distribution further behind.
    assert float(rows[0]["kid"]) > float(rows[1]["kid"]) or float(rows[3]["kid"]) > float(rows[2]["kid"])
    findings = json.loads((tmp_path / "out" / "run.json").read_text())["findings"]
    assert findings["mean/off_manifold"] == pytest.approx(float(whole["off_manifold"]), rel=1e-6)
    assert findings["kid/direction_0"] == pytest.approx(float(whole["kid"]), rel=1e-6)


def test_strengths_given_as_effects(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    """At strength 0.1 the annotator sees 0.1 sd, which is read anew here, on the samples that say so."""
    model = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", "evaluation.strength_samples=10"]
    words = [*model, "method=supervised", "method.attribute=skin", "method.k=4", "method.num_samples=12"]
    rows = run([*words, "edit.effects=[-0.05,0,0.1]"], ["effect"], tmp_path / "out")
    assert [float(row["strength"]) for row in rows] == [-0.05, 0.1]
    found = Directions.load(tmp_path / "out" / "directions.safetensors")
    assert found.meta.unit == "sd of effect" and found.meta.calibration is not None
    told = found.meta.calibration[found.meta.names[0]]["calibration"]
    assert told["reached"] and abs(told["effect"] - 0.1) < 0.01
    assert told["strength"] == 0.1 and min(abs(s - 0.1) for s, _ in told["tried"]) < 1e-9, "in the unit of the file"
    tiny, scorer = load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu"), load_scorer("portraits-annotator")
    column = scorer.attributes.index("skin")
    images = edited_by(tiny, tiny.latents(told["seeds"]), found, component=0, strengths=[0.0, 0.1])
    before, after = (scorer(images[:, i])[:, column] for i in (0, 1))
    reference = sample(tiny, tiny.latents(range(1_000_000, 1_000_024))).x_0
    assert float((after - before).mean() / scorer(reference)[:, column].std()) == pytest.approx(
        told["effect"], rel=0.02
    )


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["edit.effects=[0]"], "edit.effects must hold a number besides 0"),
        (["edit.effects=[1]", "procedure=table1"], "edit.effects is not read by procedure=table1"),
        (["edit.strengths=[2]", "procedure=fig7", "study.attributes=[skin]"], "edit.strengths must hold 1"),
        (["edit.effects=[1]", "method=erase", "method.attribute=skin"], "edit.effects scales directions"),
        (["edit.effects=[1]", "method=random", "method.k=1", "method.num_samples=12"], "moves no attribute surely"),
    ],
)
def test_effects_that_cannot_be_are_one_line(
    words: list[str], hint: str, tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}"]
    assert main(["-q", *WORDS, *model, "edit.strengths=[0,0.001]", *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert hint in told[-1] and not (tmp_path / "out" / "run.json").exists()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 renders, of another shape than the model's images."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = torch.Generator().manual_seed(3)
    for i, picture in enumerate(to_pixels(render(sample_factors(generator, 200), 24))):
        Image.fromarray(picture[:, 2:-2]).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.slow
def test_distances_from_images_of_ones_own(tiny_pipeline_dir: Path, photographs: Path, tmp_path: Path) -> None:
    words = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", "method=random", "method.k=1"]
    words += ["method.num_samples=12", "edit.strengths=[2]", "evaluation.num_samples=200", "dataset=folder"]
    (row,) = run([*words, f"dataset.path={photographs}"], ["fid", "kid"], tmp_path / "out")
    tiny, directions = load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu"), tmp_path / "out"
    found = Directions.load(directions / "directions.safetensors")
    images = edited_by(tiny, tiny.latents(range(2_000_000, 2_000_200)), found, component=0, strengths=[0.0, 2.0])
    real = load_images(sorted(photographs.iterdir()), (16, 16))
    network = features_of(load_scorer("portraits-judge"))
    assert network is not None
    features = [network(each).double().numpy() for each in (real, images[:, 0], images[:, 1])]

    def frechet(a: np.ndarray, b: np.ndarray) -> float:
        product = np.cov(a.T) @ np.cov(b.T)
        root = np.real(np.sqrt(np.linalg.eigvals(product).astype(complex))).sum()
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * root)

    findings = json.loads((tmp_path / "out" / "run.json").read_text())["findings"]
    assert float(row["fid"]) == pytest.approx(frechet(features[0], features[2]), rel=1e-3)
    assert findings["fid/unedited"] == pytest.approx(frechet(features[0], features[1]), rel=1e-3)
    assert float(row["kid"]) > 0 and math.isfinite(findings["kid/unedited"])
    assert "Of the unedited samples: fid" in (tmp_path / "out" / "tables" / "directions.md").read_text()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ["evaluation.measures=[fid]", "evaluation.num_samples=192"],
            "fid needs at least 193 images on each side, got 200",
        ),
        (["evaluation.measures=[kid]"], "kid needs at least 100 images on each side, got 200"),
        (["evaluation.measures=[effect]"], "dataset.path is read by the measures fid and kid"),
        (["evaluation.measures=[kid]", "dataset.path=nowhere"], "nowhere is neither an image nor a folder"),
    ],
)
def test_too_few_images_of_ones_own_are_refused_before_any_work(
    words: list[str], hint: str, photographs: Path, tiny_pipeline_dir: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}"]
    folder = ["dataset=folder", f"dataset.path={photographs}"]
    assert main(["-q", *WORDS, *model, *folder, *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert hint in told[-1] and not (tmp_path / "cache" / "collect").exists()


def test_measures_outside_a_region(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    words = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", "method=jacobian", "method.k=1"]
    words += ["method.steps=[1]", "edit.strengths=[-20,-10,10,20]", "method.mask=[0,0,0.5,1]"]
    rows = run(words, [*sorted(REGIONAL), "stability"], tmp_path / "out")
    assert rows[3]["stability"] == "", "the method looks at one sample, whatever the seed"
    near, far = rows[2], rows[3]
    assert float(far["ssim_outside"]) < float(near["ssim_outside"]) <= 1
    assert float(far["psnr_outside"]) < float(near["psnr_outside"])
    assert float(far["distance_outside"]) > float(near["distance_outside"]) >= 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.measures=[ssim_outside]"], "method.mask"),
        (["evaluation.measures=[fid]", "evaluation.num_samples=3"], "evaluation.num_samples must be at least 4"),
    ],
)
def test_what_a_measure_needs_is_known_before_any_work(
    words: list[str], message: str, tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}"]
    assert main([*WORDS, *own, *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "cache").exists()


def test_an_unknown_measure_is_one_line(
    tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}"]
    assert main([*WORDS, *words, "evaluation.measures=[efect]"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "unknown measure 'efect': did you mean 'effect'?" in error
    assert not (tmp_path / "cache").exists()


def test_names_are_added_once() -> None:
    assert edit._unnamed("component 3: yaw", ("yaw",)) == "component 3"
    assert edit._unnamed("late: early", ("yaw",)) == "late: early"


def test_a_mean_that_is_not_over_all_directions_says_over_how_many() -> None:
    findings = {"mean/effect": 1.3, "mean/identity": 0.5, "directions/effect": 1, "effect/direction_0": 1.3}
    told = edit._conclusion(["yaw", None, None], findings, 3.0)
    assert told == "3 directions, named yaw; means at strength 3: effect 1.3 (1 of them), identity .5."
