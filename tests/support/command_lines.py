"""Checks of command lines that run nothing: what scripts, make, W&B, pip and scripts/fresh.sh would say to them."""

import argparse
import re
import runpy
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import gallery
import pytest
import samples
from configuration import training_configuration
from wandb.cli.cli import cli as wandb_cli

from hspace.runs.procedures import EXPERIMENTS

ROOT = Path(__file__).parents[2]


class Read(Exception):
    """A script has read its command line, which is its first argument."""


def check_script(script: str, words: list[str]) -> None:
    """Lets a script of ours read its words, and stops it before it does anything.

    Raises:
        InputError: If a training has no such setting.
    """
    path = ROOT / script
    if not words or path.stem.startswith("fake_"):
        assert all(f'"{word}"' in path.read_text("utf-8") for word in words if word.startswith("--")), (script, words)
    elif path.stem.startswith("train_"):
        training_configuration(path.stem.removeprefix("train_"), words)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script, *words])
            for way in ("parse_args", "parse_intermixed_args"):
                patch.setattr(argparse.ArgumentParser, way, stopping(getattr(argparse.ArgumentParser, way)))
            with pytest.raises(Read) as read:
                runpy.run_path(str(path), run_name="__main__")
        given = vars(read.value.args[0])
        names = [word for word in given.get("words", []) if "=" not in word]
        assert {*names} <= {*EXPERIMENTS.names(), "all"}, (script, words)
        known = {"gallery": gallery.PICTURES, "samples": samples.PICTURES}.get(path.stem, {})
        assert {*given.get("pictures", [])} <= known.keys(), (script, words)


def stopping(parse: Callable[..., argparse.Namespace]) -> Callable[..., argparse.Namespace]:
    """A parser's method that raises what it has read."""

    def parsed(parser: argparse.ArgumentParser, words: list[str] | None = None) -> argparse.Namespace:
        raise Read(parse(parser, words))

    return parsed


def check_make(words: list[str]) -> None:
    """Sees that every target is in the Makefile."""
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {word for word in words if "=" not in word} <= {*targets}, words


def check_wandb(words: list[str]) -> None:
    """Sees that W&B has the command, and the options that it is given."""
    command: Any = wandb_cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert not isinstance(command, click.Group), words
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options, words


def check_pip(words: list[str]) -> None:
    """Sees that every extra is one of ours."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {extra for word in words for part in re.findall(r"\[(.+)\]", word) for extra in part.split(",")}
    assert words[0] in ("install", "check") and asked <= extras.keys(), words


def check_fresh(words: list[str]) -> None:
    """Sees that every step is one of the script."""
    steps = re.search(r"\|\| set -- (.+)$", (ROOT / "scripts" / "fresh.sh").read_text(encoding="utf-8"), re.M)
    assert steps and {*words} <= {*steps[1].split()}, words


OTHERS = {"make": check_make, "wandb": check_wandb, "pip": check_pip, "scripts/fresh.sh": check_fresh}
"""Checks of what is not a command of ours, by program."""
