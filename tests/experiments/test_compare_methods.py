"""The comparison of methods on a tiny model: its parts against the house's own ways, and the whole."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from small import COMPARISON

from hspace.cli import main
from hspace.commands.run import load
from hspace.directions.operators import Operator
from hspace.directions.record import Directions
from hspace.evaluation.calibration import spread_strength
from hspace.evaluation.levels import Level
from hspace.experiments import compare_methods, equal_effect
from hspace.experiments.comparison import Figures
from hspace.experiments.contenders import CONTENDERS, FURTHER, Contender, contenders
from hspace.experiments.equal_effect import (
    UNREADABLE,
    Draw,
    Entry,
    Trial,
    _chosen,
    _read_by_judge,
    best_of,
    spread_of,
    trials,
)
from hspace.metrics.effect import EffectMatrix
from hspace.runs.config import to_dict
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.runs.procedures import AGAIN
from hspace.system.files import package_path
from hspace.types import InputError

FEW = "study.methods=[mean difference,matched examples,erase,PCA,mean difference of x_T]"


@pytest.fixture(scope="module")
def lab(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("compare")
    words = [*COMPARISON, f"model.path={tiny_pipeline_dir}", f"cache_dir={folder / 'cache'}", f"output_dir={folder}"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return load(parse(compose("config", overrides=words)))


def alone(lab: Lab) -> Lab:
    """The same with one draw."""
    return replace(lab, cfg=replace(lab.cfg, study=replace(lab.cfg.study, repeats=1)))


def found(lab: Lab, name: str) -> Trial:
    """A method on the first draw, as if there were no other."""
    (contender,) = contenders([name])
    (tried,) = trials([Draw(alone(lab), 0, spread_of(lab))], contender)
    return tried


def test_there_are_the_methods_of_the_package() -> None:
    assert len({each.name for each in CONTENDERS}) == len(CONTENDERS) >= 14
    assert contenders(["*"]) == CONTENDERS and contenders(["*", *(each.name for each in FURTHER)])[-2:] == FURTHER
    assert [each.name for each in contenders(["random", "PCA"])] == ["PCA", "random"], "in the order of the table"
    with pytest.raises(InputError, match=r"unknown study\.methods 'PCB': did you mean 'PCA'\?"):
        contenders(["PCB"])


@pytest.mark.slow
@pytest.mark.parametrize("contender", (*CONTENDERS, *FURTHER), ids=lambda each: each.name)
def test_every_method_finds_edits_of_the_model(lab: Lab, contender: Contender) -> None:
    few = replace(lab, cfg=replace(lab.cfg, study=replace(lab.cfg.study, examples=3)))
    for each in contender.find(few, "skin"):
        each.check_shape(lab.model)
        operates = isinstance(each, Operator)
        assert operates == (contender.name in ("erase", "switch", "transport", "trained network"))
        assert len(each.meta.names) in (1, lab.pca.k)
        learns = each.meta.provenance.annotator is not None
        assert contender.annotated == learns or contender.name == "sparse autoencoder"


@pytest.mark.parametrize("name", ["mean difference", "mean difference of x_T"])
def test_edits_are_spreads_of_the_methods_own_direction(lab: Lab, name: str) -> None:
    tried = found(lab, name)
    space = "x_T" if name.endswith("x_T") else "h"
    for each in tried.entries:
        assert isinstance(each.change, torch.Tensor)
        directions = lab.attribute(each.attribute, space=space)
        cosine = torch.cosine_similarity(each.change.flatten(), directions.directions.flatten(), dim=0)
        assert float(cosine) == pytest.approx(1)
        seeds = lab.seeds("calibration", 16)
        spread = spread_strength(lab.model, directions, 0, seeds, lab.sampler) * float(directions.directions[0].norm())
        assert float(each.change.norm()) == pytest.approx(spread, rel=0.005)


@pytest.mark.slow
def test_a_component_is_one_of_its_forms_and_turned_to_raise_the_attribute(lab: Lab) -> None:
    options = {"name": "pca", "k": 2, "num_samples": 24, "joint": True}
    forms = [lab.components(), lab.discover(**options, rotation=None), lab.discover(**options, rotation="varimax")]
    lines = torch.cat([each.directions for each in forms]).flatten(1)
    for each in found(lab, "PCA").entries:
        assert isinstance(each.change, torch.Tensor) and each.candidates == len(lines)
        cosines = torch.cosine_similarity(each.change.flatten()[None], lines, dim=1)
        assert float(cosines.abs().max()) == pytest.approx(1)
        effects = lab.odd_effects(0.25 * each.change[None], 1.0)
        assert effects.cell(0, each.attribute).value >= 0


def test_a_method_has_one_strength_for_all_draws_by_the_samples_of_all(lab: Lab) -> None:
    draws = [Draw(lab.draw(n), n, 1.0) for n in range(2)]
    (contender,) = contenders(["mean difference"])
    tried = trials(draws, contender)
    seeds = [draw.calibration_seeds for draw in draws]
    assert [len(each) for each in seeds] == [5, 5] and not set(seeds[0]) & set(seeds[1])
    for j, name in enumerate(lab.cfg.study.attributes):
        first, second = (each.entries[j] for each in tried)
        assert first.levels == second.levels and not first.fault
        assert isinstance(first.change, torch.Tensor) and isinstance(second.change, torch.Tensor)
        assert not torch.equal(first.change, second.change), "each draw has an edit of its own"
        column, moved = lab.annotator.attributes.index(name), []
        for draw, entry in zip(draws, (first, second), strict=True):
            assert entry.change is not None
            edit = {"edit": entry.levels[0].strength * entry.change}
            read = lab.read(edit, draw.calibration_seeds, by=lab.annotator, shown=1)
            moved.append((read.edited[0] - read.original)[:, column])
        effect = float(torch.cat(moved).double().mean() / lab.unit(lab.annotator)[column])
        assert first.levels[0].effect == pytest.approx(effect, abs=1e-4)


def test_a_draw_without_an_edit_leaves_the_others_their_strength(lab: Lab) -> None:
    def find(each: Lab, attribute: str) -> Sequence[Directions | Operator]:
        if each.cfg.seed > 0:
            raise InputError("too few examples")
        return [lab.attribute(attribute)]

    first, second = trials([Draw(lab.draw(n), n, 1.0) for n in range(2)], Contender("odd", find, lambda cfg: 1))
    assert {each.fault for each in second.entries} == {"too few examples"} and second.readings is None
    # Five samples of one draw are too few for a mean.
    assert {each.fault for each in first.entries} == {UNREADABLE}


@pytest.mark.parametrize("name", ["mean difference", "transport"])
def test_strengths_and_readings_are_those_of_the_house(lab: Lab, name: str) -> None:
    tried = found(lab, name)
    draw = Draw(alone(lab), 0, 1.0)
    assert tried.readings is not None and tried.readings.seeds == lab.seeds()
    edits = {
        f"{each.attribute} {i}": level.strength * each.change
        for each in tried.entries
        for i, level in enumerate(each.levels)
        if each.change is not None
    }
    judged, annotated = lab.read(edits, shown=1), lab.read(edits, draw.calibration_seeds, by=lab.annotator, shown=1)
    for part in ("original", "edited", "people", "features", "unit"):
        torch.testing.assert_close(getattr(tried.readings, part), getattr(judged, part), atol=1e-4, rtol=1e-4)
    for each in tried.entries:
        for i, level in enumerate(each.levels):
            row = tried.row(each.attribute, i)
            assert row is not None and judged.names[row] == f"{each.attribute} {i}"
            effect = annotated.effects().cell(row, each.attribute).value
            assert level.effect == pytest.approx(effect, abs=1e-4)
            assert not level.reached or level.effect > 0
        assert isinstance(each.change, Operator) == (name == "transport")
        assert name != "transport" or all(0 < level.strength <= 1 for level in each.levels)


def test_an_edit_that_breaks_an_image_costs_its_own_attribute_alone(lab: Lab) -> None:
    draw = Draw(alone(lab), 0, 1.0)
    reached = tuple(Level(strength, 0.1, True) for strength in (1.0, 2.0))
    edits = {name: draw.lab.attribute(name).directions[0] for name in ("skin", "age")}
    entries = tuple(
        Entry(name, name, edit, (Level(math.inf, 0.1, True),) * 2 if name == "skin" else reached)
        for name, edit in edits.items()
    )
    (contender,) = contenders(["mean difference"])
    broken = _read_by_judge(draw, contender, entries)
    assert "skin at 0.1 sd" in broken.entries[0].fault and "NaN or infinite" in broken.entries[0].fault
    assert not broken.entries[1].fault and broken.row("age", 1) == 1
    whole = _read_by_judge(draw, contender, (entries[1],))
    assert broken.readings is not None and whole.readings is not None
    assert torch.equal(broken.readings.edited, whole.readings.edited)


def test_a_direction_without_an_attribute_is_turned_even_where_it_is_alone(lab: Lab) -> None:
    draw, given = Draw(alone(lab), 0, spread_of(lab)), lab.attribute("skin")
    turned = replace(given, directions=-given.directions)
    either = [_chosen(draw, [each], "skin", aimed=False)[0] for each in (given, turned)]
    aimed = [_chosen(draw, [each], "skin", aimed=True)[0] for each in (given, turned)]
    for first, second, same in ((*either, 1.0), (*aimed, -1.0)):
        assert isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
        torch.testing.assert_close(first, same * second)


def test_what_needs_other_attributes_says_so_where_there_is_one(lab: Lab) -> None:
    few = replace(lab, cfg=replace(lab.cfg, study=replace(lab.cfg.study, attributes=("skin",))))
    for name in ("matched examples", "disentangled by LEACE", "counter-edit"):
        (contender,) = contenders([name])
        with pytest.raises(InputError, match="needs another attribute than the edited one"):
            contender.find(few, "skin")


def test_what_takes_an_attribute_off_is_aimed_below_zero(lab: Lab) -> None:
    tried = found(lab, "erase")
    figures = compare_methods._figures(tried, lab.cfg.study.attributes, 0.1)
    assert tried.readings is not None and tried.contender.sign == -1
    for j, each in enumerate(tried.entries):
        row = tried.row(each.attribute, 0)
        assert row is not None and all(level.effect < 0 for level in each.levels if level.reached)
        assert Figures(*figures[j, 0]).effect == -tried.readings.effects().cell(row, each.attribute).value


def test_a_method_that_fails_is_a_row_that_says_so(lab: Lab) -> None:
    tried = found(replace(lab, cfg=replace(lab.cfg, study=replace(lab.cfg.study, examples=12))), "matched examples")
    assert tried.readings is None
    assert all("pairs with and without" in each.fault and each.levels == () for each in tried.entries)
    assert np.isnan(compare_methods._figures(tried, lab.cfg.study.attributes, 0.1)).all()
    assert not compare_methods._reached(tried).any()
    assert math.isnan(compare_methods._seconds([tried]))


def test_the_mean_of_seconds_is_of_the_edits_that_there_are() -> None:
    draws = [
        Trial(CONTENDERS[0], (Entry("skin", fault="too few"), Entry("age", seconds=seconds)), None)
        for seconds in (3.0, 5.0, 4.0)
    ]
    assert compare_methods._seconds(draws) == 4.0


def test_a_level_of_too_few_samples_is_not_read(lab: Lab) -> None:
    few = replace(lab, cfg=replace(lab.cfg, evaluation=replace(lab.cfg.evaluation, num_samples=9)))
    assert {each.fault for each in found(few, "mean difference").entries} == {UNREADABLE}
    assert not any(each.fault for each in found(lab, "mean difference").entries)


def test_levels_of_one_precision_do_not_serve_another(lab: Lab) -> None:
    draw, change = Draw(alone(lab), 0, 1.0), torch.ones(3, *lab.model.h_shape)
    half = replace(draw, lab=replace(draw.lab, cfg=replace(draw.lab.cfg, dtype="float16")))
    sizes = []
    for each in (draw, draw, half):
        equal_effect._calibrated([(each, change)], "skin", 1)
        sizes.append(len(list(lab.cfg.cache_dir.rglob("levels.json"))))
    assert sizes[0] == sizes[1] == sizes[2] - 1


def test_the_control_chooses_among_as_many_directions_as_pca_and_no_draw_has_anothers(lab: Lab) -> None:
    (control,) = contenders(["random"])
    draws = [[each for each in control.find(lab.draw(n), "skin") if isinstance(each, Directions)] for n in range(2)]
    lines = [torch.cat([each.directions for each in forms]).flatten(1) for forms in draws]
    assert len(lines[0]) == 3 * lab.pca.k and len(torch.cat(lines).unique(dim=0)) == 6 * lab.pca.k
    for form in draws[0]:
        torch.testing.assert_close(form.norms(), lab.components().norms())


def matrix(effect: list[list[float]]) -> EffectMatrix:
    """Effects on a and b that are known to .01."""
    values = np.array(effect)
    small = np.tile(1e-4 * np.eye(2), (len(values), 1, 1))
    names = tuple(str(j) for j in range(len(values)))
    return EffectMatrix(
        ("a", "b"), names, values, values, values, 0 * values, np.full(values.shape, 99), small
    )  # fmt: skip


def test_the_most_selective_of_the_strong_directions_is_chosen() -> None:
    forms = [matrix([[2.0, 2.0], [0.5, 0.0]]), matrix([[-1.1, 0.1], [1.5, 1.0]])]
    assert best_of(forms, "a") == (1, 0), "half as strong as the strongest, and nearly alone"
    assert best_of(forms, "b") == (0, 0)
    assert best_of([matrix([[math.nan, 1.0], [0.1, 1.0]])], "a") == (0, 1)


def words(tiny_pipeline_dir: Path, tmp_path: Path) -> list[str]:
    paths = [f"model.path={tiny_pipeline_dir}", f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path}"]
    return [*COMPARISON, FEW, *paths]


@pytest.mark.slow
def test_the_experiment_goes_on_where_it_was_stopped_and_is_used_again(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, tried = compare_methods.trials, list[str]()

    def stopping(after: int) -> Callable[[Sequence[Draw], Contender], list[Trial]]:
        def one(draws: Sequence[Draw], contender: Contender) -> list[Trial]:
            if len(tried) == after:
                raise KeyboardInterrupt
            tried.append(contender.name)
            return real(draws, contender)

        return one

    given, run = words(tiny_pipeline_dir, tmp_path), tmp_path / "run"
    monkeypatch.setattr(compare_methods, "trials", stopping(2))
    assert main(given) == 130 and len(tried) == 2
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    monkeypatch.setattr(compare_methods, "trials", stopping(99))
    assert main(given) == 0 and kept
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items()), "nothing is made again"
    assert "mean difference of x_T: 5 of 5 methods done" in caplog.text
    record = json.loads((run / "run.json").read_text())
    columns = record["findings"]["methods"]["columns"]
    chosen = [row[columns.index("chosen among")] for row in record["findings"]["methods"]["rows"]]
    assert chosen == [1, 1, 1, 6, 1]
    assert [row[0] for row in record["findings"]["methods"]["rows"]] == [
        "mean difference", "matched examples", "erase", "PCA", "mean difference of x_T"
    ]  # fmt: skip
    with (run / "tables" / "attributes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * 2 * 2
    with (run / "samples" / "scores_1.csv").open() as file:
        scores = list(csv.DictReader(file))
    unedited = [row for row in scores if row["edit"] == "unedited"]
    assert len(unedited) == 12 and unedited[0]["seed"] == "2000012" and (len(scores) - 12) % 48 == 0
    assert (run / "figures" / "effect_identity.png").is_file()
    written = (run / "run.json").stat().st_mtime_ns
    assert main(given) == 0 and (run / "run.json").stat().st_mtime_ns == written


def test_an_unknown_method_is_one_line(
    tiny_pipeline_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(tiny_pipeline_dir, tmp_path), "study.methods=[ISA]"]) == 2
    assert "unknown study.methods 'ISA': did you mean 'ICA'?" in capsys.readouterr().err


def test_the_published_sizes_are_those_of_intervals_and_the_fast_ones_few() -> None:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        whole, fast = (
            parse(compose("config", overrides=["experiment=compare_methods", *words])) for words in ([], ["size=fast"])
        )
    assert contenders(whole.study.methods) == CONTENDERS and len(whole.study.attributes) >= 6
    assert whole.study.repeats >= 5 and whole.study.repeats * whole.evaluation.num_samples >= 400
    assert whole.study.index == getattr(whole.method, "num_samples", 0), "samples are shared"
    assert 3 <= len(contenders(fast.study.methods)) < 7 and fast.study.repeats == 1


def test_what_is_compared_again_differs_in_methods_attributes_and_model_alone() -> None:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        first, again, latent = (
            to_dict(parse(compose("config", overrides=[f"experiment={name}"]))) for name in ("compare_methods", *AGAIN)
        )

    def different(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
        flat = [{f"{k}.{j}" if isinstance(v, dict) else k: w for k, v in each.items()
                 for j, w in (v.items() if isinstance(v, dict) else [("", v)])} for each in (a, b)]  # fmt: skip
        return {key for key in flat[0] if flat[0][key] != flat[1][key]}

    told = {"name", "output_dir", "study.title", "study.expect"}
    assert different(first, again) - told == {"study.methods", "study.attributes"}
    assert different(again, latent) - told == {"model.name", "model.path"}


def test_every_name_can_be_said_on_the_command_line() -> None:
    names = [each.name for each in (*CONTENDERS, *FURTHER)]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = compose("config", overrides=["experiment=compare_methods", f"study.methods=[{','.join(names)}]"])
    assert list(parse(cfg).study.methods) == names
