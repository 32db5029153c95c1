"""The words that a shell completes, as bash itself finds them."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from hspace.cli import main

TYPED = {
    "hspace method=super": ["supervised"],
    "hspace compl": ["completion"],
    "hspace diffusion.et": ["diffusion.eta="],
    "hspace experiment=dem": ["demo"],
    "hspace method.num_sam": ["method.num_samples="],
    "hspace method=pca evaluation=cl": ["clip"],
    "hspace model.guid": ["model.guidance="],
    "hspace method.zzz": [],
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_choices_and_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "hspace.bash"
    script.write_text(capsys.readouterr().out)
    for typed, wanted in TYPED.items():
        ask = f'source {script}; COMP_LINE="{typed}"; COMP_POINT={len(typed)}; _hspace; echo "${{COMPREPLY[@]}}"'
        assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True).stdout.split() == wanted


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash at a terminal")
def test_the_tab_key_completes_at_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "hspace.bash"
    script.write_text(capsys.readouterr().out)
    assert typed_at_bash(script, list(TYPED)) == [
        f"{typed.removesuffix(re.split('[ =]', typed)[-1])}{wanted[0]}" if wanted else typed
        for typed, wanted in TYPED.items()
    ]


def typed_at_bash(script: Path, lines: list[str]) -> list[str]:
    """What stands in each line after the tab key, which `echo`, put before it by ctrl-A, says."""
    keys = [f"source {script}\n", *(f"{line}\t\x01echo so: \n" for line in lines), "exit\n"]
    ours, theirs = os.openpty()
    bash = ["bash", "--norc", "--noprofile", "-i"]
    env = {**os.environ, "TERM": "dumb", "COLUMNS": "200"}
    with subprocess.Popen(bash, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=env):
        os.close(theirs)
        os.write(ours, "".join(keys).encode())
        said = b""
        with suppress(OSError):  # at its end Linux gives an error, macOS nothing
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    return re.findall(r"^so: (.*?) *\r?$", said.decode(), re.M)


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 0
    script = tmp_path / "hspace.fish"
    script.write_text(capsys.readouterr().out)
    for typed, wanted in TYPED.items():
        told = subprocess.run(["fish", "-c", f"source {script}; complete -C '{typed}'"], capture_output=True, text=True)
        word = typed.split()[-1]
        prefix = word[: word.find("=") + 1]
        assert [each.removeprefix(prefix) for each in told.stdout.split()] == wanted


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "method=pca" in script and "WORDS" not in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean 'bash'" in capsys.readouterr().err
