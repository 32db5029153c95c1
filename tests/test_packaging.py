"""What the package imports is what it declares, and is there on every system."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UNIX = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
"""Modules of the standard library that Windows does not have."""


def imported() -> set[str]:
    """First names of all modules that the package's code imports, wherever in a file."""
    nodes = [
        node
        for path in (ROOT / "hspace").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    whole = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    parts = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in [*whole, *parts]} - {"hspace"}


def names(requirements: list[str]) -> set[str]:
    """Names of distributions, as they are compared."""
    return {re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported() -> None:
    of_module = packages_distributions()
    foreign = imported() - set(sys.stdlib_module_names)
    used = {name.lower().replace("_", "-") for module in foreign for name in of_module.get(module, [module])}
    declared, hub = names(PROJECT["dependencies"]), names(PROJECT["optional-dependencies"]["hub"])
    # pydantic asks for the one version of its core that it works with.
    assert used - {"pydantic-core"} == declared | hub


def test_nothing_is_imported_that_only_unix_has() -> None:
    assert not imported() & UNIX
