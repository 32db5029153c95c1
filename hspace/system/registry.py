"""Registries of what can be chosen and added: methods, measures, scorers, model families, experiments.

A registry maps a name to a reference "module:attribute", the form of Python's entry points, and imports the module
only when the name is used. Therefore `hspace list` shows all entries without importing them.
"""

import ast
import difflib
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

from hspace.types import InputError

REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""Form of "module:attribute"."""

T = TypeVar("T")
Registered = TypeVar("Registered")


@dataclass(frozen=True)
class Listed:
    """One entry in a list.

    Attributes:
        name: Name in a configuration.
        meaning: First line of its docstring.
    """

    name: str
    meaning: str


class Registry(Generic[T]):
    """Entries of one kind by name: those of the package, of installed packages, and registered ones.

    An installed package adds an entry by the entry-point group named after the kind, such as `hspace.methods`. Anything
    that can be imported, from the current folder too, is found as "module:attribute" without registration.

    Args:
        kind: Name of the kind of entries, such as "method".
        of: Class of all entries.
        builtin: References to the package's own entries by name, in the order of lists.
    """

    def __init__(self, kind: str, of: type[T] | Any, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self._of = of
        self._builtin = dict(builtin)
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Decorator that registers an object under a name in this process; a later object of the name replaces it."""

        def keep(entry: Registered) -> Registered:
            self._registered[name] = self._checked(name, entry)
            return entry

        return keep

    def names(self) -> tuple[str, ...]:
        """Names of all entries: the package's own, installed ones, and those registered in this process."""
        return tuple(dict.fromkeys([*self._builtin, *self._installed(), *self._registered]))

    def listed(self) -> Iterator[Listed]:
        """All entries with their meanings; only the packages that hold the modules are imported."""
        references = {**self._installed(), **self._builtin}
        for name in self.names():
            registered = self._registered.get(name)
            meaning = _first_line(registered.__doc__) if registered is not None else _meaning(references[name])
            yield Listed(name, meaning)

    def __contains__(self, name: object) -> bool:
        """Whether an entry has the name; "module:attribute" is a reference and has none."""
        return name in self._registered or name in self._builtin or name in self._installed()

    def get(self, name: str) -> T:
        """The entry of a name, or the object that "module:attribute" refers to.

        Raises:
            InputError: If the entry does not exist, cannot be imported, or is of another kind.
        """
        if name in self._registered:
            return self._registered[name]
        reference = self._reference(name)
        return self._checked(name, self._imported(name, reference))

    def _reference(self, name: str) -> str:
        if name in self._builtin:
            return self._builtin[name]
        installed = self._installed()
        if name in installed:
            return installed[name]
        if REFERENCE.fullmatch(name):
            return name
        raise InputError(unknown(self.kind, name, self.names()))

    def _imported(self, name: str, reference: str) -> Any:
        module, _, attribute = reference.partition(":")
        if name in self._builtin:
            return getattr(import_module(module), attribute)
        if str(Path.cwd()) not in sys.path and "" not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            return getattr(import_module(module), attribute)
        except InputError:
            raise
        except ModuleNotFoundError as error:
            if error.name != module or name != reference:
                raise self._faulty(name, error) from error
            raise InputError(f"{unknown(self.kind, name, self.names())}; and no module {module!r}") from None
        except Exception as error:
            # An error in a stranger's module is for its author to read, and not a defect of this package.
            raise self._faulty(name, error) from error

    def _faulty(self, name: str, error: Exception) -> InputError:
        return InputError(f"{self.kind} {name!r} cannot be imported: {type(error).__name__}: {error}")

    def _checked(self, name: str, entry: Any) -> T:
        if not isinstance(entry, self._of):
            raise InputError(f"{name!r} is not a {self.kind}: see docs/extending.md")
        return entry

    def _installed(self) -> dict[str, str]:
        plural = f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"
        return {entry.name: entry.value for entry in entry_points(group=f"hspace.{plural}")}


def source_sha256(entry: Any) -> str | None:
    """Hash of the file that an object's code lies in; None for the package's own code, whose stages have versions.

    It is part of a result's cache key, so that a result is not used again after its code has changed.
    """
    kind = entry if hasattr(entry, "__module__") and hasattr(entry, "__qualname__") else type(entry)
    module = sys.modules.get(kind.__module__)
    path = getattr(module, "__file__", None)
    if path is None or not Path(path).is_file() or kind.__module__.partition(".")[0] == "hspace":
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """The message for an unknown name, with the nearest known one, or all if they fit on a line.

    Examples:
        >>> unknown("method", "pcs", ["pca", "random"])
        "unknown method 'pcs': did you mean 'pca'?"
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    names = f"there is {', '.join(known)}" if len(known) <= 24 else "none is like it"
    hint = f"did you mean {nearest[0]!r}?" if nearest else names
    return f"unknown {what} {name!r}: {hint}"


def _meaning(reference: str) -> str:
    """First line of the docstring of what is referred to, read off the source; of its module where it has none."""
    module, _, attribute = reference.partition(":")
    try:
        spec = find_spec(module)
        assert spec is not None and spec.origin is not None, "a module without a file"
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (AssertionError, ImportError, OSError, SyntaxError, ValueError):
        return "cannot be read"
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = next((node for node in tree.body if isinstance(node, kinds) and node.name == attribute), None)
    return _first_line((found and ast.get_docstring(found)) or _said_below(tree, attribute) or ast.get_docstring(tree))


def _said_below(tree: ast.Module, name: str) -> str | None:
    """The docstring that stands below the assignment of a name."""
    for node, below in pairwise(tree.body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assigned = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        if assigned and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return str(below.value.value)
    return None


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]
