"""Modules import downwards only, and each foreign library has one owner; see docs/architecture.md."""

import ast
import importlib.util
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hspace"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
INSIDE = {re.findall(r"[\w/]+\w", room)[0]: re.findall(r"`(\w+)`", modules) for room, _, modules, _ in ROWS}
ORDER = list(INSIDE)
OWNERS = {
    "diffusers": {"diffusion"},
    "sklearn": {"directions"},
    "torchmetrics": {"metrics"},
    "matplotlib": {"output"},
    "starlette": {"studio"},
    "wandb": {"runs"},
    "hydra": {"runs", "commands", "cli"},
}
# Heavy or optional libraries that may be imported where they are used.
LATE = {"wandb", "transformers", "torch_fidelity", "onnxruntime"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imported(node: ast.AST) -> list[str]:
    """Dotted names that an import statement brings in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports of ours are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def room_of(parts: list[str]) -> str:
    """The innermost room of the table that path parts below hspace lie in."""
    rooms = ("/".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((room for room in rooms if room in ORDER), parts[0])


def may_import(importer: list[str], name: str) -> bool:
    """Whether a module of ours, as path parts below hspace, may import `name`."""
    library, *ours = name.split(".")
    if library != "hspace":
        return importer[0] in OWNERS.get(library, {importer[0]})
    room, other = room_of(importer), room_of(ours)
    if other != room:
        return other == "__version__" or other in ORDER[: ORDER.index(room)]
    inside, depth = INSIDE[room], room.count("/") + 1
    return ours[depth] in inside[: inside.index(importer[depth])]


def test_the_table_names_every_room_and_every_module_once() -> None:
    assert len(ORDER) == len(ROWS) <= 20
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 20
    places = [list(path.relative_to(PACKAGE).with_suffix("").parts) for path in MODULES]
    assert {"/".join(place[:-1]) or place[0] for place in places} == set(ORDER)
    for room in ORDER:
        modules = sorted(path.stem for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__")
        assert sorted(INSIDE[room]) == modules


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    importer = list(path.relative_to(PACKAGE).with_suffix("").parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [name for node in ast.walk(tree) for name in imported(node)]
    assert [name for name in names if not may_import(importer, name)] == []

    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {name for function in functions for node in ast.walk(function) for name in imported(node)}
    assert importer == ["cli"] or {name for name in late if name.split(".")[0] not in LATE} == set()


def test_every_place_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(hspace/[\w/]+\.py)`", PAGE)
    assert len(named) >= 20
    assert [place for place in named if not (ROOT / place).is_file()] == []


def test_what_has_moved_is_where_the_page_says() -> None:
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    moved = dict(re.findall(r"^\| `(hspace[\w.]+)` \| `(hspace[\w.]+)` \|$", page, re.M))
    assert len(moved) > 40
    assert [new for new in moved.values() if importlib.util.find_spec(new) is None] == []


def test_only_experiments_about_faces_know_a_world() -> None:
    worlds = {
        path.relative_to(PACKAGE).as_posix(): name
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] != "worlds"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported(node)
        if name.startswith(("hspace.worlds.portraits.", "hspace.worlds.rooms."))
    }
    assert set(worlds) == {"experiments/fig17.py"}


def test_no_script_hides_an_installed_module() -> None:
    """Tests and scripts have the folders of scripts on their path, before what is installed."""
    scripts = {path.stem for path in (ROOT / "scripts").rglob("*.py")}
    assert not scripts & (set(packages_distributions()) | sys.stdlib_module_names)
