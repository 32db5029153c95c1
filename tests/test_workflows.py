"""What the workflows run is what a developer runs: targets of make, and steps of scripts/fresh.sh, that there are."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import OTHERS

ROOT = Path(__file__).parents[1]
WORKFLOWS: dict[str, Any] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github" / "workflows").glob("*")
}
FOREIGN = {
    "audit": "pipx run pip-audit --no-deps --disable-pip --requirement constraints.txt",
    "release": 'test "v$(.venv/bin/python -c \'import hspace; print(hspace.__version__)\')" = "$GITHUB_REF_NAME"',
}
"""Steps that are no command of the checkout: an audit, which needs a network, and the check of a tag."""


def test_there_is_one_for_each_purpose() -> None:
    assert WORKFLOWS.keys() == {"tests", "docs", "weekly", "release"}
    assert WORKFLOWS["tests"]["jobs"].keys() == {"tests", "whole", "coverage", "bounds"}
    assert WORKFLOWS["weekly"]["jobs"].keys() == {"slow", "audit"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_step_is_a_command_of_the_checkout(name: str) -> None:
    runs = [step["run"] for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"] if "run" in step]
    assert runs
    for run in runs:
        program, *words = run.split()
        if run == ".ci/run" or run in FOREIGN.values():
            continue
        OTHERS[program](words)


def test_the_whole_check_and_the_release_run_steps_that_there_are() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    ours = re.findall(r"^.*?(make|scripts/fresh\.sh)((?: -s)?(?: [a-z-]+)+)", text, re.M)
    assert len(ours) >= 3
    for program, words in ours:
        OTHERS[program]([word for word in words.split() if word != "-s"])


def test_every_python_that_the_package_names_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert WORKFLOWS["tests"]["jobs"]["tests"]["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"
