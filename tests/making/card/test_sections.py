import json
from dataclasses import replace
from pathlib import Path

import pytest
from card import sections, subject
from card.base import Sizes
from card.page import figures
from card.sections import PAIRS_SEED, REFERENCE_SEED, measure
from omegaconf import OmegaConf

from hspace.system.files import package_path
from hspace.worlds.portraits.faces import REGIONS

SIZES = Sizes(
    generated=24, steps=3, reference=64, training_renders=32, people=16, discovery=6, components=2,
    annotated=20, examples=2, calibration=3, judged=4, swaps=2, pairs=2, batch_size=24,
)  # fmt: skip
SINGLE = {
    "decided_share", "marginal_error_max", "mean_error_max", "fid_generated", "fid_floor", "fid_independent",
    "fid_untrained", "fid_share", "judge_accuracy_min", "judge_r2_min", "agreement_min", "identity_tar",
    "semantic_components", "bottleneck_ratio", "swap_background", "swap_judged", "error_correlation", "likeness_tar",
}  # fmt: skip


@pytest.mark.slow
def test_every_section_is_measured_once_and_written(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model draws no hats; poses and smiles are read off anything.
    portraits = replace(subject.SUBJECTS["portraits"], moved=("smile", "yaw"))
    monkeypatch.setitem(subject.SUBJECTS, "portraits", portraits)
    metrics = measure(str(tiny_pipeline_dir), "portraits", SIZES, tmp_path / "card", tmp_path / "data")
    written = json.loads((tmp_path / "card" / "metrics.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(metrics)) and set(written) >= SINGLE
    assert all(isinstance(written[name], int | float | None) for name in SINGLE)
    assert set(written["moved_before"]) == set(written["moved_identity"]) == {"smile", "yaw"}
    assert written["fid_floor"] < min(written["fid_generated"], written["fid_untrained"])
    assert written["identity_tar"] > 0.2 and set(written["regions"]) == set(REGIONS)
    pictures = {path.stem.removeprefix("portraits_") for path in (tmp_path / "card" / "images").glob("*.png")}
    assert pictures == {"rendered", "generated", "nearest", "components", "moved"}
    assert "| moved_after |" in figures(metrics)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    measured = ("_generated", "_pictures", "_scorers", "_components", "_moved", "_nearest")
    for name in (*measured, "carried_by_h", "swapped_shares"):
        monkeypatch.setattr(sections, name, never)
    assert measure(str(tiny_pipeline_dir), "portraits", SIZES, tmp_path / "card", tmp_path / "data") == metrics


@pytest.mark.slow
@pytest.mark.usefixtures("rooms_installed")
def test_a_world_without_likeness_has_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(subject.SUBJECTS, "rooms", replace(subject.SUBJECTS["rooms"], moved=("bed", "yaw")))
    metrics = measure("rooms", "rooms", SIZES, tmp_path / "card", tmp_path / "data")
    assert metrics["world"] == "rooms" and set(metrics["moved_identity"]) == {"bed", "yaw"}
    assert not {"likeness_tar", "swap_background"} & set(metrics) and metrics["kept"] == ["identity"]
    assert {path.stem for path in (tmp_path / "card" / "images").glob("*.png")} >= {"rooms_moved", "rooms_generated"}
    assert "generated rooms" in figures(metrics) and "portrait" not in figures(metrics)


@pytest.mark.slow
def test_a_latent_model_has_a_card_with_pictures_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(subject.SUBJECTS["portraits-128"], moved=("yaw",))
    monkeypatch.setitem(subject.SUBJECTS, "portraits-128", small)
    metrics = measure("portraits-128", "portraits-128", SIZES, tmp_path / "card", tmp_path / "data")
    assert (metrics["card"], metrics["world"]) == ("portraits-128", "portraits")
    assert metrics["bottleneck_ratio"] == pytest.approx(128 * 8 * 8 / (3 * 128 * 128)) and "likeness_tar" in metrics
    assert metrics["carried"]["yaw"]["by_h"] is not None
    pictures = {path.stem.removeprefix("portraits_128_") for path in (tmp_path / "card" / "images").glob("*.png")}
    assert pictures == {"rendered", "generated", "nearest", "components", "moved"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["portraits_v2_128px_32_seed80.npy"]


def test_renders_are_fresh_and_the_training_set_is_the_one_of_the_training() -> None:
    conf = package_path("conf") / "train"
    ddpm, latent, scorers = (OmegaConf.load(conf / f"{name}.yaml") for name in ("ddpm", "latent", "scorers"))
    assert Sizes().training_renders is None
    used = {ddpm.seed, latent.seed, scorers.held_out.seed, *(scorers[name].seed for name in scorers.scorers)}
    assert not used & set(range(REFERENCE_SEED, PAIRS_SEED + 1))
