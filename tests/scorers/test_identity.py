"""A scorer is known by all that its scores depend on."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.scorers.identity import scorer_identity

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


def own_scorer(path: Path, **arguments: Any) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Brightness(**arguments)


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


def test_where_it_computes_does_not_count() -> None:
    ours, there = load_scorer("portraits-judge"), load_scorer("portraits-judge")
    there.to(torch.device("cpu"), torch.float64)  # pyright: ignore
    assert scorer_identity(there) == scorer_identity(ours)
