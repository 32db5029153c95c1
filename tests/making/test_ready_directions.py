"""Ready-made directions of a tiny model: each where the annotator sees 1 sd, and read by the judge."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ready_directions
import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from hydra import compose, initialize_config_dir
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.directions.record import Directions
from hspace.directions.shipped import ready_path
from hspace.edits.sums import edit
from hspace.evaluation.ranges import range_of
from hspace.evaluation.readings import score
from hspace.experiments.equal_effect import Draw, scaled, spread_of
from hspace.metrics.interval import Interval
from hspace.output.tables import to_markdown
from hspace.runs.blocks import read_log
from hspace.runs.lab import Lab
from hspace.runs.parsing import parse
from hspace.system.files import package_path
from hspace.types import InputError

WORDS = [
    "study.attributes=[contrast,ripple]", "study.index=24", "study.examples=4", "evaluation.strength_samples=10",
    "evaluation.calibration_samples=10", "evaluation.reference_samples=16", "evaluation.num_samples=10",
]  # fmt: skip


class Halves:
    """Half against half of the image, and a score that changes so fast with it that no edit moves its mean by 1 sd."""

    attributes: tuple[str, ...] = ("contrast", "ripple")
    binary: tuple[bool, ...] = (False, False)
    dim: int = 2

    def __init__(self, name: str, axis: int) -> None:
        self.id: str = name
        self.axis: int = axis

    def __call__(self, images: Tensor) -> Tensor:
        first, second = (half.mean(dim=(1, 2, 3)) for half in images.chunk(2, dim=self.axis))
        return torch.stack([first - second, torch.sin(1e5 * (first - second))], dim=1)

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


class Unit(Halves):
    """A unit vector that turns with the contrast."""

    def __call__(self, images: Tensor) -> Tensor:
        angle = super().__call__(images)[:, 0]
        return torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.fixture(scope="module")
def model(make_unet: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """A network without skip connections that predicts the clean image, so that images come of h alone."""
    unet = make_unet()
    with torch.no_grad():
        for block, widths in zip(unet.up_blocks, ((16, 16), (16, 8)), strict=True):
            for part, hidden in zip(block.resnets, widths, strict=True):
                part.conv1.weight[:, hidden:] = 0
                part.conv_shortcut.weight[:, hidden:] = 0
    folder = tmp_path_factory.mktemp("ready") / "pipeline"
    scheduler = DDPMScheduler(prediction_type="sample", clip_sample=False)
    DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(folder)
    return load_model(str(folder), num_steps=3, device="cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def lab_of(model: DiffusionModel, folder: Path, *more: str) -> Lab:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        words = [*ready_directions.SETTINGS, *WORDS, f"cache_dir={folder}", "device=cpu", *more]
        cfg = parse(compose("config", overrides=words))
    cfg = replace(cfg, diffusion=replace(cfg.diffusion, num_steps=3))
    networks = Halves("annotator", 3), Halves("judge", 2), Unit("unit", 3)
    return Lab(cfg, model, *networks, None, None, "judge")


@pytest.mark.slow
def test_strength_1_moves_the_attribute_by_1_sd_for_the_annotator(model: DiffusionModel, cache: Path) -> None:
    lab = lab_of(model, cache)
    directions = ready_directions.ready(lab)
    assert directions.meta.names == ("contrast",)
    (row,) = ready_directions.card(directions).rows
    assert row[:2] == ("contrast", ready_directions.WORDS[directions.meta.settings["method"]["contrast"]])
    found = ready_directions.ranked(lab, "contrast")[0]
    assert found[0] == directions.meta.settings["method"]["contrast"]
    latents = model.latents(lab.calibrate(found[1], 0, "contrast", 1.0).seeds)
    images = edit(model, latents, directions, component=0, strengths=[0.0, 1.0], sampler=lab.sampler)
    before, after = (score(lab.annotator, images[:, i])[:, 0] for i in (0, 1))
    assert float((after - before).mean() / lab.unit(lab.annotator)[0]) == pytest.approx(1.0, abs=0.06)
    measured = range_of(directions, 0)
    assert measured is not None and measured.low < 0 < measured.high and len(measured.seeds) == ready_directions.RANGED
    effects = directions.meta.effects
    assert effects is not None and effects["judge"] == "judge" and effects["n"] == 10
    assert len(effects["attributes"]["contrast"]["effect"]) == len(ready_directions.READ)
    assert row[3] == Interval(*effects["attributes"]["contrast"]["effect"][2])


@pytest.mark.slow
def test_of_strong_candidates_the_most_selective_is_taken(model: DiffusionModel, cache: Path) -> None:
    """At one length for all, by the annotator on calibration samples."""
    lab = lab_of(model, cache)
    found = dict(ready_directions.candidates(lab, "contrast"))
    assert list(found) == ["boundary", "whitened", "regression"]
    draw = Draw(lab, 0, spread_of(lab))
    merits = {}
    for name, each in found.items():
        effects = lab.odd_effects(0.25 * scaled(draw, each.directions[0])[None], 1.0)
        merits[name] = abs(effects.cell(0, "contrast").value), effects.selectivity_of(0, "contrast").value
    strongest = max(size for size, _ in merits.values())
    strong = {name: selectivity for name, (size, selectivity) in merits.items() if size >= strongest / 2}
    chosen = [name for name, _ in ready_directions.ranked(lab, "contrast")]
    assert strong[chosen[0]] == pytest.approx(max(strong.values())) and sorted(chosen) == sorted(found)


def test_those_with_the_widest_ranges_are_kept_with_their_facts() -> None:
    found = Directions.load(ready_path("portraits"))
    ranges = {name: range_of(found, j) for j, name in enumerate(found.meta.names)}
    widths = {name: measured.high - measured.low for name, measured in ranges.items() if measured is not None}
    chosen = ready_directions.widest(found, 2)
    assert sorted(chosen.meta.names) == sorted(sorted(widths, key=lambda name: -widths[name])[:2])
    assert chosen.meta.effects is not None and set(chosen.meta.effects["attributes"]) == set(chosen.meta.names)
    assert set(chosen.meta.calibration or {}) == set(chosen.meta.settings["method"]) == set(chosen.meta.names)
    assert [range_of(chosen, j) for j in range(2)] == [ranges[name] for name in chosen.meta.names]
    index = found.meta.names.index(chosen.meta.names[1])
    assert torch.equal(chosen.directions[1], found.directions[index])


def test_the_card_on_the_page_is_that_of_the_file() -> None:
    page = ready_directions.PAGE.read_text(encoding="utf-8")
    begin, end = ready_directions.MARKS
    text = page.partition(begin)[2].partition(end)[0].strip()
    found = Directions.load(ready_path("portraits"))
    assert text == to_markdown(ready_directions.card(found)).strip()
    assert [line.split("|")[1].strip() for line in text.splitlines()[2 : 2 + len(found.meta.names)]] == list(
        found.meta.names
    )


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("study.target=2", "study.target must be 1, which is what strength 1 of a ready-made direction means, got 2"),
        pytest.param(
            "study.attributes=[ripple]",
            "no direction of study.attributes moves its own by 1 sd: ripple",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_has_no_strength_of_1_sd_is_one_line(model: DiffusionModel, cache: Path, word: str, line: str) -> None:
    with pytest.raises(InputError) as raised:
        ready_directions.ready(lab_of(model, cache, word))
    assert str(raised.value) == line


@pytest.mark.slow
def test_they_are_written_beside_the_weights_of_their_model(
    model: DiffusionModel, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_of(model, cache, f"output_dir={tmp_path / 'out'}")
    monkeypatch.setattr(
        ready_directions, "load", lambda cfg: replace(lab, cfg=replace(lab.cfg, output_dir=cfg.output_dir))
    )
    monkeypatch.setattr(
        ready_directions, "package_path", lambda name: package_path("conf") if name == "conf" else tmp_path
    )
    log, page = tmp_path / "readings.csv", tmp_path / "page.md"
    monkeypatch.setattr(ready_directions, "LOG", log)
    monkeypatch.setattr(ready_directions, "PAGE", page)
    page.write_text("before\n{}\n{}\nafter\n".format(*ready_directions.MARKS))
    words = [f"output_dir={tmp_path / 'out'}"]
    assert ready_directions.main(words) == 0
    assert not log.exists() and not (tmp_path / model.model_id).exists(), "nothing is published unasked"
    assert ready_directions.main([*words, "--publish"]) == 0
    written = Directions.load(tmp_path / model.model_id / "directions.safetensors")
    written.check(model, eta=1.0)
    assert "| contrast |" in (tmp_path / "out" / "ready.md").read_text() and "| contrast |" in page.read_text()
    (row,) = read_log(log)
    assert (row["block"], row["experiment"]) == ("1", "ready_directions")
    path = tmp_path / model.model_id / "directions.safetensors"
    monkeypatch.setattr(ready_directions, "ready_path", lambda name: path)
    monkeypatch.setattr(ready_directions, "state", lambda words: "another state")
    assert ready_directions.main([*words, "--again"]) == 0
    again = Directions.load(path)
    assert torch.equal(again.directions, written.directions) and again.meta.settings == written.meta.settings
    assert [row["block"] for row in read_log(log)] == ["1", "2"]
    assert range_of(again, 0) == range_of(written, 0)
