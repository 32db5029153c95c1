"""Runs of compare_methods that shared the methods, joined into one table."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from small import COMPARISON

from hspace.commands.run import load
from hspace.experiments import compare_methods
from hspace.experiments.rejoined import rejoined
from hspace.metrics.interval import Interval
from hspace.output.tables import Table
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.runs.report import facts_of, write
from hspace.system.files import package_path
from hspace.types import InputError

METHODS = ("mean difference", "erase", "mean difference of x_T")


@pytest.fixture(scope="module")
def labs(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lab]:
    """One run of all methods, and runs of one each."""
    folder = tmp_path_factory.mktemp("joined")

    def lab(name: str, methods: Sequence[str]) -> Lab:
        words = [*COMPARISON, f"model.path={tiny_pipeline_dir}", f"cache_dir={folder / 'cache'}",
                 f"output_dir={folder / name}", f"study.methods=[{','.join(methods)}]"]  # fmt: skip
        with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
            found = load(parse(compose("config", overrides=words)))
        found.figures.mkdir(parents=True)
        return found

    made = {"all": lab("all", METHODS)} | {name: lab(name.replace(" ", "_"), [name]) for name in METHODS}
    for each in made.values():
        result = compare_methods.run(each)
        write(each.cfg, result, key="", judge=each.judge.id, facts=facts_of(each, result, 1.0))
    return made


def numbers(table: Table) -> list[object]:
    """Cells with the limits of intervals; the scores of random images vary little, so that their rounding counts."""
    cells = [cell for row in table.rows for cell in row]
    values = [part for cell in cells for part in (cell[:3] if isinstance(cell, Interval) else [cell])]
    return [pytest.approx(each, abs=0.02, nan_ok=True) if isinstance(each, float) else each for each in values]


def test_runs_that_shared_the_methods_are_joined_into_the_table_of_all(labs: dict[str, Lab]) -> None:
    whole = labs["all"]
    expected = compare_methods.run(whole)
    found = compare_methods.tabulate(whole, rejoined(whole, [labs[name].cfg.output_dir for name in METHODS]))
    assert found.conclusion == expected.conclusion
    for name in ("methods", "methods_strong", "attributes", "calibrations", "pairs"):
        assert found.tables[name].columns == expected.tables[name].columns
        assert numbers(found.tables[name]) == numbers(expected.tables[name]), name
    effect = found.tables["methods"].rows[0][found.tables["methods"].columns.index("effect")]
    assert isinstance(effect, Interval) and math.isfinite(effect.value)


def test_what_no_run_had_is_one_line(labs: dict[str, Lab], tmp_path: Path) -> None:
    whole = labs["all"]
    with pytest.raises(InputError, match="no run has draw 0 of erase, skin"):
        rejoined(whole, [labs["mean difference"].cfg.output_dir])
    with pytest.raises(InputError, match="must be the folder of a run of compare_methods, and has no tables/methods"):
        rejoined(whole, [tmp_path])
    other = replace(whole, cfg=replace(whole.cfg, study=replace(whole.cfg.study, target=0.2)))
    with pytest.raises(InputError, match=r"no effect of 0\.4 sd, got 0\.1, 0\.2"):
        rejoined(other, [whole.cfg.output_dir])
