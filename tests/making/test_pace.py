"""Precision and threads are those of the fastest timed step."""

import time
from collections.abc import Iterator

import pace
import pytest
import torch
from pace import Pace, choices, fastest

from hspace.types import InputError


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(pace, "MOST_THREADS", 2)
    yield
    torch.set_num_threads(before)


def test_auto_leaves_all_choices_and_a_setting_one() -> None:
    torch.set_num_threads(1)  # as an earlier training left it
    assert choices("auto", "auto") == [
        Pace("float32", 1), Pace("float32", 2), Pace("bfloat16", 1), Pace("bfloat16", 2)
    ]  # fmt: skip
    assert choices("float32", 3) == [Pace("float32", 3)]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("half", "auto"), "precision must be auto, float32 or bfloat16, got half"),
        (("auto", 0), "threads must be auto or a number above 0, got 0"),
        (("auto", True), "threads must be auto or a number above 0, got True"),
    ],
)
def test_other_settings_are_mistakes(settings: tuple, line: str) -> None:
    with pytest.raises(InputError) as raised:
        choices(*settings)
    assert str(raised.value) == line


@pytest.mark.parametrize("quick", [Pace("float32", 2), Pace("bfloat16", 1)])
def test_the_fastest_is_taken_and_its_threads_are_set(quick: Pace) -> None:
    seen = []

    def step(tried: Pace) -> None:
        seen.append((tried, torch.get_num_threads()))
        time.sleep(0.0 if tried == quick else 0.02)

    assert fastest(step, choices("auto", "auto")) == quick and torch.get_num_threads() == quick.threads
    assert all(tried.threads == threads for tried, threads in seen)


def test_a_single_choice_is_not_timed() -> None:
    def step(_: Pace) -> None:
        raise AssertionError("timed")

    assert fastest(step, [Pace("float32", 1)]) == Pace("float32", 1) and torch.get_num_threads() == 1


def test_the_precision_is_that_of_the_forward_pass() -> None:
    a = torch.ones(4, 4)
    with Pace("bfloat16", 1).autocast("cpu"):
        assert (a @ a).dtype == torch.bfloat16
    with Pace("float32", 1).autocast("cpu"):
        assert (a @ a).dtype == torch.float32
