from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hspace.scorers.factory import load_identity, load_regions, load_scorer, place, same_network
from hspace.types import InputError


def test_names_choose_the_kind(
    make_classifier: Callable[..., Path], tiny_clip_dir: Path, tiny_backbone_dir: Path, tiny_parser_dir: Path
) -> None:
    assert load_scorer("portraits-judge").id == "portraits-judge"
    assert load_scorer(f"clip:{tiny_clip_dir}").id == "clip:clip"
    assert load_scorer(f"hub:{make_classifier(['a', 'b'])}").id == "hub:classifier"
    assert load_identity().id == "portraits-identity" and load_regions().id == "portraits-regions"
    encoder = load_identity(f"hub:{tiny_backbone_dir}")
    assert encoder.id == "hub:dino"
    assert load_regions(f"hub:{tiny_parser_dir}").id == "hub:parser"
    place(encoder, torch.device("meta"))
    assert isinstance(encoder, torch.nn.Module) and {weight.device.type for weight in encoder.parameters()} == {"meta"}
    with pytest.raises(InputError, match="unknown scorer 'jugde'"):
        load_scorer("jugde")
    known = "there is faceapi, hub, portraits-identity, portraits-likeness, rooms-identity; and no module"
    with pytest.raises(InputError, match=f"embedder 'clip:x': {known}"):
        load_identity("clip:x")


def test_one_network_is_recognised_under_any_name(make_classifier: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_classifier(["a", "b"])
    (tmp_path / "other").symlink_to(folder)
    paths = folder, tmp_path / "other", make_classifier(["a", "b"], seed=1)
    first, again, other = (load_scorer(f"hub:{path}") for path in paths)
    assert same_network(first, again) and not same_network(first, other)
    assert not same_network(load_scorer("portraits-judge"), load_scorer("portraits-annotator"))
