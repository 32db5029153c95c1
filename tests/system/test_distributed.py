"""Two processes under torchrun find the directions of one, and report the same figures."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hspace.cli import main
from hspace.directions.record import Directions
from hspace.system.distributed import from_first, gathered, share, world

ROOT = Path(__file__).parents[2]


def test_one_process_keeps_what_it_has() -> None:
    assert world() == 1 and share(5) == range(5)
    assert gathered("a") == ["a"] and from_first("a") == "a"


def numbers(path: Path) -> tuple[list[str], np.ndarray]:
    with path.open() as file:
        rows = list(csv.reader(file))
    kinds = [cell for row in rows for cell in row if not _is_number(cell)]
    return kinds, np.array([float(cell) for row in rows for cell in row if _is_number(cell)])


def _is_number(cell: str) -> bool:
    return cell.strip("-").replace(".", "", 1).replace("e-", "", 1).isdigit()


def largest_angle(a: Directions, b: Directions) -> float:
    """Principal angle, in radians, of the subspaces of each step; the largest of all steps."""
    angles = []
    for step in range(a.directions.shape[1]):
        q, r = (np.linalg.qr(x.directions[:, step].flatten(1).double().numpy().T)[0] for x in (a, b))
        residual = np.linalg.norm(r - q @ (q.T @ r), 2)
        angles.append(np.arcsin(min(1.0, residual)))
    return max(angles)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pca", "local_pca", "supervised"])
def test_two_processes_find_and_report_what_one_does(tiny_pipeline_dir: Path, tmp_path: Path, method: str) -> None:
    words = [
        f"model.path={tiny_pipeline_dir}", "diffusion.num_steps=3", f"method={method}", "method.k=2",
        "method.num_samples=150", "edit.strengths=[-2,0,2]", "evaluation.num_samples=8",
        "evaluation.calibration_samples=8", "tracking.mode=disabled", "device=cpu",
    ]  # fmt: skip
    words += ["method.attribute=skin"] if method == "supervised" else []
    assert main([*words, f"output_dir={tmp_path / 'one'}", f"cache_dir={tmp_path / 'cache-1'}"]) == 0
    more = [*words, f"output_dir={tmp_path / 'two'}", f"cache_dir={tmp_path / 'cache-2'}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "hspace.cli", *more], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "two" / "figures" / "directions.png")]
    one, two = (Directions.load(tmp_path / name / "directions.safetensors") for name in ("one", "two"))
    assert one.meta.names == two.meta.names and one.meta.seeds == two.meta.seeds
    assert largest_angle(one, two) <= 1e-3
    assert (one.directions - two.directions).abs().max() <= 1e-3 * one.directions.abs().max()
    for table in ("directions.csv", "effects.csv"):
        (said, figures), (again, same) = (numbers(tmp_path / name / "tables" / table) for name in ("one", "two"))
        assert said == again and abs(figures - same).max() < 5e-3
    if method != "supervised":  # each process kept its own half of h, and none the whole
        halves = [np.load(path, mmap_mode="r") for path in (tmp_path / "cache-2" / "collect").glob("*/h.npy")]
        assert [array.shape[1] for array in halves] == [75, 75]
    assert not list((tmp_path / "cache-2").glob("*/*.tmp"))
