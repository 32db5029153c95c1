"""Everything on every family from the command line: found, named, applied, measured, drawn and recorded."""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from pipelines import PIPELINES, PROMPTS, save

from hspace.cli import main
from hspace.diffusion.checkpoints import load_model
from hspace.directions.record import Directions
from hspace.evaluation.measures import MEASURES

pytest.importorskip("transformers")
DOCS = Path(__file__).parents[2] / "docs" / "models.md"
# A number: of networks with random weights no image may have glasses.
NUMBER = "method.attribute=skin"
FEW = f"{NUMBER} method.k=2 method.num_samples=6"
WORKS = {
    "pca": "method=pca method.k=2 method.num_samples=4",
    "pca_per_step": "method=pca_per_step method.k=1 method.num_samples=4",
    "local_pca": "method=local_pca method.k=1 method.num_samples=4",
    "random": "method=random method.k=1 method.num_samples=4",
    "sae": "method=sae method.k=1 method.num_samples=10 method.updates=3",
    "jacobian": "method=jacobian method.k=1 method.steps=[1] method.mask=[0,0,0.5,0.5]",
    "pullback": "method=pullback method.k=1 method.step=1 method.onto=1",
    "supervised": f"method=supervised {FEW}",
    "eq. 12": f"method=supervised {FEW} method.conditions=[age]",
    "boundary": f"method=boundary {FEW}",
    "whitened": f"method=whitened {FEW}",
    "regression": f"method=regression {NUMBER} method.num_samples=20",
    "self_discovered": f"method=self_discovered {FEW} method.updates=2",
    "trained": f"method=trained {NUMBER} method.num_samples=20 method.updates=1 method.batch=1",
    "trained_network": f"method=trained_network {NUMBER} method.num_samples=20 method.updates=1 method.batch=1",
    "counter": f"method=counter {NUMBER} method.k=2 method.num_samples=24 evaluation.calibration_samples=24",
    "erase": f"method=erase {NUMBER} method.num_samples=6",
    "switch": f"method=switch {FEW}",
    "transport": f"method=transport {FEW}",
    "prompt_pairs": "method=prompt_pairs method.num_samples=2",
    "ready": "method=ready",
    "asyrp, a window of steps": "method=random method.k=1 diffusion.injection=asyrp edit.start=1 edit.stop=2",
    "all measures": "method=jacobian method.k=1 method.steps=[1] method.mask=[0,0,0.5,0.5] evaluation.num_samples=4",
    "hspace invert": "invert",
    "hspace edit": "edit",
}
"""What is run, by the first column of the table in docs/models.md."""
REFUSED = {
    **{
        (name, "prompt_pairs"): "prompt pairs need a model of prompts or classes"
        for name in set(PIPELINES) - set(PROMPTS)
    },
    **{(name, "ready"): "ready-made directions are of portraits" for name in PIPELINES},
}
"""One line instead, by family and work."""
OFTEN = dict(
    zip(
        PIPELINES,
        ("eq. 12", "pca", "boundary", "hspace edit", "prompt_pairs", "supervised", "jacobian", "all measures",
         "asyrp, a window of steps", "hspace invert"),
        strict=True,
    )
)  # fmt: skip
"""A work of each family that the fast tests run; all others are slow."""
CONSTANT = {"pixel": "mod", "dit": "block:0.mod", "sd3": "mod", "flux": "block:0.mod"}
"""A tap of some families where h is the same for every sample."""
ANYWAY = {"jacobian", "self_discovered", "trained", "trained_network", "prompt_pairs"}
"""Works that do not learn from how h differs between samples."""
OTHER = {"classes": "1", "dit": "kind 1"}
SMALL = "debug=default diffusion.num_steps=2 edit.strengths=[1] evaluation.num_samples=2 evaluation.reference_samples=4"


def cases() -> list:
    fast = {*OFTEN.items(), ("pixel", "prompt_pairs"), ("flux", "ready")}
    every = [(name, work) for name in PIPELINES for work in WORKS]
    return [pytest.param(*case, marks=() if case in fast else pytest.mark.slow) for case in every]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def model_of(name: str, root: Path, output: Path) -> list[str]:
    words = [f"model.path={save(name, root / name)}", "diffusion.num_steps=2", f"cache_dir={output / 'cache'}"]
    return words + ([f"model.prompt='{PROMPTS[name]}'"] if name in PROMPTS else [])


def words_of(name: str, work: str, root: Path, output: Path) -> list[str]:
    """The command line of a run."""
    words = [*SMALL.split(), *model_of(name, root, output), *WORKS[work].split(), f"output_dir={output / 'run'}"]
    if work == "prompt_pairs":
        words.append(f"method.prompt='{OTHER.get(name, 'a dog')}'")
    if work == "all measures":
        words.append(f"evaluation.measures=[{','.join(MEASURES.names())}]")
    return words


def photograph(folder: Path) -> Path:
    values = torch.rand(24, 20, 3, generator=torch.Generator().manual_seed(0)) * 255
    path = folder / "photo.png"
    Image.fromarray(values.byte().numpy()).save(path)
    return path


def on_a_photograph(name: str, work: str, root: Path, output: Path) -> list[str]:
    """The command line of `hspace edit` or `hspace invert`."""
    words = [*WORKS[work].split(), str(photograph(output)), "--inversions", str(output / "inversions")]
    words += model_of(name, root, output)
    if work == "hspace edit":
        model = load_model(str(root / name), num_steps=2, device="cpu", prompt=PROMPTS.get(name, ""))
        file = output / "directions.safetensors"
        Directions.of(model, torch.ones(1, *model.h_shape), names=["all"]).save(file)
        words += [
            "--direction",
            f"{file}:all",
            "--samples",
            "0",
            "--animation",
            "none",
            "--output",
            str(output / "run"),
        ]
    return words


@pytest.mark.parametrize(("name", "work"), cases())
def test_every_work_on_every_family(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, work: str
) -> None:
    make = on_a_photograph if work.startswith("hspace") else words_of
    code, told = main(make(name, work, root, tmp_path)), capsys.readouterr()
    refusal = REFUSED.get((name, work))
    if refusal:
        last = told.err.strip().splitlines()[-1]
        assert code == 2 and last.startswith("hspace: error: ") and refusal in last and "Traceback" not in told.err
        assert all(path.suffix == ".lock" for path in tmp_path.rglob("*") if path.is_file()), "nothing half-written"
        return
    assert code == 0, told.err
    if work == "hspace invert":
        assert re.search(r"reconstruction error of its middle \d\.\de[-+]\d+", told.out)
        return
    pictures = {path.stem for path in tmp_path.glob("run/**/*.png")}
    if work == "hspace edit":
        assert pictures == {"edited", "strip"}
        return
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["model"]["h_shape"] and {"directions", "effects", "samples"} <= pictures
    assert ("positions" in pictures) == (work in ("local_pca", "jacobian", "pullback", "all measures"))


def cases_of_constants() -> list:
    fast = {
        ("pixel", "supervised"),
        ("dit", "pullback"),
        ("sd3", "all measures"),
        ("flux", "random"),
        ("sd3", "prompt_pairs"),
    }
    left_out = {"ready", "hspace invert", "hspace edit"}
    every = [case for case in itertools.product(CONSTANT, WORKS) if case not in REFUSED and case[1] not in left_out]
    return [pytest.param(*case, marks=() if case in fast else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("name", "work"), cases_of_constants())
def test_where_h_is_the_same_for_every_sample_a_work_runs_or_is_refused_before_any_sample(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, work: str
) -> None:
    code = main([*words_of(name, work, root, tmp_path), f"model.tap={CONSTANT[name]}"])
    told = capsys.readouterr().err
    if work in ANYWAY:
        assert code == 0, told
        return
    last = told.strip().splitlines()[-1]
    assert (
        code == 2 and last.startswith("hspace: error: ") and f"tap {CONSTANT[name]}" in last and "the same for" in last
    )
    assert all(path.suffix == ".lock" for path in tmp_path.rglob("*") if path.is_file())


def test_a_direction_of_x_T_is_found_whatever_is_tapped(root: Path, tmp_path: Path) -> None:
    assert main([*words_of("pixel", "supervised", root, tmp_path), "method.space=x_T", "model.tap=mod"]) == 0


def test_prompt_pairs_need_an_h_that_the_prompt_or_the_sample_changes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tap `mod` of a U-Net is of time alone."""
    assert main([*words_of("stable_diffusion", "prompt_pairs", root, tmp_path), "model.tap=mod"]) == 2
    assert "tap mod: h depends neither on the sample nor on the prompt there" in capsys.readouterr().err


def test_the_table_of_the_docs_is_that_of_this_test() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| from the command line |"))
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:] if line.startswith("|")
    ]
    assert [name.strip("`") for name in header[1:]] == list(PIPELINES)
    found = {row[0].strip("`"): row[1:] for row in rows[: len(WORKS)]}
    wanted = {work: ["refused" if (name, work) in REFUSED else "runs" for name in PIPELINES] for work in WORKS}
    assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PIPELINES)
def test_every_family_runs_in_half_precision(root: Path, tmp_path: Path, name: str, dtype: str) -> None:
    """By the method whose products are smallest; where they do not converge, it says so and goes on."""
    assert main([*words_of(name, "jacobian", root, tmp_path), f"dtype={dtype}", "device=cpu"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["dtype"] == dtype and list(tmp_path.glob("run/**/*.png"))
