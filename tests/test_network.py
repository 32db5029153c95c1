"""What the Hugging Face hub itself answers, run weekly; skipped where there is no network or no token."""

import os
import uuid
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hspace.cli import main
from hspace.diffusion.checkpoints import load_model
from hspace.directions.hub import local_path, push
from hspace.directions.record import Directions
from hspace.scorers.factory import load_scorer
from hspace.system.hub import why_unreachable
from hspace.types import InputError, one_line

TINY = "hf-internal-testing/tiny-stable-diffusion-torch"
"""Stable Diffusion of a few MB with random weights, which diffusers' own tests read."""
CLIP = "hf-internal-testing/tiny-random-CLIPModel"
OLD = "google/ddpm-cifar10-32"
"""A DDPM of 140 MB in the old layout, with all files at the root."""

pytestmark = pytest.mark.network


@pytest.fixture(autouse=True)
def _reached() -> None:
    """Skips where nobody answers; a refusal of the hub is an answer, and fails the test."""
    reason = why_unreachable(TINY)
    if reason is not None and not isinstance(reason, HfHubHTTPError):
        pytest.skip(f"the hub is not reached: {one_line(reason)}")


def test_a_run_on_a_pipeline_of_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"model.path={OLD}", "debug=default", f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"]
    assert main([*words, "device=cpu"]) == 0, capsys.readouterr().err
    directions = Directions.load(tmp_path / "out" / "directions.safetensors")
    assert directions.meta.model_id == OLD


def test_a_prompted_pipeline_of_the_hub_is_of_the_commit_that_it_says() -> None:
    model = load_model(TINY, num_steps=2, device="cpu", prompt="a face")
    assert model.revision is not None and len(model.revision) == 40
    again = load_model(TINY, num_steps=2, device="cpu", prompt="a face", revision=model.revision)
    assert again.provenance() == model.provenance()


def test_a_scorer_of_the_hub_reads_images() -> None:
    scores = load_scorer(f"clip:{CLIP}")(torch.zeros(2, 3, 32, 32))
    assert scores.shape[0] == 2 and bool(((scores >= 0) & (scores <= 1)).all())


def test_a_name_that_the_hub_does_not_know_is_one_line() -> None:
    with pytest.raises(InputError, match="the hub does not give such a model"):
        load_model("hf-internal-testing/there-is-no-such-pipeline", device="cpu")
    with pytest.raises(InputError, match="there is none, or it is not yours to see"):
        local_path("hub:hf-internal-testing/there-is-no-such-pipeline")


@pytest.mark.skipif(not os.environ.get("HF_TOKEN"), reason="HF_TOKEN holds no token that may write to the hub")
def test_directions_come_back_from_the_hub_as_they_were_pushed(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu")
    given = Directions.of(model, torch.ones(1, *model.h_shape), names=["ones"])
    given.save(tmp_path / "directions.safetensors")
    repository = f"{HfApi().whoami()['name']}/hspace-test-{uuid.uuid4().hex[:8]}"
    try:
        address = push(repository, tmp_path / "directions.safetensors", private=True)
        assert repository in address
        found = Directions.load(local_path(f"hub:{repository}"))
        assert torch.equal(found.directions, given.directions) and found.meta == given.meta
    finally:
        HfApi().delete_repo(repository, missing_ok=True)
