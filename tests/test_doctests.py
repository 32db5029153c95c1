"""The examples in docstrings give what they say."""

import ast
import doctest
import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

import hspace

PACKAGE = Path(hspace.__file__).parent


def examples() -> Iterator[tuple[str, str, str]]:
    """Module, name and docstring, read off the source: a decorator hides what it wraps from doctest's own search."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ">>>" in (ast.get_docstring(node) or ""):
                yield module, node.name, ast.get_docstring(node) or ""


EXAMPLES = list(examples())


@pytest.mark.parametrize(("module", "name", "text"), EXAMPLES, ids=[f"{module}.{name}" for module, name, _ in EXAMPLES])
def test_example(module: str, name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = dict(vars(importlib.import_module(module)))
    told = io.StringIO()
    doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(text, names, name, module, 0), out=told.write)
    assert not told.getvalue(), told.getvalue()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 40


def _raises(function: ast.FunctionDef) -> bool:
    """Whether the function itself raises InputError, and not one inside it."""
    inner = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef) and node is not function]
    hidden = {id(node) for each in inner for node in ast.walk(each)}
    calls = [node.exc for node in ast.walk(function) if isinstance(node, ast.Raise) and id(node) not in hidden]
    return any(isinstance(call, ast.Call) and getattr(call.func, "id", "") == "InputError" for call in calls)


def test_every_public_function_says_that_it_raises() -> None:
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
            for node in owner.body:
                public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
                if public and _raises(node) and "InputError" not in (ast.get_docstring(node) or ""):
                    silent.append(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert silent == []
