from pathlib import Path
from typing import Any

import pytest
from card.page import BEGIN, END, refresh, targets, worst

from hspace.types import InputError

DOCS = Path(__file__).resolve().parents[3] / "docs"
MOVED = ("strength", "unedited", "before", "after", "identity")
SHARES = {"glasses": 0.9, "yaw": 0.85}


def make_metrics(**changed: Any) -> dict[str, Any]:
    metrics = {
        "card": "portraits", "world": "portraits",
        "bottleneck_ratio": 0.33, "swap_background": 0.2, "swap_judged": 0.8, "error_correlation": 0.1,
        "decided_share": 0.95, "marginal_error_max": 0.05, "mean_error_max": 0.1, "fid_floor": 1.0,
        "fid_generated": 2.0, "fid_independent": 3.0, "fid_untrained": 101.0, "fid_share": 0.01,
        "judge_accuracy_min": 0.99, "judge_r2_min": 0.97, "agreement_min": 0.98, "identity_tar": 0.96,
        "semantic_components": 5, "semantic_attributes": ["age", "hat", "skin", "yaw"],
        "moved_before": {"glasses": 0.1, "yaw": 0.15}, "moved_after": SHARES, "moved_identity": SHARES,
        "likeness_tar": 0.8,
        "attributes": {"glasses": {"judge": 1.0, "error": 0.01, "decided": 0.98, "agreement": 0.99},
                       "yaw": {"judge": 0.99, "error": 0.03}},
        "components": [{"component": 2, "attribute": "yaw", "effect": 1.5, "low": 1.3, "ratio": 3.0, "semantic": True}],
        "moved": {"yaw": {"unedited": 0.5, "before": 0.1, "after": 0.9, "likeness": 0.8, "identity": 0.6,
                          "method": "whitened", "strength": 1.5}},
        "kept": ["likeness", "identity"],
        "carried": {"yaw": {"log_snr": -2.2, "by_h": 0.9}, "smile": {"log_snr": None, "by_h": None}},
        "regions": {"eyes": 0.95},
        "swapped": {"yaw": {"share": 0.8, "se": 0.1}, "background": {"share": 0.2, "se": 0.1}},
        "sizes": {"generated": 2048, "steps": 10, "judged": 200, "swaps": 256, "discovery": 500, "examples": 100,
                  "annotated": 400, "calibration": 32},
    }  # fmt: skip
    return metrics | changed


def met(metrics: dict[str, Any]) -> dict[Any, Any]:
    return {row[1]: row[4] for row in targets(metrics).rows if row[3]}


def test_every_figure_with_a_target_is_met_or_not() -> None:
    assert set(met(make_metrics()).values()) == {"yes"} and len(met(make_metrics())) == 16
    bad = {"decided_share": None, "semantic_components": 4, "moved_before": {"glasses": 0.1, "yaw": 0.2}}
    failed = met(make_metrics(**bad))
    assert {key for key, answer in failed.items() if answer != "yes"} == set(bad)


def test_the_worst_of_several_counts() -> None:
    assert worst(SHARES, ">") == 0.85 and worst(SHARES, "<") == 0.9 and worst(["a", "b"], "≥") == 2
    assert worst({"glasses": 0.9, "yaw": None}, ">") is None


def test_the_page_keeps_its_text_and_takes_the_figures(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "portraits_moved.png").write_bytes(b"picture")
    page = tmp_path / "portraits.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    for _ in range(2):
        refresh(tmp_path, make_metrics(), pictures)
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"Before.\n\n{BEGIN}\n") and text.endswith(f"{END}\n\nAfter.\n") and "old" not in text
        assert "| judge on renders: accuracy, worst binary attribute | judge_accuracy_min | .99 | ≥ .97 | yes |" in text
        assert "| eyes | .95 |" in text and "| yaw | whitened difference | 1.5 |" in text
    assert (tmp_path / "images" / "portraits_moved.png").read_bytes() == b"picture"


def test_another_model_of_the_world_has_its_own_place_on_the_page(tmp_path: Path) -> None:
    page, own = tmp_path / "portraits.md", "<!-- portraits-128: begin --><!-- portraits-128: end -->"
    page.write_text(f"{BEGIN}\nthe first\n{END}\n{own}\n", encoding="utf-8")
    refresh(tmp_path, make_metrics(card="portraits-128", bottleneck_ratio=0.167), tmp_path)
    first, second = page.read_text(encoding="utf-8").split("<!-- portraits-128: begin -->")
    assert first == f"{BEGIN}\nthe first\n{END}\n" and "| bottleneck_ratio | .167 |" in second
    refresh(tmp_path, make_metrics(), tmp_path)
    first, second = page.read_text(encoding="utf-8").split("<!-- portraits-128: begin -->")
    assert "| bottleneck_ratio | .33 |" in first and "| bottleneck_ratio | .167 |" in second


@pytest.mark.parametrize("text", ["no marks", END + BEGIN, BEGIN + END + END, BEGIN + BEGIN + END])
def test_a_page_without_its_marks_is_left_alone(text: str, tmp_path: Path) -> None:
    page = tmp_path / "portraits.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="once each"):
        refresh(tmp_path, make_metrics(), tmp_path)
    assert page.read_text(encoding="utf-8") == text


def test_the_card_can_be_refreshed(tmp_path: Path) -> None:
    (tmp_path / "portraits.md").write_bytes((DOCS / "portraits.md").read_bytes())
    refresh(tmp_path, make_metrics(), tmp_path / "none")
    assert "| semantic_components | 5 |" in (tmp_path / "portraits.md").read_text(encoding="utf-8")


def test_a_world_without_likeness_and_background_has_no_such_rows(tmp_path: Path) -> None:
    metrics = make_metrics(
        card="rooms",
        world="rooms",
        kept=["identity"],
        swapped={"lamp": {"share": 0.8, "se": 0.1}},
        moved={"lamp": {**dict.fromkeys(MOVED, 0.5), "method": "trained"}},
    )
    for key in ("likeness_tar", "swap_background"):
        del metrics[key]
    rows = {row[1]: str(row[0]) for row in targets(metrics).rows}
    assert not {"likeness_tar", "swap_background"} & set(rows)
    assert rows["moved_identity"].startswith("identity to") and "generated rooms" in rows["decided_share"]
    (tmp_path / "rooms.md").write_text(f"{BEGIN}{END}", encoding="utf-8")
    refresh(tmp_path, metrics, tmp_path)
    text = (tmp_path / "rooms.md").read_text(encoding="utf-8")
    assert "likeness" not in text and "portrait" not in text and "background" not in text and "person" not in text
