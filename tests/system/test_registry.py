"""Registries: the package's own entries, installed ones, and what "module:attribute" refers to."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hspace.system.registry import Listed, Registry, source_sha256, unknown
from hspace.types import InputError

OWN = '''"""A module of a stranger."""

def twice(x):
    """Twice the number.

    More words.
    """
    return 2 * x

number = 5
'''


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a file in it that no package knows."""
    (tmp_path / "stranger_module.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "stranger_module", raising=False)
    return tmp_path


def registry(**builtin: str) -> Registry[Callable]:
    return Registry("shape", Callable, builtin)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str) -> None:
    """What pip leaves of an installed package: its metadata on the path."""
    info = folder / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(folder)


def test_own_entries_are_imported_when_they_are_asked_for() -> None:
    shapes = registry(path="posixpath:join", other="posixpath:split")
    assert shapes.names() == ("path", "other") and "path" in shapes and "pth" not in shapes
    assert shapes.get("path")("a", "b") == "a/b"


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown shape 'circel': did you mean 'circle'\?"):
        registry(circle="math:hypot", square="math:sqrt").get("circel")
    assert unknown("key", "zzz", ["b", "a"]) == "unknown key 'zzz': there is a, b"


def test_a_file_in_the_current_folder_is_found_by_reference(strangers: Path) -> None:
    shapes = registry()
    assert shapes.get("stranger_module:twice")(4) == 8
    with pytest.raises(InputError, match="'stranger_module:number' is not a shape: see docs"):
        shapes.get("stranger_module:number")
    with pytest.raises(InputError, match="cannot be imported: AttributeError"):
        shapes.get("stranger_module:thrice")


@pytest.mark.parametrize("fault", ["def f(:", "1 / 0", "raise SystemError('no')"])
def test_a_faulty_file_is_one_line(strangers: Path, fault: str) -> None:
    (strangers / "faulty_module.py").write_text(fault)
    with pytest.raises(InputError, match="shape 'faulty_module:f' cannot be imported: ") as error:
        registry().get("faulty_module:f")
    assert "\n" not in str(error.value)


def test_an_installed_package_adds_entries(strangers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(strangers, monkeypatch, "[hspace.shapes]\ndouble = stranger_module:twice\nlost = nowhere:f\n")
    shapes = registry(path="tempfile:mkdtemp")
    assert shapes.names() == ("path", "double", "lost")
    assert shapes.get("double")(3) == 6
    with pytest.raises(InputError, match=r"shape 'lost' cannot be imported: ModuleNotFoundError"):
        shapes.get("lost")
    meanings = {entry.name: entry.meaning for entry in shapes.listed()}
    assert meanings["double"] == "Twice the number." and meanings["lost"] == "cannot be read"
    assert meanings["path"].startswith("User-callable function to create")


def test_lists_import_nothing(strangers: Path) -> None:
    code = (
        "import sys; from hspace.system.registry import Registry; "
        "print([e.meaning for e in Registry('shape', object, {'d': 'stranger_module:twice'}).listed()], "
        "'stranger_module' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=strangers, capture_output=True, text=True, check=True)
    assert done.stdout == "['Twice the number.'] False False\n"


def test_what_is_registered_replaces_and_is_listed() -> None:
    shapes = registry(path="posixpath:join")

    @shapes.register("path")
    def other() -> None:
        """Another path."""

    assert shapes.get("path") is other
    assert list(shapes.listed()) == [Listed("path", "Another path.")]
    with pytest.raises(InputError, match="'five' is not a shape"):
        shapes.register("five")(5)


def test_strangers_code_counts_by_its_file(strangers: Path) -> None:
    twice = registry().get("stranger_module:twice")
    before = source_sha256(twice)
    assert before is not None and source_sha256(registry) is not None and source_sha256(Registry) is None
    (strangers / "stranger_module.py").write_text(OWN + "# changed\n")
    assert source_sha256(twice) != before
