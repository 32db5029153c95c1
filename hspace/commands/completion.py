"""`hspace completion SHELL`: a script that completes commands, choices and keys of the configuration.

The words are written into the script, so that a shell answers at once; make it again after an upgrade.
"""

import argparse
from collections.abc import Callable

from omegaconf import DictConfig

from hspace.commands.words import COMMANDS
from hspace.directions.settings import METHODS
from hspace.runs.config import known_keys
from hspace.system.files import package_path
from hspace.system.registry import unknown
from hspace.types import InputError

BASH = """\
# hspace completion bash: source this file, for instance from ~/.bashrc
_hspace() {
  local line=${COMP_LINE:0:COMP_POINT}
  local word=${line##* }
  # Not mapfile, which the bash of macOS does not have; no word holds a space or a pattern.
  COMPREPLY=($(compgen -W "WORDS" -- "$word"))
  # bash replaces only what follows the last "=".
  if [[ $word == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}"); fi
}
complete -o nospace -o default -F _hspace hspace
"""
ZSH = """\
#compdef hspace
# hspace completion zsh: source this file after compinit, or save it as _hspace in a folder of $fpath
_hspace() { compadd -S '' -- WORDS; _files }
if [ "$funcstack[1]" = _hspace ]; then _hspace; else compdef _hspace hspace; fi
"""
FISH = """\
# hspace completion fish: save this file as ~/.config/fish/completions/hspace.fish
complete -c hspace -a "WORDS"
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(options: argparse.Namespace, compose: Callable[[list[str]], DictConfig]) -> int:
    """Prints the script of a shell.

    Raises:
        InputError: If the shell is not one of `SCRIPTS`.
    """
    shell = options.inputs[0] if len(options.inputs) == 1 else " ".join(options.inputs)
    if shell not in SCRIPTS:
        raise InputError(unknown("shell", shell, SCRIPTS))
    print(SCRIPTS[shell].replace("WORDS", " ".join(words())), end="")
    return 0


def words() -> list[str]:
    """All that can be completed: commands, `choice=NAME` of every group, and `key=` of every value of any choice."""
    groups = [folder for folder in sorted(package_path("conf").iterdir()) if folder.is_dir() and folder.name != "train"]
    choices = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in groups}
    choices["method"] = sorted({*choices["method"], *METHODS.names()})
    chosen = [f"{group}={name}" for group, names in choices.items() for name in names]
    settings = {f"method.{key}" for name in METHODS.names() for key in METHODS.get(name).settings.model_fields}
    sections = {key.rpartition(".")[0] for key in known_keys()}
    keys = {*known_keys(), *settings} - {*sections, "method.name"}
    return ["list", "cache", *COMMANDS, *chosen, *(f"{key}=" for key in sorted(keys))]
