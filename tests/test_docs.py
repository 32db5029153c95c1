"""The documentation's site names every public name and every setting, and builds without a warning."""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_lines import OTHERS, check_script

import hspace
from hspace.cli import _compose, _with_local_model
from hspace.commands.keeping import CACHE_ACTIONS
from hspace.commands.listing import LISTS, REGISTRIES
from hspace.commands.run import check_scorers
from hspace.commands.words import COMMANDS, parse
from hspace.directions.settings import METHODS
from hspace.runs.config import known_keys
from hspace.runs.parsing import parse as read

ROOT = Path(__file__).parents[1]
PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/**/*.md", ".github/*.md")
    for path in sorted(ROOT.glob(pattern))
)
METHOD_NAMES = METHODS.names()
"""Asked before a test imports the methods of examples."""
FORMS = {"pca_per_step": "pca"}
"""Choices that are a method in another form, which keeps the method's name."""
PROGRAMS = r"(?:python scripts/|(?:hspace|python -m|torchrun|make|wandb|pip|scripts/fresh\.sh) )"
COMMAND = re.compile(rf"`({PROGRAMS}[^`\n]+)`|^    ({PROGRAMS}[^\n]+)$", re.M)


def commands() -> list[str]:
    """Every command that a page gives, in a line of its own or within a sentence."""
    found = (a or b for page in PAGES for a, b in COMMAND.findall((ROOT / page).read_text(encoding="utf-8")))
    whole = (re.sub(r"\s+(#.*|\\)$", "", command).strip() for command in found)
    return sorted({command for command in whole if "…" not in command})


def check(words: list[str]) -> None:
    """Sees that every choice is one that there is, and every key one that its method or the configuration has.

    Raises:
        InputError: If it is not.
    """
    settings = dict(word.lstrip("+").split("=", 1) for word in words)
    method = settings.get("method", "pca")
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        if key == "method":
            assert all(METHODS.get(FORMS.get(each, each)) for each in value.split(","))
        elif (ROOT / "conf" / key).is_dir():
            missing = [name for name in value.split(",") if not (ROOT / "conf" / key / f"{name}.yaml").exists()]
            assert not missing, f"{key}={value}"
        elif section == "method":
            assert name in METHODS.get(FORMS.get(method, method)).settings.model_fields, key
        else:
            assert key in known_keys() or key.startswith("hydra"), key


def understood(command: str) -> list[str] | None:
    """Reads a command as far as it can be without running it; the settings of a single run.

    Raises:
        InputError: If it is a mistake.
    """
    program, *words = shlex.split(command)
    if program == "python" and words[0] != "-m":
        check_script(words[0], words[1:])
        return None
    if program in ("python", "torchrun"):
        module = words.index("-m") + 1
        assert importlib.util.find_spec(words[module]), command
        if words[module] != "hspace.cli":
            return None
        words = words[module + 1 :]
    elif program != "hspace":
        OTHERS[program](words)
        return None
    if words and words[0] in COMMANDS:
        if words[1:]:  # the name alone is no command, but what a sentence calls it
            check(parse(words[0], words[1:]).settings)
        return None
    if words and words[0] in ("list", "cache"):
        topics = {*LISTS, *REGISTRIES, "attributes", "experiments", *CACHE_ACTIONS}
        assert all(word in topics or word.startswith("method=") for word in words[1:]), command
        return None
    settings = [word for word in words if word not in ("--cfg", "job", "-m")]
    check(settings)
    return None if "-m" in words else settings


def test_every_command_on_every_page_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs" / "examples")
    given = commands()
    assert len(given) > 80
    for command in given:
        understood(command)


def launch_lines() -> list[str]:
    """Those of the configuration, as far as the first word that is not of the command: a remark in brackets or after a
    wide space.
    """
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "conf").glob("*/*.yaml")]
    lines = [line for text in texts for line in re.findall(r"(?:Launch:|^#  ) +(hspace .+|python .+)", text, re.M)]
    return sorted({re.split(r"  | [([]| or |;", line)[0] for line in lines})


def test_every_launch_line_of_the_configuration_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs" / "examples")
    given = launch_lines()
    assert len(given) > 60
    for command in given:
        understood(command)


def test_the_page_of_commands_names_every_one() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    names = ["list", "cache", *COMMANDS]
    assert [name for name in names if f"`hspace {name}" not in page and f"(hspace {name}" not in page] == []


@pytest.mark.slow
def test_every_run_on_every_page_is_valid_and_its_scorers_read_its_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT / "docs" / "examples")
    runs = filter(None, map(understood, [*commands(), *launch_lines()]))
    for words in runs:
        here = [word.replace("=FOLDER", f"={tmp_path}") for word in words]
        check_scorers(read(_compose(_with_local_model(here))))


def test_the_page_of_installing_names_every_extra_and_the_wheel_of_this_version() -> None:
    page = (ROOT / "docs" / "howto" / "install.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == [*project["optional-dependencies"]]
    assert set(re.findall(r"hspace-(.+?)-py3", page)) == {hspace.__version__}


def test_every_module_that_a_page_names_is_there() -> None:
    missing = []
    for page in PAGES:
        if not page.endswith("migrating.md"):
            text = (ROOT / page).read_text(encoding="utf-8")
            named = re.findall(r"`hspace[./]([a-z_]+(?:[./][a-z_0-9]+)*)(?:\.py)?[`.]", text)
            parts = {name: re.split(r"[./]", name.removesuffix(".py")) for name in named}
            missing += [(page, name) for name in parts if not is_there(parts[name])]
    assert not missing


def test_every_file_that_a_page_names_is_there() -> None:
    written = {"docs/results/readings.csv"}  # by the first publication from a block of its own
    named = {
        (page, path)
        for page in PAGES
        for path in re.findall(r"\b((?:tests|scripts|conf|docs)/[\w/.-]*\w)", (ROOT / page).read_text(encoding="utf-8"))
    }
    assert not [(page, path) for page, path in named if path not in written and not (ROOT / path).exists()]


def is_there(parts: list[str]) -> bool:
    """Whether hspace has a room, a module, a public name or a group of entry points of these parts."""
    place = (ROOT / "hspace").joinpath(*parts)
    if place.exists() or place.with_suffix(".py").exists():
        return True
    if len(parts) == 1:
        return parts[0] in (*hspace.__all__, *REGISTRIES, "experiments")
    module = place.parent.with_suffix(".py")
    return module.exists() and re.search(rf"\b{parts[-1]}\b", module.read_text("utf-8")) is not None


REFERENCE = re.findall(r"^::: hspace\.([\w.]+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.M)


def test_the_reference_has_every_public_name_once() -> None:
    assert sorted(name for name in REFERENCE if "." not in name) == sorted(hspace.__all__)
    assert len(set(REFERENCE)) == len(REFERENCE)


def test_the_reference_has_every_name_that_an_extension_needs() -> None:
    """What the examples import of hspace, and each class that the page of extensions names."""
    imported = {
        f"{node.module.removeprefix('hspace.')}.{name.name}"
        for path in (ROOT / "docs" / "examples").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hspace.")
        for name in node.names
    }
    assert len(imported) > 10
    documented = {name.rpartition(".")[2] for name in REFERENCE}
    assert {name for name in imported - set(REFERENCE) if name.rpartition(".")[2] not in hspace.__all__} == set()
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    classes = set(re.findall(r"`(?:hspace\.(?:\w+\.)*)?([A-Z][a-z]\w+)`", page)) - {"Field", "ValueError"}
    assert len(classes) > 5 and classes - documented == set()
    assert {name for name in re.findall(r"@hspace\.([\w.]+)", page) if name not in REFERENCE} == set()


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_every_setting(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    settings = pages["configuration.html"]
    sections = {key.rpartition(".")[0] for key in known_keys()}
    keys = [key for key in known_keys() if key not in sections and not key.startswith("method")]
    missing = [key for key in keys if f"<code>{key}</code>" not in settings]
    assert not missing
    assert all(f"method={name}" in settings for name in METHOD_NAMES)
    assert (
        "&gt;&gt;&gt;" in pages["reference.html"] and "<blockquote>" not in pages["reference.html"]
    )  # as examples are
    # Equations are drawn by the browser itself, and no page asks another host for anything.
    assert "<math" in pages["method.html"]
    for name, page in pages.items():
        outside = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page)
        assert not outside, (name, outside)
