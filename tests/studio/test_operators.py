"""An operator as a slider of the page: from nothing to the whole map, alone or with directions beside it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from vectors import operator_of

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.directions.operators import Operator
from hspace.directions.record import Directions
from hspace.edits.changes import operate
from hspace.evaluation.ranges import SliderRange, with_ranges
from hspace.runs.parsing import parse
from hspace.studio.editing import beyond_safe, shown_factors
from hspace.studio.session import Edit, Session
from hspace.studio.sliders import load_bench
from hspace.system.files import package_path
from hspace.types import InputError


@pytest.fixture
def operator(tiny_model: DiffusionModel) -> Operator:
    return operator_of(tiny_model)


@pytest.fixture
def session(operator: Operator, tiny_pipeline_dir: Path, directions_file: Path, tmp_path: Path) -> Session:
    return opened(operator, tiny_pipeline_dir, directions_file, tmp_path)


def directions_of_x_T(model: DiffusionModel) -> Directions:
    return Directions.of(model, torch.ones(2, *model.sample_shape), names=("smile", "age"), space="x_T", eta=1.0)


def opened(operator: Operator, tiny_pipeline_dir: Path, directions_file: Path, tmp_path: Path) -> Session:
    """A session with the operator as its first slider, and a direction as its second."""
    operator.save(tmp_path / "operator.safetensors")
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = parse(compose("config", [f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3"]))
    files = [str(tmp_path / "operator.safetensors"), f"{directions_file}:smile"]
    return Session(load_bench(cfg, files), tmp_path, seeds=(2_000_000,))


def test_its_strip_and_its_exact_image_are_what_the_operator_makes(
    session: Session, tiny_model: DiffusionModel, operator: Operator
) -> None:
    told = session.describe(0)
    assert told["strengths"] == [i / 8 for i in range(9)] and told["operator"] and told["name"] == "skin"
    source = session.source("seed-2000000")
    late = Sampler(start=1, stop=3)
    expected = operate(tiny_model, source.latents, operator, strengths=told["strengths"], sampler=late)[0]
    *previews, strip = session.strip(source, 0, 1, 3)
    assert len(previews) == 2 and torch.allclose(strip, expected, atol=1e-4)
    assert torch.allclose(strip[0], source.x_0[0], atol=1e-4) and (strip[8] - strip[4]).abs().max() > 1e-3
    *_, exact = session.exact(source, Edit({0: 0.5}, 1, 3))
    assert torch.allclose(exact[0], expected[4], atol=1e-4)


def test_a_direction_beside_it_is_added_at_the_steps_that_are_edited(
    session: Session, tiny_model: DiffusionModel, operator: Operator
) -> None:
    assert operator.shift is not None
    source, late = session.source("seed-2000000"), Sampler(start=1, stop=3)
    direction = session.sliders[1].directions.directions[0]
    *_, image = session.exact(source, Edit({0: 0.5, 1: -2.0}, 1, 3))
    both = replace(0.5 * operator, shift=0.5 * operator.shift - 2.0 * direction)
    expected = operate(tiny_model, source.latents, both, strengths=[1.0], sampler=late)[0]
    assert torch.allclose(image, expected, atol=1e-4)
    assert shown_factors(session.bench, [0.5, -2.0], 2) == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("terms", "line"),
    [
        ({0: 1.5}, r"must be in \[0, 1\], got 1.5"),
        ({0: 0.5, 1: 1.0, 2: 0.5}, "an edit takes one operator, got skin, skin"),
    ],
)
def test_what_it_cannot_is_told(session: Session, terms: dict[int, float], line: str) -> None:
    session.sliders.append(session.sliders[0])
    with pytest.raises(InputError, match=line):
        session.exact(session.source("seed-2000000"), Edit(terms))
    terminal = directions_of_x_T(session.bench.model)
    session.sliders[1] = replace(session.sliders[1], found=terminal)
    with pytest.raises(InputError, match="skin is an operator of h, beside which x_T is not edited"):
        session.exact(session.source("seed-2000000"), Edit({0: 0.5, 1: 1.0}))
    with pytest.raises(InputError, match="holds an operator, and this is done with directions"):
        session.save_direction(Edit({0: 0.5}), "mine")


@pytest.mark.parametrize(("high", "end"), [(0.6, 0.6), (0.0, 0.25)])
def test_a_measured_one_ends_where_it_is_safe(
    high: float, end: float, operator: Operator, tiny_pipeline_dir: Path, directions_file: Path, tmp_path: Path
) -> None:
    even = tuple(high * (i / 8) ** 2 for i in range(9))
    tried = tuple(i / 8 for i in range(9))
    measured = SliderRange(
        "skin", 0.0, high, "untested", "age", even, tried, tuple((s, s - 0.1, s + 0.1) for s in tried), (), {}, "none",
        tuple(range(1_000_000, 1_000_012)),
    )  # fmt: skip
    session = opened(with_ranges(operator, {0: measured}), tiny_pipeline_dir, directions_file, tmp_path)
    told = session.describe(0)
    assert told["measured"] and told["operator"] and (told["safe"], told["because"][1]) == ([0.0, high], "age")
    assert told["strengths"] == (list(even) if high else pytest.approx([end * i / 8 for i in range(9)]))
    *_, strip = session.strip(session.source("seed-2000000"), 0, 0, 3)
    assert len(strip) == 9
    bench = session.bench
    alone = replace(bench, sliders=bench.sliders[:1])
    (line, *_) = beyond_safe(alone, [0.7])
    assert line == f"skin at 0.7 is outside its safe range, 0 to {high:g}: beyond it age changes too much"
    assert beyond_safe(alone, [high]) == []
    # The pictures go from 0 to the strength of the edit, evenly apart as the slider is.
    factors = shown_factors(alone, [0.6], 4)
    assert factors == pytest.approx([(i / 8) ** (2 if high else 1) for i in range(9)])


def test_a_sum_tells_of_all_that_is_in_it(session: Session, tmp_path: Path) -> None:
    slider = session.sliders[1]
    meta, annotator = slider.found.meta, {"id": "someone", "sha256": "0" * 64}
    by = replace(
        meta, provenance=replace(meta.provenance, annotator=annotator), differences=("eta was .5",), seeds=(1, 2)
    )
    session.sliders += [replace(slider, found=replace(slider.found, meta=by))]
    number = session.save_direction(Edit({1: 1.0, 2: 0.5}), "both")
    kept = session.sliders[number].found.meta
    assert kept.provenance.annotator == annotator and kept.differences == ("eta was .5",) and kept.seeds == (1, 2)
    other = replace(by, provenance=replace(by.provenance, annotator=annotator | {"id": "another"}))
    session.sliders += [replace(slider, found=replace(slider.found, meta=other))]
    with pytest.raises(InputError, match="directions of different annotators cannot be kept as one"):
        session.save_direction(Edit({2: 1.0, 4: 0.5}), "neither")
    source, moved = session.source("seed-2000000"), Edit({1: 1.0, 2: 0.5})
    *_, image = session.exact(source, moved)
    saved = session.save_picture(source, moved, image, "a note")
    told = json.loads(saved.with_suffix(".json").read_text())["terms"]
    assert told == [{"name": "smile", "strength": 1.0}, {"name": "smile", "strength": 0.5}], "two of one name"


def test_a_saved_picture_has_no_seam(session: Session, photograph: Path) -> None:
    """What the model does not see stays as it is, and the change fades towards it."""
    session.photographs += (photograph,)
    source = session.source("photo-0")
    saved = np.array(Image.open(session.save_picture(source, Edit({1: 1.0}), source.x_0 + 0.5, "a note"))).astype(int)
    change = np.abs(saved - source.photo.pixels).max(axis=2)
    top, left, bottom, right = source.photo.box
    assert change.sum() == change[top:bottom, left:right].sum() and left > 0
    row = change[(top + bottom) // 2]
    assert row.max() > 40 and np.abs(np.diff(row)).max() <= 15
