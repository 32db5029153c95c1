"""Parsers of the words after a subcommand such as `hspace edit`, which load nothing slow."""

import argparse
import os
from collections.abc import Callable
from typing import NoReturn

from hspace.types import InputError

ANIMATION_CHOICES = ("gif", "webp", "none")
SETTINGS = "settings are written key=value, as everywhere: model=NAME model.path=FOLDER diffusion.num_steps=20"


class Parser(argparse.ArgumentParser):
    """A parser that tells a user's mistake as an error of one line."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError instead of ending the process."""
        raise InputError(f"{message}; see {self.prog} --help")


def parse(name: str, words: list[str]) -> argparse.Namespace:
    """The options of a subcommand; `settings` are its `key=value` words and `inputs` the others.

    Raises:
        InputError: If a word is not understood.
    """
    parser = Parser(prog=f"hspace {name}", epilog=SETTINGS, allow_abbrev=False)
    parser.add_argument("words", nargs="*", metavar="WORD", help="what to work on, and settings")
    levels(parser)
    COMMANDS[name](parser)
    options = parser.parse_intermixed_args(words)
    options.settings = [word for word in options.words if _is_setting(word)]
    options.inputs = [word for word in options.words if not _is_setting(word)]
    return options


def _is_setting(word: str) -> bool:
    """Whether a word is `key=value`, and not a file whose path has that sign in it."""
    return "=" in word and not word.startswith((".", "/")) and not os.path.isfile(word)


def levels(parser: argparse.ArgumentParser) -> None:
    """The options `--quiet` and `--verbose`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong, and no progress")
    group.add_argument("-v", "--verbose", action="store_true", help="say more, libraries too")


def _edit(parser: argparse.ArgumentParser) -> None:
    parser.description = "Edit photographs (files, folders) or generated samples (seeds) along directions."
    _directions(parser)
    parser.add_argument(
        "--strength",
        action="append",
        type=float,
        metavar="S",
        help="one per direction, in its unit, of an operator from 0 to 1; default 1",
    )
    parser.add_argument(
        "--keep-outside", metavar="MASK",
        help="leave all outside alone: a PNG of the photograph's shape, a region's name, or top,left,bottom,right",
    )  # fmt: skip
    parser.add_argument(
        "--animation",
        choices=ANIMATION_CHOICES,
        default="gif",
        help="from minus to plus the strength and back; of an operator from 0",
    )
    parser.add_argument("--output", default="outputs/edit", metavar="DIR", help="default outputs/edit")
    parser.add_argument(
        "--samples", type=int, default=64, metavar="N",
        help="the model's own samples that the distance of h is measured from, kept; 0 leaves it out; default 64",
    )  # fmt: skip
    _inversions(parser)


def _invert(parser: argparse.ArgumentParser) -> None:
    parser.description = "Invert photographs (files, folders), so that every later edit of them starts at once."
    _inversions(parser)


def _studio(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open a local page with sliders: hspace studio; or write it with rendered strips: hspace studio export DIR"
    )
    _directions(parser)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    parser.add_argument("--samples", type=int, default=6, metavar="N", help="samples offered or exported; default 6")
    parser.add_argument(
        "--photographs", action="append", metavar="PATH", help="a photograph or folder to offer or export; repeatable"
    )


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find the strength at which a direction or an operator changes an attribute by a wanted effect."
    )
    _directions(parser)
    parser.add_argument("--attribute", required=True, help="what is to change; see hspace list attributes")
    parser.add_argument("--effect", type=float, default=1.0, metavar="SD", help="wanted effect in sd; default 1")
    parser.add_argument(
        "--samples", type=int, default=200, metavar="N",
        help="calibration samples, more where the effect is unsure; default 200",
    )  # fmt: skip


def _range(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure how far a direction or an operator can safely be moved, and space its slider evenly; kept in the file."
    )
    _directions(parser)
    parser.add_argument("--samples", type=int, default=16, metavar="N", help="calibration samples; default 16")
    parser.add_argument(
        "--most",
        type=float,
        metavar="S",
        help="largest strength tried; default: where h leaves its spread, or 1 of an operator",
    )
    parser.add_argument(
        "--others", type=float, default=1.0, metavar="SD", help="limit of every other effect; default 1 sd"
    )


def _directions_command(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List what directions files hold: hspace directions FILE|FOLDER …; without a word, the ready-made ones"
    )


def _push(parser: argparse.ArgumentParser) -> None:
    parser.description = "Share a directions file on the Hugging Face hub: hspace push OWNER/NAME FILE"
    parser.add_argument("--private", action="store_true", help="a repository that only you can see")
    parser.add_argument("--strip", metavar="PNG", help="a picture for the card")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Differences between finished runs, paired where they edit the same samples: RUN RUN …"
    parser.add_argument("--strength", type=float, metavar="S", help="which strength is compared; default the largest")
    parser.add_argument("--output", metavar="PATH", help="also write PATH.csv, PATH.md and PATH.tex")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a script that completes hspace's words: hspace completion bash|zsh|fish"


def _directions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--direction", action="append", metavar="FILE[:NAME]", default=None,
        help="a file of directions or an operator, and which of them (name or number; default the first); repeatable",
    )  # fmt: skip


def _inversions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inversions",
        default="outputs/inversions",
        metavar="DIR",
        help="where they are kept; default outputs/inversions",
    )


COMMANDS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "edit": _edit,
    "invert": _invert,
    "calibrate": _calibrate,
    "range": _range,
    "directions": _directions_command,
    "studio": _studio,
    "push": _push,
    "compare": _compare,
    "completion": _completion,
}
"""Subcommands of `hspace` beside a run, and the options of each."""
