"""The installed command `hspace`: runs, sweeps and lists; a mistake is one line on stderr and exit code 2.

Slow modules (torch, Hydra) are imported where they are needed, so that help and errors come at once.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from hspace.system.stopping import Stopped, stopping, uninterrupted

with stopping():  # What follows takes numpy's time, in which a signal would show a traceback.
    from hspace import __version__
    from hspace.commands.words import COMMANDS, Parser, levels
    from hspace.commands.words import parse as parse_words
    from hspace.system.files import is_utf8, package_path
    from hspace.types import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

MODULES = {"invert": "edit", "calibrate": "sliders", "range": "sliders", "directions": "sliders"}
"""Subcommands that share another's module."""

EPILOG = """\
examples:
  hspace                                            principal components of the embedded model, some five minutes
  hspace experiment=demo                            the demo, a minute and a half, into outputs/demo
  hspace method=random edit.strengths=[-3,0,3]      choices and single values (in zsh, quote brackets)
  hspace model.path=FOLDER                          a diffusers pipeline of yours
  hspace -m method=pca,random seed=0,1              a sweep into outputs/sweeps (or hydra.sweep.dir=FOLDER)
  hspace -m seed=0,1,2 hydra/launcher=joblib        the same in parallel (also submitit_local, submitit_slurm)
  hspace --cfg job debug=default                    show a configuration without running it
  hspace list                                       models, methods, scorers, experiments and attributes
  hspace list method=boundary                       the settings of a method
  hspace method=my_method:find                      a method of yours, in my_method.py; see docs/extending.md
  hspace edit photo.jpg --direction FILE:NAME       a photograph edited; also invert, calibrate, range, directions,
                                                    studio and push, each with --help
  hspace compare RUN RUN                            differences between finished runs, with intervals
  hspace completion bash                            completion of these words, also for zsh and fish
  hspace cache ls                                   what is kept in outputs/cache (or cache_dir=FOLDER)
  hspace cache verify                               compare every file with its checksum, hash models anew
  hspace cache prune                                remove what no run can use; days=30: and what none has used lately

A run that was interrupted or killed goes on where it was when the same command is given again. HSPACE_DEBUG=1 shows
the traceback behind an error. Exit codes: 0 done, 1 a job of a sweep failed or a cached result is damaged, 2 a
mistake, 130 interrupted, 143 terminated."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after `hspace`; None takes the process's own.

    Returns:
        The exit code.
    """
    try:
        with stopping():
            _open_streams()
            return _guarded(lambda: _dispatch(sys.argv[1:] if arguments is None else arguments))
    except Stopped as stopped:
        print(f"hspace: stopped by {stopped.name}; the same command goes on from here", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        return 130


def _open_streams() -> None:
    """Opens streams that were closed at the start onto nothing, so that no output goes into the next opened file."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))


def _dispatch(arguments: list[str]) -> int:
    strange = next((word for word in arguments if not is_utf8(word)), None)
    if strange is not None:
        raise InputError(f"words must be UTF-8, got {strange!a}")
    if arguments and arguments[0] in COMMANDS:
        return _command(arguments[0], arguments[1:])
    options = _parser().parse_intermixed_args(arguments)
    if options.version:
        print(f"hspace {__version__}")
        return 0
    words = options.words
    if words and words[0] == "list":
        from hspace.commands.listing import lists

        return lists(words[1:])
    if words and words[0] == "cache":
        from hspace.commands.keeping import cache

        return cache(words[1:], _compose)
    if words and "=" not in words[0] and not words[0].startswith("~"):
        known = ", ".join(["list", "cache", *COMMANDS])
        raise InputError(f"unknown command {words[0]!r}: there is {known}; a setting is written key=value")
    if options.cfg:
        return _show(words)
    _speak(options)
    return _sweep(_with_local_model(words)) if options.multirun else _run(_compose(words))


def _command(name: str, words: list[str]) -> int:
    options = parse_words(name, words)
    _speak(options)
    module = import_module(f"hspace.commands.{MODULES.get(name, name)}")
    return getattr(module, name)(options, _compose)


def _speak(options: argparse.Namespace) -> None:
    """Sets the messages on stderr: the stages; with -v those of libraries too; with -q warnings only."""
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    level = logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO
    logging.getLogger("hspace").setLevel(level)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hspace",
        usage="hspace [key=value ...] | hspace -m key=a,b ... | hspace list [what] | hspace cache ls|verify|prune",
        description="Find, apply and measure editing directions in the h-space of diffusion models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="a choice or a value; --cfg job shows all keys")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of values a,b,c")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    levels(parser)
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    return parser


def _with_local_model(overrides: list[str]) -> list[str]:
    """A `model.path` alone means the model in that folder."""
    has_path = any(word.startswith("model.path=") for word in overrides)
    return [*overrides, "model=local"] if has_path and not any(w.startswith("model=") for w in overrides) else overrides


def _compose(overrides: list[str]) -> "DictConfig":
    """One run's configuration.

    It uses Hydra's compose API instead of its `main`, which would write a folder and a log before values are checked,
    and print errors in its own way.
    """
    from hydra import compose

    from hspace.runs.errors import hydra_in_one_line

    _offer_methods(overrides)
    with _hydra(), hydra_in_one_line():
        return compose("config", overrides=_with_local_model(overrides))


def _hydra() -> AbstractContextManager[None]:
    from hydra import initialize_config_dir

    return initialize_config_dir(str(package_path("conf")), version_base="1.3", job_name="hspace")


def _show(overrides: list[str]) -> int:
    from omegaconf import OmegaConf

    print(OmegaConf.to_yaml(_compose(overrides)), end="")
    return 0


def _run(cfg: "DictConfig") -> int:
    from hspace.runs.parsing import parse

    config = parse(cfg)
    with uninterrupted():  # a signal in the midst of an import leaves halves of modules behind
        from hspace.commands.run import run
        from hspace.system import distributed

    with distributed.processes():
        if distributed.rank() > 0:
            logging.getLogger("hspace").setLevel(logging.ERROR)
        config = replace(config, output_dir=distributed.from_first(config.output_dir))
        done = run(config)
        if distributed.rank() == 0:
            print(done)
    return 0


def _sweep(overrides: list[str]) -> int:
    with uninterrupted():
        from hspace.commands.sweep import sweep

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("torchrun starts the processes of one run: leave out -m, or let each job of a sweep call it")
    _offer_methods(overrides)
    with _hydra():
        return sweep(overrides)


def _offer_methods(overrides: list[str]) -> None:
    """Makes a choice, with the method's own defaults, of every method that is named and has no file in conf/method."""
    from hydra.core.config_store import ConfigStore
    from pydantic_core import to_jsonable_python

    from hspace.directions.settings import METHODS
    from hspace.system.registry import REFERENCE

    names = [name for word in overrides if word.startswith("method=") for name in word[len("method=") :].split(",")]
    for name in names:
        if not (package_path("conf") / "method" / f"{name}.yaml").exists() and (
            name in METHODS or REFERENCE.fullmatch(name)
        ):
            fields = METHODS.get(name).settings.model_fields
            values = {key: "???" if field.is_required() else field.get_default() for key, field in fields.items()}
            node = to_jsonable_python(values | {"name": name})
            ConfigStore.instance().store(group="method", name=name, node=node)


def _guarded(action: Callable[[], int]) -> int:
    from hspace.runs.errors import guarded

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
