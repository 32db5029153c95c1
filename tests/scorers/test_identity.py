"""A scorer is known by all that its scores depend on."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hspace.directions.record import Directions
from hspace.directions.shipped import ready_path
from hspace.scorers.embedded import WorldScorer
from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.scorers.identity import scorer_identity
from hspace.scorers.networks import PlainNet, ResidualNet
from hspace.worlds.portraits.faces import PORTRAITS
from hspace.worlds.world import WORLDS

OWN = """
import torch


class Brightness:
    id = "brightness"
    attributes = ("light",)
    binary = (False,)

    def __init__(self, factor=1.0):
        self.factor = factor
        self.helper = object()

    def __call__(self, images):
        return {FACTOR} * self.factor * images.mean(dim=(1, 2, 3))[:, None]

    def visible(self, scores):
        return torch.ones_like(scores, dtype=torch.bool)
"""


def imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def own_scorer(path: Path, **arguments: Any) -> Any:
    return imported(path).Brightness(**arguments)


def test_the_embedded_ones_all_differ_and_are_the_same_when_loaded_again() -> None:
    names = ("portraits-annotator", "portraits-judge")
    networks = [*map(load_scorer, names), load_identity(), load_regions()]
    found = [scorer_identity(network) for network in networks]
    assert len({each["sha256"] for each in found}) == 4
    assert scorer_identity(load_scorer(names[0])) == found[0]


def test_tensors_and_plain_attributes_count() -> None:
    whole = scorer_identity(load_scorer("portraits-judge"))
    moved, renamed = load_scorer("portraits-judge"), load_scorer("portraits-judge")
    next(iter(moved.parameters())).data += 1e-3  # pyright: ignore
    renamed.attributes = renamed.attributes[::-1]  # pyright: ignore
    assert len({whole["sha256"], scorer_identity(moved)["sha256"], scorer_identity(renamed)["sha256"]}) == 3


def test_a_strangers_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "my_scorer.py"
    path.write_text(OWN.replace("{FACTOR}", "2"))
    ours = scorer_identity(own_scorer(path))
    assert scorer_identity(own_scorer(path)) == ours
    assert scorer_identity(own_scorer(path, factor=0.5)) != ours
    path.write_text(OWN.replace("{FACTOR}", "3"))
    assert scorer_identity(own_scorer(path)) != ours
    path.write_text(OWN.replace("{FACTOR}", "2"))
    assert scorer_identity(own_scorer(path)) == ours


KEEPING = """
import torch


class Keeping{BASE}:
    id, attributes, binary = "keeping", ("light",), (False,)

    def __init__(self, values):
        super().__init__()
        {KEEP}

    def __call__(self, images):
        raise NotImplementedError

    def visible(self, scores):
        raise NotImplementedError
"""


@pytest.mark.parametrize(
    ("base", "keep"),
    [
        ("", "self.weights = values"),
        ("", "self._weights = values.numpy()"),
        ("", "self.parts = {'a': [values]}"),
        ("", "self.network = torch.nn.ParameterList([values])"),
        ("(torch.nn.Module)", "self.weights = values"),
        ("(torch.nn.Module)", "self.register_buffer('weights', values, persistent=False)"),
    ],
)
def test_what_a_strangers_class_keeps_counts_wherever_it_keeps_it(tmp_path: Path, base: str, keep: str) -> None:
    path = tmp_path / "my_keeping.py"
    path.write_text(KEEPING.replace("{BASE}", base).replace("{KEEP}", keep))
    module = imported(path)
    first, same, other = (scorer_identity(module.Keeping(torch.tensor([1.0, last]))) for last in (2.0, 2.0, 3.0))
    assert first == same != other


def test_the_code_of_a_strangers_world_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, judge = tmp_path / "my_world.py", load_scorer("portraits-judge")
    assert isinstance(judge, WorldScorer) and isinstance(judge.network, PlainNet | ResidualNet)

    def identity(code: str) -> dict[str, str]:
        path.write_text(f"def visibility(factors):\n    {code}\n")
        monkeypatch.setitem(WORLDS._registered, "mine", replace(PORTRAITS, visibility=imported(path).visibility))
        return scorer_identity(WorldScorer("mine", judge.config, judge.network))

    assert identity("pass") == identity("pass") != identity("raise")


def test_the_identities_of_the_embedded_ones_stay_what_files_of_directions_say() -> None:
    annotator = Directions.load(ready_path("portraits")).meta.annotator
    assert scorer_identity(load_scorer("portraits-annotator")) == annotator


def test_where_it_computes_does_not_count() -> None:
    ours, there = load_scorer("portraits-judge"), load_scorer("portraits-judge")
    there.to(torch.device("cpu"), torch.float64)  # pyright: ignore
    assert scorer_identity(there) == scorer_identity(ours)
