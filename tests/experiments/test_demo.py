"""The demo: what it cannot draw is one line, before anything is sampled, and which components it shows."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hspace.cli import main
from hspace.evaluation.readings import Readings, Sweep
from hspace.experiments.demo import confirmed


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("study.target=0", "study.target must not be 0"),
        ("edit.strengths=[1,2]", "edit.strengths must hold a number below 0 and one above it"),
        ("edit.effects=[-1]", "edit.effects must hold a number below 0 and one above it"),
        ("study.attributes=[brow]", "unknown study.attributes 'brow': there is age, beard, glasses,"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment=demo", "tracking.mode=disabled", f"output_dir={tmp_path / 'out'}", word]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told and told.startswith("hspace: error")


class Words:
    """Reads nothing; its attributes are several words, as a scorer of prompts has them."""

    id, attributes, binary = "words", ("long hair", "long beard"), (False, False)

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def visible(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)


def test_a_component_is_confirmed_by_its_target_and_not_by_the_words_of_its_label() -> None:
    draw = torch.Generator().manual_seed(0)
    original = torch.randn(12, 2, generator=draw)
    moved = torch.tensor([[2.0, 0.1], [2.0, 0.1], [0.1, 2.0]])[:, None]
    edited = original + moved + 0.01 * torch.randn(3, 12, 2, generator=draw)
    nothing = torch.zeros(12, 4, 1)
    labels = ("component 1: long hair", "component 2: long beard", "component 3: unnamed")
    readings = Readings(Words(), labels, tuple(range(12)), original, edited, nothing, nothing, torch.ones(2))
    assert confirmed(Sweep(labels, (1.0,), readings), ["long hair", "long beard", None]) == [0]
