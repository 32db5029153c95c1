"""The device in Python has a GPU's rules. Processes of their own, since torch never forgets a device."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", minversion="2.10", reason="the device stands on hooks that torch has since 2.10")

SCRIPTS = Path(__file__).parents[2] / "scripts"

RULES = """
import sys
sys.path.insert(0, {scripts!r})
import torch
from fake_device import OtherDevice, fake_device

def refused(work, error=OtherDevice):
    try:
        work()
    except error:
        return
    raise SystemExit("not refused")

with fake_device() as device:
    here = torch.arange(6.0, device=device).reshape(2, 3)
    there = torch.arange(6.0).reshape(2, 3)
    refused(lambda: here + there)
    refused(lambda: there[here[:, 0].long()])
    refused(lambda: torch.cat([here, there]))
    refused(lambda: torch.randn(2, generator=torch.Generator(), device=device))
    refused(lambda: torch.nn.Linear(3, 1)(here))
    refused(lambda: here.numpy(), RuntimeError)
    assert torch.equal((here * torch.tensor(2.0)).cpu(), 2 * there), "a number of the CPU may meet it"
    assert torch.equal(here[torch.tensor([1, 0])].cpu(), there[[1, 0]]), "indices of the CPU may"
    assert torch.equal(here[[1]].cpu(), there[[1]]) and here[here > 4].tolist() == [5.0]
    drawn = torch.randn(2, generator=torch.Generator(device).manual_seed(0), device=device)
    assert drawn.device == device and drawn.shape == (2,)
    weights = torch.nn.Linear(3, 1).to(device)
    weights(here).sum().backward()
    assert weights.weight.grad.device == device and weights.weight.grad.tolist() == [[3.0, 5.0, 7.0]]
    there[:] = here.to("cpu")
    here += 1
    assert torch.equal(here.cpu(), there + 1) and float(here.sum()) == 21
assert torch.zeros(2).device.type == "cpu"
"""


def answer(*command: str) -> tuple[int, str]:
    process = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    return process.returncode, process.stdout + process.stderr


@pytest.mark.slow
def test_the_rules_of_a_gpu() -> None:
    code, said = answer("-c", RULES.format(scripts=str(SCRIPTS)))
    assert code == 0, said


@pytest.mark.slow
def test_edits_of_a_family_meet_no_other_device() -> None:
    code, said = answer(str(SCRIPTS / "fake_cuda.py"), "--models", "pixel", "--works", "edits")
    assert code == 0 and "pixel edits: ok" in said and "left out:" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--models", "pixel", "--works", "pca,edit"], "unknown --works 'edit': did you mean 'edits'?"),
        (["--models", "pixels"], "unknown --models 'pixels': did you mean 'pixel'?"),
    ],
)
def test_what_is_not_there_is_one_line_and_nothing_runs(words: list[str], line: str) -> None:
    assert answer(str(SCRIPTS / "fake_cuda.py"), *words) == (2, f"hspace: error: {line}\n")
