"""The public names exist where the package says, and importing the package loads nothing heavy."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import hspace

NO_NAME = "smaple"


@pytest.mark.parametrize("name", hspace.__all__)
def test_every_public_name_is_there_and_hidden_by_no_module_of_its_name(name: str) -> None:
    assert callable(getattr(hspace, name))
    assert importlib.util.find_spec(f"hspace.{name}") is None


def test_pyright_is_strict_about_every_module_of_a_public_name() -> None:
    package = Path(hspace.__file__).parent
    modules = {getattr(hspace, name).__module__ for name in hspace.__all__}
    files = [package / "__init__.pyi", *(package.parent / f"{name.replace('.', '/')}.py" for name in modules)]
    assert [file for file in files if not file.read_text().startswith("# pyright: strict")] == []


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="smaple"):
        _ = getattr(hspace, NO_NAME)


def test_importing_the_package_is_quick() -> None:
    code = "import sys, hspace; sys.exit(any(name in sys.modules for name in ('torch', 'wandb', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
