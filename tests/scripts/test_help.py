"""Every script says what it does and how it is called, before it does anything."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "scripts").rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_helps(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if script == "scripts/fake_cuda.py":
        pytest.importorskip("torch", minversion="2.10", reason="its device stands on hooks that torch has since 2.10")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert Path(script).name in told or "hspace" in told or "usage" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("folder", ["scripts", "."])
def test_the_script_of_a_fresh_start_helps_from_any_folder(folder: str) -> None:
    path = Path("../scripts/fresh.sh") if folder == "scripts" else Path("scripts/fresh.sh")
    done = subprocess.run(["bash", path.as_posix(), "--help"], cwd=ROOT / folder, capture_output=True, text=True)
    assert done.returncode == 0 and "Steps: demo, test, wheel" in done.stdout and done.stdout.count("\n") == 5


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 15
