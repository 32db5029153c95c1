"""Windows of steps on a tiny model: each at its strength, and the annotator's choice among them."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hspace.cli import main
from hspace.commands.run import load
from hspace.diffusion.sampler import Sampler
from hspace.edits.sums import edit
from hspace.evaluation.calibration import spread_strength
from hspace.evaluation.readings import score
from hspace.experiments.windows import windows
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.system.files import package_path

WORDS = [
    "experiment=windows", "method.attribute=skin", "method.num_samples=24", "method.k=6",
    "evaluation.reference_samples=20", "evaluation.calibration_samples=12", "evaluation.strength_samples=10",
    "diffusion.num_steps=3", "tracking.mode=disabled", "device=cpu", "batch_size=64",
]  # fmt: skip


def moved(lab: Lab, seeds: Sequence[int], strength: float, sampler: Sampler) -> float:
    """The effect of the method's direction that the annotator sees, in sd."""
    column = lab.annotator.attributes.index("skin")
    latents = lab.model.latents(seeds)
    images = edit(lab.model, latents, lab.discover(), component=0, strengths=[0.0, strength], sampler=sampler)
    before, after = (score(lab.annotator, images[:, i])[:, column] for i in (0, 1))
    return float((after - before).double().mean() / lab.unit(lab.annotator)[column])


def test_every_window_has_its_strength_and_the_most_selective_is_named(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    words = [*WORDS, f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        lab = load(parse(compose("config", [*words, "model=local"])))
    # The effect of the first strength that is tried at all steps, so that this window reaches it.
    seeds = lab.seeds("calibration", 10, 12)
    first = 0.25 * spread_strength(lab.model, lab.discover(), 0, seeds, lab.sampler)
    target = moved(lab, seeds, first, lab.sampler)
    assert main([*words, f"study.target={target}", f"output_dir={tmp_path / 'out'}"]) == 0
    with (tmp_path / "out" / "tables" / "windows.csv").open() as file:
        rows = {(int(row["start"]), int(row["stop"])): row for row in csv.DictReader(file)}
    assert list(rows) == windows(3) and len(rows) == 6
    assert rows[0, 3]["reached"] == "yes" and float(rows[0, 3]["strength"]) == pytest.approx(first, rel=1e-3)
    known = [each for each, row in rows.items() if row["reached"] == "yes" and row["selectivity"]]
    chosen = max(known, key=lambda each: float(rows[each]["selectivity"]))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["findings"]["best"] == list(chosen)
    assert f"edit.start={chosen[0]} edit.stop={chosen[1]}" in record["conclusion"]
    for (start, stop), row in rows.items():
        window = replace(lab.sampler, start=start, stop=stop)
        effect = moved(lab, lab.seeds("calibration"), float(row["strength"]), window)
        assert float(row["effect"]) == pytest.approx(effect, abs=1e-4)
    keys = [path.read_text() for path in (tmp_path / "cache").rglob("entry.json")]
    assert keys and not any(re.search(r"\b20000\d\d\b", key) for key in keys), "evaluation seeds are not read"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("method=pca ~method.attribute", "procedure=windows needs a method that aims at an attribute, got pca"),
        ("method.space=x_T", "procedure=windows needs an edit of h, which has steps, got method.space=x_T"),
        ("edit.start=1", "procedure=windows looks for edit.start and edit.stop: leave them out"),
        ("study.target=0", "study.target"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    word: str, line: str, tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = WORDS if "pca" not in word else [each for each in WORDS if not each.startswith("method.")]
    place = [f"model.path={tiny_pipeline_dir}", f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'out'}"]
    assert main([*words, *word.split(), *place]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "cache").exists() and not (tmp_path / "out").exists()
