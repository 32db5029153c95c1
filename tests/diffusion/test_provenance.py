"""Each field of a provenance is compared, and one line names it, both values and the remedy."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.identity import WEIGHTS
from hspace.diffusion.provenance import FIELDS, ProcessFacts, Provenance, conditioning_of
from hspace.types import InputError

PROCESS = ProcessFacts((500, 0), ((0.6, 0.8), (0.8, 0.6), (1.0, 0.0)), "epsilon")
WHOLE = Provenance(
    {WEIGHTS: "0" * 64, "network.config": "1" * 64}, PROCESS, ("after",), conditioning_of("a man", 7.5), (1.0, 0.5),
    "symmetric", {"id": "judge", "sha256": "2" * 64},
)  # fmt: skip
OTHERS: list[tuple[str, Any, str]] = [
    ("model", {WEIGHTS: "0" * 64, "network.config": "3" * 64}, "network.config 111111111111 in the samples, network.c"),
    (
        "model",
        {WEIGHTS: "0" * 64, "network.config": "1" * 64, "tokenizer.config": "4" * 64},
        "tokenizer.config none in",
    ),
    (
        "process",
        replace(PROCESS, timesteps=(499, 0)),
        r"timesteps \[500, 0\] in the samples, timesteps \[499, 0\] here",
    ),
    (
        "process",
        replace(PROCESS, prediction_type="sample"),
        "prediction_type epsilon in the samples, prediction_type s",
    ),
    ("process", replace(PROCESS, levels=((0.6, 0.8), (0.7, 0.7), (1.0, 0.0))), r"levels .*\(0.8, 0.6\).*\(0.7, 0.7\)"),
    ("tap", ("middle",), "after in the samples, middle here"),
    ("tap", ("after", "middle"), r"after in the samples, \['after', 'middle'\] here"),
    ("conditioning", conditioning_of("a dog", 7.5), "prompt [0-9a-f]{12} in the samples, prompt [0-9a-f]{12} here"),
    ("conditioning", conditioning_of("a man", 3.0), "guidance 7.5 in the samples, guidance 3 here"),
    ("conditioning", {}, "guidance 7.5, prompt [0-9a-f]{12} in the samples, guidance none, prompt none here"),
    ("eta", (1.0, 1.0), r"\[1.0, 0.5\] in the samples, 1 here"),
    ("injection", "asyrp", "symmetric in the samples, asyrp here"),
    ("annotator", {"id": "judge", "sha256": "5" * 64}, "sha256 222222222222 in the samples, sha256 555555555555 here"),
]


def test_every_field_has_a_case() -> None:
    assert {name for name, *_ in OTHERS} == set(FIELDS)


@pytest.mark.parametrize(("name", "value", "said"), OTHERS)
def test_a_difference_is_refused_or_stated(name: str, value: Any, said: str) -> None:
    other = replace(WHOLE, **{name: value})
    with pytest.raises(InputError, match=f"^the samples do not fit: {name} is {said}.*; allow={name} uses") as error:
        WHOLE.check(other, "samples")
    assert str(error.value).isprintable() and len(str(error.value)) < 400
    with pytest.raises(InputError):
        WHOLE.check(other, "samples", [each for each in FIELDS if each != name])
    (stated,) = WHOLE.check(other, "samples", [name])
    assert stated in str(error.value)
    assert WHOLE.check(replace(other, **{name: getattr(WHOLE, name)}), "samples") == ()


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("model", "process")])
def test_what_one_of_both_does_not_know_is_not_compared(name: str) -> None:
    unknown = replace(WHOLE, **{name: None})
    assert WHOLE.check(unknown, "samples") == unknown.check(WHOLE, "samples") == ()


def test_rounding_of_another_machine_is_no_difference() -> None:
    levels = tuple((a * (1 + 1e-8), b * (1 - 1e-8)) for a, b in PROCESS.levels)
    assert WHOLE.check(replace(WHOLE, process=replace(PROCESS, levels=levels)), "samples") == ()


def test_another_number_of_steps_is_not_said_to_be_allowable() -> None:
    other = Provenance(WHOLE.model, ProcessFacts((500,), (), "epsilon"))
    with pytest.raises(InputError, match=r"; take 2 steps$"):
        WHOLE.check(other, "samples")


def test_json_gives_it_back() -> None:
    assert Provenance.from_dict(json.loads(json.dumps(WHOLE.to_dict()))) == WHOLE


def test_that_of_a_model_follows_all_that_samples_depend_on(tiny_sd_dir: Path) -> None:
    def origin(eta: float = 1.0, **options: Any) -> Provenance:
        return load_model(str(tiny_sd_dir), **({"num_steps": 3, "device": "cpu"} | options)).provenance(eta=eta)

    ours = origin(prompt="a man")
    assert origin(prompt="a man", dtype="float64") == ours
    for options in (
        {"prompt": "a dog"}, {"prompt": "a man", "guidance": 2.0}, {"prompt": "a man", "tap": "before"},
        {"prompt": "a man", "spacing": "trailing"}, {"prompt": "a man", "num_steps": 4},
        {"prompt": "a man", "eta": 0.5},
    ):  # fmt: skip
        given: Any = options
        assert origin(**given) != ours
    assert "a man" not in json.dumps(ours.to_dict())


def test_the_scheduler_counts_by_the_steps_that_it_leads_to(tiny_model: DiffusionModel) -> None:
    parts = tiny_model.identity.parts
    other = replace(tiny_model, identity=replace(tiny_model.identity, parts=parts | {"scheduler.config": "0" * 64}))
    assert other.identity.sha256 != tiny_model.identity.sha256
    assert other.provenance() == tiny_model.provenance()
