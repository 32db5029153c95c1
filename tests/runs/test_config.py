"""Every file of conf/ composes and parses, and every wrong value is one line that names it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from hspace.directions.settings import METHODS
from hspace.runs.config import Config, config_sha256, known_keys, to_dict
from hspace.runs.parsing import check_attributes, parse, settings_of
from hspace.system.files import package_path
from hspace.types import InputError

CONF = package_path("conf")
GROUPS = ("model", "dataset", "method", "edit", "evaluation", "tracking", "study", "experiment", "size", "debug")
CHOICES = [f"{group}={file.stem}" for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]
# Choices that leave a value to the user.
COMPLETED = {"model=local": "model.path=x", "dataset=folder": "dataset.path=x", "method=file": "method.path=x"}
COMPLETED["method=prompt_pairs"] = "method.prompt=x"
COMPLETED["evaluation=hub"] = "evaluation.annotator=hub:x"


def needed_by(method: str) -> list[str]:
    """Settings without which a method has no configuration."""
    return [COMPLETED[f"method={method}"]] if f"method={method}" in COMPLETED else []


@pytest.fixture(scope="module")
def composed() -> Callable[..., DictConfig]:
    def compose_with(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=list(overrides))

    return compose_with


FORMS = {"method=pca_per_step": "pca"}
"""Choices that are a method in another form, which keeps the method's name."""


@pytest.fixture(scope="module")
def default(composed: Callable[..., DictConfig]) -> Config:
    return parse(composed())


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_parses(composed: Callable[..., DictConfig], choice: str):
    group, _, name = choice.partition("=")
    config = to_dict(parse(composed(choice, *([COMPLETED[choice]] if choice in COMPLETED else []))))
    if group in ("model", "method", "dataset"):
        assert config[group]["name"] == FORMS.get(choice, name)
    if group == "experiment":
        assert config["name"] == name


def test_defaults_are_the_agreed_ones(default: Config):
    assert (default.seed, default.device, default.dtype) == (0, "auto", "float32")
    assert default.cache_dir == Path("outputs/cache")
    assert dataclasses.astuple(default.diffusion) == (10, 1.0, None, "symmetric")
    assert default.model.tap == "after" and default.edit.components is None
    assert default.tracking.mode == "offline" and default.evaluation.annotator != default.evaluation.judge


def test_experiment_values_win_over_the_defaults_and_lose_to_the_user(composed: Callable[..., DictConfig]):
    assert parse(composed("experiment=demo")).output_dir == Path("outputs/demo")
    assert parse(composed("experiment=demo", "output_dir=there")).output_dir == Path("there")
    assert parse(composed("debug=default", "method.k=3")).method.count() == 3


@pytest.mark.parametrize("small", ["debug=default", "size=fast"])
@pytest.mark.parametrize("method", [path.stem for path in sorted((CONF / "method").glob("*.yaml"))])
def test_small_sizes_go_with_every_method(composed: Callable[..., DictConfig], method: str, small: str):
    config = parse(composed(f"method={method}", small, *needed_by(method)))
    num_samples = getattr(config.method, "num_samples", None)
    assert num_samples is None or num_samples < 500
    assert (num_samples is None) == (method in ("jacobian", "pullback", "file", "ready"))


@pytest.mark.parametrize("method", METHODS.names())
def test_the_files_of_the_methods_say_their_defaults(composed: Callable[..., DictConfig], method: str):
    settings = METHODS.get(method).settings
    required = dict(word.removeprefix("method.").split("=") for word in needed_by(method))
    in_python = settings.model_validate_json(json.dumps({"name": method, **required}))
    cfg = composed(f"method={method}", *needed_by(method))
    assert parse(cfg).method == in_python
    assert set(cfg.method) == set(settings.model_fields)
    assert all(field.description for field in settings.model_fields.values())


def test_runs_without_a_folder_get_one_each(composed: Callable[..., DictConfig]):
    folders = {parse(composed()).output_dir for _ in range(4)}
    assert len(folders) == 4 and {folder.parent for folder in folders} == {Path("outputs/pca")}


def test_zero_is_a_value(composed: Callable[..., DictConfig]):
    config = parse(composed("seed=0", "diffusion.eta=0", "edit.start=0"))
    assert (config.seed, config.diffusion.eta, config.edit.start) == (0, 0.0, 0)


WRONG = {
    "seed=-1": "seed must be a whole number from 0",
    "seed=true": "got True",
    "seed=1.5": "got 1.5",
    "device=gpu": "unknown device 'gpu'",
    "dtype=float23": "did you mean 'float32'",
    "batch_size=-1": "batch_size must be a whole number of at least 0, got -1",
    "workers=0": "workers must be auto, or a whole number of at least 1, got 0",
    "workers=all": "workers must be auto, or a whole number of at least 1, got 'all'",
    "memory_gib=-1": "memory_gib must be a number in [0, inf], got -1",
    "output_dir=": "output_dir must be text that is not empty",
    "name=a/b": "got 'a/b'",
    "model.tap=midle": "did you mean 'middle'",
    "+model.guidance=-1": "model.guidance must be a number in [0, inf], got -1",
    "+model.prompt=": "model.prompt must be text that is not empty",
    "diffusion.num_steps=-3": "from 1 to 1000, got -3",
    "diffusion.num_steps=many": "got 'many'",
    "diffusion.eta=1.1": "diffusion.eta must be a number in [0, 1], got 1.1",
    "diffusion.eta=nan": "got nan",
    "diffusion.eta=[0,1]": "one number or 10 (one per step), got 2",
    "diffusion.eta=[0,0,0,0,0,0,0,0,0,2]": "diffusion.eta[9] must be a number in [0, 1], got 2",
    "diffusion.spacing=leeding": "did you mean 'leading'",
    "diffusion.injection=asyrpp": "did you mean 'asyrp'",
    "method.name=pac": "did you mean 'pca'",
    "method.k=0": "of at least 1, got 0",
    "method.k=500": "below method.num_samples=500",
    "method.k=null": "method.k must be a whole number of at least 1, got None",
    "dataset.path=x": "dataset.path must be null for rendered portraits, got x",
    "procedure=a/b": "procedure must be a name, or module:name, got 'a/b'",
    "method.num_samples=1000001": "got 1000001",
    "+method.mask=face.png": "method.mask is not read by method 'pca'",
    "+method.conditionz=[age]": "method.conditionz is not read by method 'pca', which reads joint, k, matched",
    "+method.joints=true": "unknown key 'method.joints': did you mean 'method.joint'",
    "~edit": "edit is missing",
    "edit.strengths=[a]": "edit.strengths[0] must be a number in [-1e+30, 1e+30], got 'a'",
    "edit.strengths=[inf]": "got inf",
    "edit.strengths=[0,1e300]": "edit.strengths[1] must be a number in [-1e+30, 1e+30], got 1e+300",
    "edit.strengths=3": "edit.strengths must be a list such as [0,1], got 3",
    "edit.strengths=[]": "edit.strengths must be a list",
    "edit.strengths=[0]": "besides 0",
    "edit.strengths=[-2,2,2.0000001]": "edit.strengths must not hold a value twice, got 2 again",
    "edit.effects=[-1,1,1]": "edit.effects must not hold a value twice, got 1 again",
    "edit.components=[0,0]": "edit.components must not hold a value twice, got 0 again",
    "study.attributes=[smile,smile]": "study.attributes must not hold a value twice, got smile again",
    "study.taps=[mod,mod]": "study.taps must not hold a value twice, got mod again",
    "edit.components=[8]": "below the number of directions, 8, got 8",
    "edit.components=[-1]": "edit.components[0]",
    "edit.start=10": "some of the 10 steps, got 10 to None",
    "edit.stop=11": "got 0 to 11",
    "evaluation.judge=portraits-annotator": "would grade its own choices",
    "evaluation.judge=portraits-juge": "did you mean 'portraits-judge'",
    "evaluation.num_samples=1": "evaluation.num_samples must be a whole number from 2 to 10000, got 1",
    "evaluation.num_samples=1000000000": "from 2 to 10000, got 1000000000",
    "study.repeats=1000000000": "study.repeats must be at most 625 for evaluation.num_samples=16",
    "evaluation.allow_same_scorer=perhaps": "true or false, got 'perhaps'",
    "tracking.mode=onlin": "did you mean 'online'",
    "tracking.tags=a": "got 'a'",
    f"tracking.tags=[{'x' * 65}]": "tracking.tags[0] must be text of at most 64 letters",
    f"tracking.project={'x' * 101}": "tracking.project must be a word of at most 100 letters",
    "tracking.project='a/b'": "tracking.project must be a word",
    "tracking.project='a b?'": "tracking.project must be a word",
    f"tracking.group={'x' * 129}": "tracking.group must be text of at most 128 letters",
    f"name={'x' * 101}": "name must be a word of at most 100 letters",
    "+tracking.colour=blue": "unknown key 'tracking.colour'",
    "model=local": "model.path is missing",
    "method=file": "method.path is missing",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_one_line_that_names_it(composed: Callable[..., DictConfig], override: str):
    with pytest.raises(InputError) as error:
        parse(composed(override))
    message = str(error.value)
    assert WRONG[override] in message and "\n" not in message and len(message) < 250


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("supervised", "conditions", ["age", "smile"]), ("boundary", "match", ["smile"]), ("switch", "target", "smile"),
        ("counter", "conditions", ["smile"]), ("transport", "match", ["smile"]), ("trained", "conditions", ["smile"]),
    ],
)  # fmt: skip
def test_an_attribute_is_not_its_own_condition(method: str, key: str, value: str | list[str]):
    with pytest.raises(InputError, match=rf"method\.{key} must not name method\.attribute itself, got smile"):
        settings_of({"name": method, "attribute": "smile", key: value})
    other = "age" if isinstance(value, str) else ["age"]
    assert getattr(settings_of({"name": method, "attribute": "smile", key: other}), key) is not None


@pytest.mark.parametrize("method", ["supervised", "switch", "transport", "self_discovered", "counter"])
def test_there_are_samples_for_both_sides(method: str):
    values = {"name": method, "k": 6, "num_samples": 11} | ({"base": "whitened"} if method == "counter" else {})
    with pytest.raises(InputError, match=r"method\.k must be at most half of method\.num_samples=11"):
        settings_of(values)
    assert settings_of(values | {"num_samples": 12}).count() == 1


def test_an_unknown_attribute_names_the_nearest(default: Config):
    method = settings_of({"name": "supervised", "attribute": "smile", "conditions": ["age", "gendre"]})
    with pytest.raises(InputError, match=r"unknown method\.conditions 'gendre': did you mean 'gender'"):
        check_attributes(dataclasses.replace(default, method=method), ("smile", "age", "gender"))


def test_the_hash_follows_what_determines_results(default: Config):
    same = dataclasses.replace(default, batch_size=3, device="cpu", output_dir=Path("elsewhere"))
    assert config_sha256(default) == config_sha256(same)
    assert config_sha256(default) != config_sha256(dataclasses.replace(default, seed=1))


def test_every_key_is_reachable_by_its_dotted_name(composed: Callable[..., DictConfig]):
    cfg = composed()
    sections = {"model", "dataset", "diffusion", "method", "edit", "evaluation", "tracking"}
    for key in set(known_keys()) - sections:
        section, _, name = key.rpartition(".")
        assert name in (cfg[section] if section else cfg) or section in ("method", "model")


def test_each_file_opens_with_what_it_is_and_its_launch_line():
    for file in CONF.glob("*/*.yaml"):
        comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
        assert comments and any("Launch:" in line for line in comments), file


@pytest.mark.parametrize("name", ["compare_methods", "table1", "transformer"])
def test_edits_are_compared_at_an_effect(composed: Callable[..., DictConfig], name: str) -> None:
    with pytest.raises(InputError, match=r"study\.target must be more than 0"):
        parse(composed(f"experiment={name}", "study.target=0"))


def test_an_edit_of_the_noise_has_no_steps_to_leave_out(composed: Callable[..., DictConfig]) -> None:
    words = ["method=supervised", "method.attribute=smile", "method.space=x_T"]
    with pytest.raises(InputError, match=r"method\.space=x_T has none: leave them out, got 3 to None"):
        parse(composed(*words, "edit.start=3"))
    parse(composed(*words, "edit.stop=10"))
