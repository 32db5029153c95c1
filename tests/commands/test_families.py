"""Every method on every family from the command line: found, named, applied, measured, drawn and recorded."""

import json
from pathlib import Path

import pytest
from pipelines import PIPELINES, PROMPTS, save

from hspace.cli import main

pytest.importorskip("transformers")
METHODS = (
    "pca",
    "local_pca",
    "random",
    "jacobian",
    "supervised",
    "boundary",
    "self_discovered",
    "trained",
    "sae",
    "pullback",
    "prompt_pairs",
)
NAMED = ("supervised", "boundary", "self_discovered", "trained")
SHORT = {
    "self_discovered": ["method.updates=2"],
    "trained": ["method.updates=1", "method.batch=1"],
    "sae": ["method.updates=3"],
    "pullback": ["method.onto=1"],
}
OTHER = {"classes": "1", "dit": "kind 1"}
OFTEN = {("sd3", "pca"), ("dit", "jacobian")}
CASES = [
    pytest.param(name, method, marks=() if (name, method) in OFTEN else pytest.mark.slow)
    for name in PIPELINES
    for method in METHODS
    if method != "prompt_pairs" or name in PROMPTS
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def words_of(name: str, method: str, root: Path, output: Path) -> list[str]:
    words = [
        f"model.path={save(name, root / name)}", f"method={method}", "debug=default",
        f"output_dir={output}", f"cache_dir={root / 'cache'}",
    ]  # fmt: skip
    if name in PROMPTS:
        words.append(f"model.prompt='{PROMPTS[name]}'")
    return words + SHORT.get(method, [])


@pytest.mark.parametrize(("name", "method"), CASES)
def test_every_method_runs_on_every_family(root: Path, tmp_path: Path, name: str, method: str) -> None:
    words = words_of(name, method, root, tmp_path)
    if method == "prompt_pairs":
        words.append(f"method.prompt='{OTHER.get(name, 'a dog')}'")
    if method in NAMED:
        words.append("method.attribute=skin")  # A number: of networks with random weights no image may have glasses.
    assert main(words) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["model"]["h_shape"]
    assert list(tmp_path.glob("**/*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PIPELINES)
def test_every_family_runs_in_half_precision(root: Path, tmp_path: Path, name: str, dtype: str) -> None:
    """By the method whose products are smallest; where they do not converge, it says so and goes on."""
    assert main([*words_of(name, "jacobian", root, tmp_path), f"dtype={dtype}", "device=cpu"]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["config"]["dtype"] == dtype
    assert list(tmp_path.glob("**/*.png"))
