"""The experiments on the embedded model at sizes that end soon: every one writes what a report needs."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from hspace.cli import main
from hspace.runs.errors import guarded
from hspace.runs.procedures import PAPER
from hspace.system.files import package_path
from hspace.worlds.world import WORLDS
from scripts import reproduce

SMALL = [
    "study.index=64", "study.examples=2", "evaluation.num_samples=6", "evaluation.reference_samples=24",
    "evaluation.calibration_samples=8", "evaluation.strength_samples=10", "diffusion.num_steps=4",
    "method.num_samples=12", "method.k=3", "study.repeats=2", "tracking.mode=disabled", "batch_size=64", "device=cpu",
]  # fmt: skip
FEWER = {
    "compare_methods": [
        "study.methods=[mean difference,transport,PCA]", "study.attributes=[gender,yaw]", "evaluation.num_samples=12"
    ],
}  # fmt: skip
"""Words of an experiment that would take too long, or could not be read, otherwise."""
QUICK = ("fig2", "fig5")
"""Those without a calibration."""
OTHERS = tuple(name for name in PAPER if name not in (*QUICK, "fig18"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def check(name: str, folder: Path, cache: Path) -> None:
    words = [f"experiment={name}", *SMALL, *FEWER.get(name, []), f"output_dir={folder}", f"cache_dir={cache}"]
    assert main(words) == 0
    record = json.loads((folder / "run.json").read_text())
    assert record["procedure"] == name and record["title"] and record["conclusion"].endswith(".")
    assert record["figures"] and all((folder / path).is_file() for path in record["figures"].values())
    assert record["tables"] and all((folder / "tables" / f"{table}.csv").is_file() for table in record["tables"])
    written = (folder / "run.json").stat().st_mtime_ns
    assert main(words) == 0
    assert (folder / "run.json").stat().st_mtime_ns == written, "a second run uses the first one's record"


@pytest.mark.parametrize("name", QUICK)
def test_an_experiment_runs_and_is_used_again(name: str, tmp_path: Path, cache: Path) -> None:
    check(name, tmp_path / name, cache)


def test_of_rooms_which_show_no_background_alone_a_swap_tells_attributes_only(tmp_path: Path, cache: Path) -> None:
    words = ["experiment=fig2", "model=rooms", "study.attributes=[lamp]", *SMALL, f"cache_dir={cache}"]
    assert main([*words, f"output_dir={tmp_path / 'run'}"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(record["findings"]["carried"]) == {each.id for each in WORLDS.get("rooms").judged}
    assert "background" not in record["conclusion"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_longer_experiment_runs_and_is_used_again(name: str, tmp_path: Path, cache: Path) -> None:
    check(name, tmp_path / name, cache)


def test_every_experiment_has_its_configuration() -> None:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        for name in PAPER:
            assert compose("config", overrides=[f"experiment={name}"]).procedure == name


def test_reproduce_writes_a_report(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fig2", *SMALL, f"cache_dir={cache}", "--output", str(tmp_path)]
    assert reproduce.main(words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert "Swapping h" in (tmp_path / "report.md").read_text()
    carried = json.loads((tmp_path / "fig2.json").read_text())["carried"]
    assert set(carried) == {*(each.id for each in WORLDS.get("portraits").judged), "background"}


def test_the_table_from_published_scores_is_the_published_one(tmp_path: Path) -> None:
    assert reproduce.main(["table1", "--from-results", "--output", str(tmp_path)]) == 0
    made, published = (
        json.loads((folder / "table1" / "run.json").read_text()) for folder in (tmp_path, reproduce.RESULTS)
    )
    same = ("config", "config_sha256", "date", "commit", "model", "seeds", "judge")
    assert {name: made[name] for name in same} == {name: published[name] for name in same}
    first, second = (each["findings"]["effects"]["original"]["effect"] for each in (made, published))
    np.testing.assert_allclose(first, second, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig99"], "unknown experiment 'fig99'"),
        (["fig2", "nonsense=1"], "nonsense"),
        (["fig2", "--from-results"], "--from-results is for table1 alone"),
        (["table1", "--from-results", "--publish"], "--from-results is for table1 alone"),
        (["compare_methods", "--join", "seed=1"], "--join needs folders of runs, got seed=1"),
    ],
)
def test_reproduce_says_in_one_line_what_is_wrong(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: reproduce.main([*words, "--output", str(tmp_path)])) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
