"""One rule says which networks read a model's images: of its own world at any size, and of what nobody knows."""

import logging
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from hspace.commands.studio import usual_sliders
from hspace.diffusion.checkpoints import load_model
from hspace.directions.method import get_method
from hspace.directions.record import Directions
from hspace.directions.shipped import ready_path
from hspace.evaluation.readings import score
from hspace.experiments.demo import ready_files
from hspace.runs.config import Config
from hspace.runs.discovery import RunSources
from hspace.runs.parsing import parse
from hspace.runs.readers import refusal
from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.studio.sliders import Bench, load_bench
from hspace.system.files import package_path
from hspace.types import InputError


@cache
def config(*words: str) -> Config:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return parse(compose("config", overrides=["device=cpu", "diffusion.num_steps=10", *words]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=portraits"], None),
        (["model=portraits-128"], None),
        (["model=rooms"], None),
        (["model=local", "model.path=FOLDER"], None),
        (["model.path=FOLDER"], None),
        (["model=celebahq", "evaluation=faceapi"], None),
        (["model=rooms", "evaluation=portraits"], "model=rooms makes rooms"),
        (["model=portraits-128", "evaluation=rooms"], "model=portraits-128 makes portraits"),
        (["model=celebahq", "evaluation=portraits"], "model=celebahq makes photographs"),
    ],
)
def test_all_roles_follow_one_rule(words: list[str], said: str | None) -> None:
    cfg = config(*words)
    for role in ("annotator", "judge", "identity", "regions"):
        found = refusal(cfg, role)
        assert found is None if said is None else found and found.startswith(said) and f"evaluation.{role}=" in found


def test_the_studio_reads_portraits_of_128_pixels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="hspace"):
        bench = load_bench(config("model=portraits-128"), [])
    assert bench.model.image_shape == (3, 128, 128) and not caplog.messages
    assert bench.annotator is not None and bench.annotator.id == "portraits-annotator"
    assert bench.identity is not None and bench.identity.id == "portraits-identity"


def test_a_named_mask_of_portraits_of_128_pixels_lies_where_the_region_is() -> None:
    cfg = config("model=portraits-128", "method=jacobian")
    model = load_model("portraits-128", num_steps=10, device="cpu")
    sources = RunSources(cfg, model, load_scorer("portraits-annotator"), get_method("jacobian"))
    face, mouth, eyes = (sources.mask(region, 0) for region in ("face", "mouth", "eyes"))
    assert face.shape == mouth.shape == model.sample_shape[1:] == (16, 16)
    assert not (mouth & ~face).any() and 0 < mouth.sum() < face.sum() / 4
    assert mouth.nonzero()[:, 0].double().mean() > eyes.nonzero()[:, 0].double().mean() + 1


def test_a_mask_of_a_world_that_the_model_does_not_draw_is_refused() -> None:
    cfg = config("model=portraits", "evaluation.regions=rooms-regions", "method=jacobian")
    model = load_model("portraits", num_steps=10, device="cpu")
    sources = RunSources(cfg, model, load_scorer("portraits-annotator"), get_method("jacobian"))
    line = "method.mask=bed: model=portraits makes portraits, and evaluation.regions=rooms-regions reads rooms"
    with pytest.raises(InputError, match=line):
        sources.mask("bed", 0)


def test_embedded_networks_read_grey_images() -> None:
    grey = torch.rand(2, 1, 64, 64) * 2 - 1
    for network in (load_scorer("portraits-annotator"), load_scorer("portraits-judge"), load_identity()):
        assert torch.equal(score(network, grey), score(network, grey.expand(2, 3, 64, 64)))
    grey_masks, masks = (load_regions()(images) for images in (grey, grey.expand(2, 3, 64, 64)))
    assert all(torch.equal(grey_masks[name], masks[name]) for name in masks)


@pytest.mark.parametrize("own", [True, False])
def test_a_folder_of_ones_own_is_not_the_embedded_model_of_its_name(
    own: bool, tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if own:
        shutil.copytree(tiny_pipeline_dir, "portraits")
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        words = ["model=portraits"], ["model=local", "model.path=portraits"]
        chosen, named = (parse(compose("config", overrides=each)).model.path for each in words)
    assert chosen == "portraits" and named == ("./portraits" if own else "portraits")
    model = load_model(named, num_steps=3, device="cpu")
    assert model.model_id == named and model.image_shape[1] == (16 if own else 64)
    assert ready_files(model) == ([] if own else [ready_path("portraits")])


def test_directions_of_the_embedded_model_are_not_those_of_a_folder_of_its_name(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs/demo").mkdir(parents=True)
    shutil.copyfile(ready_path("portraits"), "outputs/demo/directions.safetensors")
    Path("outputs/broken").mkdir()
    Path("outputs/broken/directions.safetensors").write_bytes(b"no directions")
    found = usual_sliders(bench_of("model=portraits"))
    names = Directions.load(ready_path("portraits")).meta.names
    assert {str(slider.path) for slider in found} == {"outputs/demo/directions.safetensors"}
    assert [slider.name for slider in found] == list(names)
    shutil.copytree(tiny_pipeline_dir, "portraits")
    assert usual_sliders(bench_of("model.path=./portraits", "diffusion.num_steps=3")) == []


def bench_of(*words: str) -> Bench:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        return load_bench(parse(compose("config", overrides=["tracking.mode=disabled", *words])), [])
